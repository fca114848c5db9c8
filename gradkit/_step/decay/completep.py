"""CompleteP's weight decay: of matrices alone, the same at any width."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, paths, rate
from gradkit._core.factory import factory
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)
from gradkit.parametrization import apply, rules
from gradkit.parametrization.parameter import Parametrization


class CompletePDecayState(NamedTuple):
    """State of `decay_by_completep`."""

    count: jax.Array  # updates so far, int32 []


@factory
def decay_by_completep(
    parametrization: Parametrization,
    *,
    weight_decay: Rate = 1e-2,
    branch: Hyper = 1.0,
) -> Transform:
    r"""Take from the update of each matrix a fraction of it, by the depth and not the width.

    $$u_t = \Delta_t - \mathrm{weight\_decay}_{t-1} \, L^{\mathrm{branch} - 1} p_{t-1}$$

    with $L$ the growth of the number of layers the matrix is one of, 1 outside them. Biases,
    gains and scalars pass as they are.

    Args:
        parametrization: from `infer_parametrization`; its `depth` is $L$.
        weight_decay: the fraction lost in one update at the base size, the learning rate's factor
            included; a number or a schedule.
        branch: exponent of the depth by which residual branches are divided, as in
            `transfer_by_completep`; with 1 the depth has no effect on the decay.

    Needs: params, unless `weight_decay` is 0. Stands after `transfer_by_completep`.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `6*size` a leaf.
    Paper: Dey and others, "Don't be lazy: CompleteP enables compute-efficient deep
        transformers", arXiv:2505.01618, Table 1.
    Departure: the table's decay is multiplied by each parameter's own rate; this is that
        product, without the learning rate.
    Limits: a leaf is a matrix if it has two axes or more, without stacked axes (layers, experts).

    >>> p = gk.Parametrization({"w": gk.Parameter((8, 8), (2, 2), "hidden", (0,), (1,))})
    >>> tx, w = gk.decay_by_completep(p, weight_decay=0.1), {"w": jnp.ones((8, 8))}
    >>> print(tx.update({"w": jnp.zeros((8, 8))}, tx.init(w), w)[0]["w"][0, 0])
    -0.1
    """
    method = "decay_by_completep"
    check.nonnegative(method, weight_decay=weight_decay)
    check.interval(method, "(0, 1]", branch=branch)
    rule = functools.partial(rules.completep, branch=branch)
    multipliers = rules.follow(method, parametrization, rule, "adam")

    def init(params: Params) -> CompletePDecayState:
        del params
        return CompletePDecayState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates,
        state: CompletePDecayState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, CompletePDecayState]:
        del extra
        count = numbers.increment(state.count)
        if rate.is_zero(weight_decay):
            return updates, CompletePDecayState(count)
        check.given(method, params)
        apply.fits(method, parametrization, check.leaves(updates))
        base = rate.at(weight_decay, state.count)

        def shrink(path: str, u: jax.Array, p: jax.Array) -> jax.Array:
            m = multipliers[path]
            decay = base * m.weight_decay * m.learning_rate
            return (u - decay * p.astype(u.dtype)).astype(u.dtype)

        u = paths.map_with_path(shrink, numbers.wide(updates), params)
        return numbers.like(u, updates), CompletePDecayState(count)

    return transform(init, update)
