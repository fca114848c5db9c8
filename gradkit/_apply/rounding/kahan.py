"""Kahan summation: the rounding error of each update is added to the next one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, tree
from gradkit._core.codec import floats
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Transform, Updates, rounding


class KahanState(NamedTuple):
    """State of `round_by_kahan`: the rounding errors of past updates."""

    compensation: Params  # bfloat16, for parameters of less than float32


@factory
def round_by_kahan() -> Transform:
    r"""Round each updated parameter to the nearest number, and keep the rounding error in bfloat16.

    $$y = \Delta + c, \qquad u = \mathrm{nearest}(p + y) - p, \qquad
      c \leftarrow \mathrm{bfloat16}(y - u)$$

    where $\Delta$ is the update that arrives, and `nearest` is in the parameter's dtype. The
    parameter and the error have eight bits each, so updates count down to about 1/130,000 of a
    parameter, not 1/250.

    Needs: params. Stands last in a chain, `gradkit.chain` or `optax.chain`. The update is in
        float32, so that `optax.apply_updates` gives exactly that number.
    State: `2*size` bytes a leaf of bfloat16 or float16, `0` of others, `0` once.
    Flops: at most `36*size` a leaf.
    Paper: Zamirai, Zhang, Aberger and De Sa, "Revisiting BFloat16 Training", arXiv:2010.06192,
        its Kahan summation.
    Departure: sums are in float32, and only `c` is rounded. `c` is the rounding error; the paper
        keeps its negative. `c` is in bfloat16 for float16 parameters too.
    Limits: for bfloat16 and float16; leaves of float32 and wider pass as they are. Add updates by
        `optax.apply_updates`: `p + u`, as in `equinox.apply_updates`, makes parameters float32,
        which the next update refuses. Overflow gives the largest number of the dtype, and a
        non-finite entry counts as zero. Under JAX's strict dtype promotion, cast parameters to
        float32 before you add the update. Put `optax.apply_if_finite` before it, inside the chain:
        it needs updates in the dtype of gradients.

    >>> tx, p, u = gk.round_by_kahan(), jnp.ones((), jnp.bfloat16), jnp.float32(1e-3)
    >>> state, add = tx.init(p), jax.jit(tx.update)
    >>> for _ in range(100): d, state = add(u, state, p); p = (p.astype(d.dtype) + d).astype(p.dtype)
    >>> print(p)  # nearest to 1.1; without the error it would stay at 1
    1.10156
    """

    def init(params: Params) -> KahanState:
        def zeros(p: jax.Array) -> jax.Array | optax.MaskedNode:
            narrow = numbers.is_narrow(p.dtype)
            return jnp.zeros_like(p, jnp.bfloat16) if narrow else optax.MaskedNode()

        return KahanState(jax.tree.map(zeros, params))

    def update(
        updates: Updates, state: KahanState, params: Params, **extra: Extra
    ) -> tuple[Updates, KahanState]:
        del extra
        check.still_narrow("round_by_kahan", params, state.compensation)

        def round_leaf(
            u: jax.Array, p: jax.Array, c: jax.Array
        ) -> tuple[jax.Array, ...]:
            if not numbers.is_narrow(p.dtype):
                return u, c
            start, y = p.astype(u.dtype), u + c.astype(u.dtype)
            update = floats.nearest(start + y, p.dtype) - start
            return update, floats.nearest(y - update, c.dtype).astype(c.dtype)

        us = numbers.read(updates)
        pairs = jax.tree.map(round_leaf, us, params, state.compensation)
        u, compensation = tree.unzip(us, pairs, 2)
        return u, KahanState(compensation)

    return rounding("round_by_kahan", init, update)
