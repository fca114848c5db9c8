"""A state in 24 bits a number: bfloat16, and eight bits of the rounding error."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import numbers
from gradkit._core.codec import floats
from gradkit._core.codec.stored import Codec, Encoded, of_size, stored
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Transform


@factory
def store_by_bfloat16_plus8(
    inner: AnyTransform, *, min_size: int = 256, only: str = ""
) -> Transform:
    r"""Keep the state of `inner` in bfloat16, and the rounding error in 8 bits.

    $$q = \mathrm{bfloat16}(s), \qquad c = \mathrm{int8}\left(127 \, \frac{s - q}{d(q) / 2}\right),
      \qquad s \leftarrow q + \frac{c}{127} \frac{d(q)}{2}$$

    where $d(q)$ is the spacing of bfloat16 around $q$: together these are numbers of bfloat16's
    range with 16 significant bits.

    Args:
        inner: any transform, ours or optax's. Arrays of its state in float32 or wider, with an
            axis and at least `min_size` entries, are kept in 24 bits; smaller ones, scalars,
            counters, keys and averages of parameters stay as they are.
        min_size: the fewest entries of an array that is encoded.
        only: regular expression; only parts of the state of `inner` whose path contains it are
            encoded, such as `mu` or `0/mu/decoder`. By default all.

    Needs: what `inner` needs.
    State: `0` bytes a leaf besides a part of the state of `inner`: of its numbers that are kept
        so `3` bytes, in the place of 4.
    Flops: at most `70*size` a leaf, with two numbers an entry as Adam's, and those of `inner`.
    Paper: Gonzalez Ortiz, Gupta, Rinard and Blalock, "FlashOptim: Optimizers for Memory
        Efficient Training", arXiv:2602.23349, its weight splitting.
    Departure: the paper splits parameters so, and keeps states in 8 bits.
    Limits: every update loses up to a 65,000th part of a number: an EMA needs a decay of at most
        0.9999. After 100 steps of `benchmarks/codecs.py` the parameters of its 43 recipes are
        within 0.3 % of the way of their float32 runs, but `muon`'s and `normuon`'s 4 % and `soap`'s
        16 %, as after any rounding error.

    >>> tx, p = gk.store_by_bfloat16_plus8(gk.scale_by_adam()), jnp.zeros((4, 256))
    >>> sum(x.nbytes for x in jax.tree.leaves(tx.init(p))), 2 * p.nbytes
    (6148, 8192)
    """
    takes = of_size("store_by_bfloat16_plus8", "min_size", min_size)

    def encode(x: jax.Array, scale: object = None, key: object = None) -> Encoded:
        del scale, key
        q = floats.nearest(x, jnp.bfloat16)
        return q.astype(jnp.bfloat16), floats.residual_code(x, q, jnp.bfloat16)

    def decode(code: jax.Array, scale: Any, dtype: Any) -> jax.Array | None:
        if not numbers.is_array(scale):
            return None
        q = code.astype(dtype)
        return q + floats.residual(scale, q, jnp.bfloat16)

    codec = Codec(takes, encode, encode, decode)
    return stored("store_by_bfloat16_plus8", inner, only, codec)
