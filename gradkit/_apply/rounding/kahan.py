"""Kahan summation: the rounding error of each update is added to the next one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import numbers, tree
from gradkit._core.codec import floats
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Transform, Updates, rounding


class KahanState(NamedTuple):
    """State of `round_by_kahan`: the rounding errors of past updates."""

    compensation: Params  # bfloat16, like the parameters of less than float32


@factory
def round_by_kahan() -> Transform:
    r"""Land on the number nearest to each updated parameter, and keep the rounding error in bfloat16.

    $$y = \Delta + c, \qquad u = \mathrm{nearest}(p + y) - p, \qquad
      c \leftarrow \mathrm{bfloat16}(y - u)$$

    where `nearest` is in the parameter's dtype. With eight bits in the parameter and eight in the
    error, updates count down to about 1/130,000 of a parameter, not 1/250.

    Needs: params. Stands last in a chain, `gradkit.chain` or `optax.chain`. The update is in
        float32, so that `optax.apply_updates` lands on that number.
    State: `2*size` bytes a leaf of bfloat16 or float16, `0` of others, `0` once.
    Flops: at most `36*size` a leaf.
    Paper: Zamirai, Zhang, Aberger and De Sa, "Revisiting BFloat16 Training", arXiv:2010.06192,
        its Kahan summation.
    Departure: sums are in float32, and only `c` is rounded. `c` is the rounding error; the paper
        keeps its negative. `c` is in bfloat16 for float16 parameters too.
    Limits: for bfloat16 and float16; leaves of float32 and wider pass as they are. Overflow gives
        the largest number of the dtype, and a non-finite entry counts as zero. Under strict
        promotion of dtypes add the update to parameters cast to float32. Put
        `optax.apply_if_finite` before it, inside the chain: it needs updates in the dtype of
        gradients.

    >>> tx, p, u = gk.round_by_kahan(), jnp.ones((), jnp.bfloat16), jnp.float32(1e-3)
    >>> state, add = tx.init(p), jax.jit(tx.update)
    >>> for _ in range(100): d, state = add(u, state, p); p = (p.astype(d.dtype) + d).astype(p.dtype)
    >>> print(p)  # nearest to 1.1; rounded alone it would not move
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

        def land(u: jax.Array, p: jax.Array, c: jax.Array) -> tuple[jax.Array, ...]:
            if not numbers.is_narrow(p.dtype):
                return u, c
            start, y = p.astype(u.dtype), u + c.astype(u.dtype)
            step = floats.nearest(start + y, p.dtype) - start
            return step, floats.nearest(y - step, c.dtype).astype(c.dtype)

        us = numbers.read(updates)
        pairs = jax.tree.map(land, us, params, state.compensation)
        u, compensation = tree.unzip(us, pairs, 2)
        return u, KahanState(compensation)

    return rounding("round_by_kahan", init, update)
