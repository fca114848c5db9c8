"""A state in floating numbers of eight bits, with a scale for each block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import numbers
from gradkit._core.codec import blocks, floats
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

    Args:
        inner: any transform, ours or optax's. Arrays of its state in float32 or wider, with an
            axis and at least `block` entries, are kept in float8; smaller ones, scalars, counters
            and keys stay as they are.
        block: entries of a block at most. The last axes of an array that have so many entries
            together are a row, and a row is cut into blocks of one length.
        only: regular expression; only parts of the state of `inner` whose path contains it are
            encoded, such as `mu` or `0/mu/decoder`. By default all.

    Needs: what `inner` needs.
    State: `0` bytes a leaf besides a part of the state of `inner`: of its numbers that are kept
        so `1` byte, in the place of 4, and `4` bytes a block.
    Flops: at most `60*size` a leaf, with two numbers an entry as Adam's, and those of `inner`.
    Paper: Peng et al., "FP8-LM: Training FP8 Large Language Models", arXiv:2310.18313, Section
        2.2; in blocks, and for both moments, as in torchao.
    Departure: numbers that are not zero never become zero.
    Limits: numbers are rounded to the nearest, so an entry of an EMA that changes by less than a
        thirtieth follows only its block's scale: for a decay of 0.999 `store_by_int8` is finer.
        Not for states that are parameters, bases or factors of matrices: exclude them by `only`.
        Encoding has no derivative: gradients do not flow through the state from one update to the
        next. After 100 steps of `benchmarks/codecs.py` the 31 recipes measured there are within
        9 % of the way of their float32 runs, but `adamomentum` and `dion` 13 %, `adan` 21 %,
        `muon` and `normuon` 33 %.

    >>> tx, p = gk.store_by_fp8(gk.scale_by_adam()), jnp.zeros((4, 256))
    >>> sum(x.nbytes for x in jax.tree.leaves(tx.init(p))), 2 * p.nbytes
    (2084, 8192)
    """
    takes = of_size("store_by_fp8", "block", block)
    largest, least = (
        float(jnp.finfo(CODE).max),
        float(jnp.finfo(CODE).smallest_subnormal),
    )

    def begin(x: jax.Array) -> Encoded:
        return encode(x, np.empty(blocks.scales_of(x.shape, int(block))))

    def encode(x: jax.Array, scale: Any, key: object = None) -> Encoded:
        del key
        scale, ratio = blocks.in_units(blocks.in_blocks(x, scale.shape))
        y = jnp.sign(ratio) * jnp.maximum(largest * jnp.abs(ratio), least)
        code = blocks.from_blocks(floats.nearest(y, CODE), x)
        return code.astype(CODE), scale

    def decode(code: jax.Array, scale: Any, dtype: object) -> jax.Array | None:
        del dtype
        if not numbers.is_array(scale):
            return None
        y = blocks.in_blocks(code, scale.shape).astype(scale.dtype)
        return blocks.from_blocks(scale[..., None] * (y / largest), code)

    return stored("store_by_fp8", inner, only, Codec(takes, begin, encode, decode))
