"""ScaledGD: the gradient of each factor of a product, preconditioned by the other factor."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, paths, shard
from gradkit._core.factory import factory
from gradkit._core.matrix import lapack, roots
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Scalar,
    Transform,
    Updates,
    stateless,
)

LORA = {r"(.*)lora_a(.*)": r"\1lora_b\2"}


@factory
def precondition_by_paired_factors(
    pairs: Mapping[str, str] = LORA, *, damping: Hyper = 1e-6
) -> Transform:
    r"""Divide the gradient of each factor of a product by the Gram matrix of the other.

    $$W = A B: \qquad u_A = g_A (B B^T + \mathrm{damping} \, I)^{-1}, \qquad
      u_B = (A^T A + \mathrm{damping} \, I)^{-1} g_B$$
    $$W = X X^T: \qquad u_X = g_X (X^T X + \mathrm{damping} \, I)^{-1}$$

    Args:
        pairs: for a regular expression that a whole path matches, the path of the other
            factor, with `\1` for its first group and so on. The first is `A`
            `[..., rows, rank]`, the other `B` `[..., rank, cols]`; a leaf that is its own
            partner (`\g<0>`) is `X`. Paths are names joined by `/`.
        damping: added to the eigenvalues, in units of a squared parameter.

    Needs: params.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `6*size*min(rows, cols) + 4*min(rows, cols)**3 + 20*size + 60` a leaf, beside
        the triangular solves.
    Paper: Xu, Shen, Chi and Ma, "The Power of Preconditioning in Overparameterized Low-Rank
        Matrix Sensing", arXiv:2302.01186, equation 5; for pairs as in Zhang and Pilanci,
        "Riemannian Preconditioned LoRA for Fine-Tuning Foundation Models", arXiv:2402.02347.
    Departure: a bound on the rounding error of the Gram matrix is added to `damping`, so that
        float32 can divide by it. With `damping` 0, the gradient of a factor beside
        one of zeros stays as it is.
    Limits: every leaf must be in one pair: send the others elsewhere with `gradkit.route`. The
        paper's linear convergence needs a `damping` of at most the smallest squared singular
        value of the solution, and a small initialization. Two layers in sequence are not such a
        pair.
    Errors: a leaf in no pair, or whose partner is missing or of another rank, is named.

    >>> tx, a, b = gk.precondition_by_paired_factors(damping=0.0), jnp.ones((2, 1)), jnp.eye(1)
    >>> p = {"lora_a": a, "lora_b": 10.0 * b}  # the same product, however it is split
    >>> u, _ = tx.update({"lora_a": 10.0 * a, "lora_b": b}, tx.init(p), p)
    >>> print(u["lora_a"].T.round(3), u["lora_b"].round(3))
    [[0.1 0.1]] [[0.5]]
    """
    name = "precondition_by_paired_factors"
    check.nonnegative(name, damping=damping)
    for pattern in pairs:
        check.expression(name, "the key of pairs", pattern)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.given(name, params)
        check.matrix(name, updates)
        factors: dict[str, jax.Array] = {}
        paths.map_with_path(
            lambda path, p: factors.update({path: shard.whole(p)}), numbers.wide(params)
        )
        seconds = {a: _partner(pairs, a, factors) for a in factors}
        firsts = {b: a for a, b in seconds.items() if b not in (None, a)}

        def leaf(path: str, g: jax.Array) -> jax.Array:
            first, second = firsts.get(path), seconds[path]
            check.holds(
                name,
                (first is None) != (second is None),
                f"leaf {path} must be in one pair",
                f"the partners {[x for x in (first, second) if x is not None]}",
                "Add a pattern for it, or send it elsewhere with gradkit.route.",
            )
            if first is not None:
                return _over(factors[first].mT, damping, g)
            a, b = factors[path], factors[str(second)]
            rows = a.mT if path == second else b
            check.holds(
                name,
                rows.shape[:-1] == (*a.shape[:-2], a.shape[-1]),
                f"leaf {path} {a.shape} must fit the product with {second}",
                b.shape,
                "Shapes are [..., rows, rank] and [..., rank, cols].",
            )
            return _over(rows, damping, g.mT).mT

        g = numbers.read(updates)
        u = paths.map_with_path(leaf, jax.tree.map(shard.whole, g))
        return numbers.like(jax.tree.map(shard.alike, u, g), updates)

    return stateless(update)


def _partner(
    pairs: Mapping[str, str], path: str, factors: Mapping[str, jax.Array]
) -> str | None:
    """The path of the second factor if `path` is a first one, else `None`."""
    matches = [(re.fullmatch(pattern, path), other) for pattern, other in pairs.items()]
    partner = next((m.expand(other) for m, other in matches if m), None)
    check.holds(
        "precondition_by_paired_factors",
        partner is None or partner in factors,
        f"leaf {path} must have its partner {partner}",
        f"leaves {list(factors)}",
        "Name it in pairs, or keep both factors in one group.",
    )
    return partner


def _over(factor: jax.Array, damping: Scalar, x: jax.Array) -> jax.Array:
    r"""$(f f^T + \mathrm{damping} \, I)^{-1} x$."""
    gram = factor @ factor.mT
    n, eps = gram.shape[-1], jnp.finfo(gram.dtype).eps
    trace = jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    floor = jnp.asarray(damping, gram.dtype) + n * eps * trace
    floor = jnp.where(floor > 0, floor, 1)
    return lapack.solve_positive(
        gram + floor * roots.identity(gram), x.astype(gram.dtype)
    )
