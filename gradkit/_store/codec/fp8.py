"""A state in floating numbers of eight bits, with a scale for each block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import numbers
from gradkit._core.codec import blocks, dither, floats
from gradkit._core.codec.stored import Codec, Encoded, of_size, stored
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Transform

CODE = jnp.float8_e4m3fn


@factory
def store_by_fp8(inner: AnyTransform, *, block: int = 256, only: str = "") -> Transform:
    r"""Keep the state of `inner` in float8, E4M3, and a scale for each block of numbers.

    $$a = \max_{\text{block}} |x| / 448, \qquad c = \mathrm{float8}(x / a)$$

    and `inner` sees $a c$. Four significant bits, of numbers down to a 200,000th of the largest
    of a block, which comes back as it was; so does zero, and what is above zero stays above it.
    `float8` rounds up or down such that the mean over updates is kept, by a hash of the index
    that is turned by a golden angle at each update: rounded to the nearest, an EMA stands still
    where an update changes it by less than half a code, and steps of Adam were 13 % longer.

    Args:
        inner: any transform, ours or optax's. Arrays of its state in float32 or wider, with an
            axis and at least `block` entries, are kept in float8; smaller ones, scalars, counters,
            keys and averages of parameters stay as they are.
        block: entries of a block at most. The last axes of an array that have so many entries
            together are a row, and a row is cut into blocks of one length.
        only: regular expression; only parts of the state of `inner` whose path contains it are
            encoded, such as `mu` or `0/mu/decoder`. By default all.

    Needs: what `inner` needs.
    State: `0` bytes a leaf, `4` once, and a part of the state of `inner`: of its numbers that are
        kept so `1` byte, in the place of 4, and `4` bytes a block.
    Flops: at most `110*size` a leaf, with two numbers an entry as Adam's, and those of `inner`.
    Paper: Peng et al., "FP8-LM: Training FP8 Large Language Models", arXiv:2310.18313, Section
        2.2; in blocks, and for both moments, as in torchao.
    Departure: numbers that are not zero never become zero, and the mean is kept; theirs is
        rounded to the nearest.
    Limits: coarser than `store_by_int8`, by half for squares: steps of Adam are 1 % longer. Not for
        states that are parameters, bases or factors of matrices: exclude them by `only`. Encoding
        has no derivative: gradients do not flow through the state from one update to the next.
        After 100 steps of `benchmarks/codecs.py` the parameters of its 43 recipes are within 20 %
        of the way of their float32 runs, but `muon`'s and `normuon`'s 27 %, `shampoo`'s and
        `soap`'s farther.

    >>> tx, p = gk.store_by_fp8(gk.scale_by_adam()), jnp.zeros((4, 256))
    >>> sum(x.nbytes for x in jax.tree.leaves(tx.init(p))), 2 * p.nbytes
    (2088, 8192)
    """
    takes = of_size("store_by_fp8", "block", block)
    largest, least = (
        float(jnp.finfo(CODE).max),
        float(jnp.finfo(CODE).smallest_subnormal),
    )

    def begin(x: jax.Array) -> Encoded:
        return encode(x, np.empty(blocks.scales_of(x.shape, int(block))), 0)

    def encode(x: jax.Array, scale: Any, count: Any) -> Encoded:
        uniform = dither.fraction(dither.bits(count, x), x.dtype)
        uniform = blocks.in_blocks(uniform, scale.shape)
        scale, ratio = blocks.in_units(blocks.in_blocks(x, scale.shape))
        y = jnp.sign(ratio) * jnp.maximum(largest * jnp.abs(ratio), least)
        code = blocks.from_blocks(floats.dithered(uniform, y, CODE), x)
        return code.astype(CODE), scale

    def decode(code: jax.Array, scale: Any, dtype: object) -> jax.Array | None:
        del dtype
        if not numbers.is_array(scale):
            return None
        y = blocks.in_blocks(code, scale.shape).astype(scale.dtype)
        return blocks.from_blocks(scale[..., None] * (y / largest), code)

    codec = Codec(takes, begin, encode, decode, dithered=True)
    return stored("store_by_fp8", inner, only, codec)
