"""Error correction: parameters of 16 bits with 8 more, which only the optimizer reads."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, tree
from gradkit._core.codec import floats
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Transform, Updates, rounding


class ErrorCorrectionState(NamedTuple):
    """State of `round_by_error_correction`: the rounding error of each parameter."""

    code: Params  # int8, like the parameters of less than float32


@factory
def round_by_error_correction() -> Transform:
    r"""Land on the number nearest to each updated parameter, and keep the rounding error in 8 bits.

    $$x = p + \frac{c}{127} \frac{s(p)}{2} + \Delta, \qquad q = \mathrm{nearest}(x), \qquad
      u = q - p, \qquad c \leftarrow \mathrm{int8}\left(127 \, \frac{x - q}{s(q) / 2}\right)$$

    where `nearest` is in the parameter's dtype, and $s(q)$ is how far apart its numbers are around
    $q$. Rounding leaves at most half of that, so that no bit of `c` is idle: 24 bits are a number
    of bfloat16's range with 16 significant bits.

    Needs: params. Stands last in a chain, `gradkit.chain` or `optax.chain`. The update is in
        float32, so that `optax.apply_updates` lands on `q`.
    State: `1*size` bytes a leaf of bfloat16 or float16, `0` of others, `0` once.
    Flops: at most `42*size` a leaf.
    Paper: Gonzalez Ortiz, Gupta, Rinard and Blalock, "FlashOptim: Optimizers for Memory
        Efficient Training", arXiv:2602.23349, its weight splitting.
    Departure: takes any update; the paper's optimizers split weights by themselves.
    Limits: for bfloat16 and float16; leaves of float32 and wider pass as they are. Every update
        loses less than 1/508 of `s`: for a bfloat16 weight, up to its 65,000th part. Parameters
        that are set from outside keep their `c`, which is at most half of `s`. Add updates by
        `optax.apply_updates`: `p + u`, as in `equinox.apply_updates`, makes parameters float32,
        which the next update refuses. Overflow gives the largest number of the dtype, and a
        non-finite entry counts as zero. Under strict promotion of dtypes add the update to
        parameters cast to float32. Put `optax.apply_if_finite` before it, inside the chain: it
        needs updates in the dtype of gradients.

    >>> tx, p, u = gk.round_by_error_correction(), jnp.ones((), jnp.bfloat16), jnp.float32(1e-3)
    >>> state, add = tx.init(p), jax.jit(tx.update)
    >>> for _ in range(100): d, state = add(u, state, p); p = (p.astype(d.dtype) + d).astype(p.dtype)
    >>> print(p)  # nearest to 1.1; rounded alone it would not move
    1.10156
    """

    def init(params: Params) -> ErrorCorrectionState:
        def zeros(p: jax.Array) -> jax.Array | optax.MaskedNode:
            narrow = numbers.is_narrow(p.dtype)
            return jnp.zeros_like(p, jnp.int8) if narrow else optax.MaskedNode()

        return ErrorCorrectionState(jax.tree.map(zeros, params))

    def update(
        updates: Updates, state: ErrorCorrectionState, params: Params, **extra: Extra
    ) -> tuple[Updates, ErrorCorrectionState]:
        del extra
        check.still_narrow("round_by_error_correction", params, state.code)

        def land(u: jax.Array, p: jax.Array, c: jax.Array) -> tuple[jax.Array, ...]:
            if not numbers.is_narrow(p.dtype):
                return u, c
            start = p.astype(u.dtype)
            x = start + floats.residual(c, start, p.dtype) + u
            q = floats.nearest(x, p.dtype)
            return q - start, floats.residual_code(x, q, p.dtype)

        us = numbers.read(updates)
        u, code = tree.unzip(us, jax.tree.map(land, us, params, state.code), 2)
        return u, ErrorCorrectionState(code)

    return rounding("round_by_error_correction", init, update)
