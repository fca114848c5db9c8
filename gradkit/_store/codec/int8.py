"""A state in eight bits a number: blocks with a scale, and codes dense where numbers are many."""

import functools
from typing import Any

import jax
import numpy as np

from gradkit._core import numbers
from gradkit._core.codec import blocks, companding, dither
from gradkit._core.codec.stored import Codec, Encoded, of_size, stored
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Transform


@factory
def store_by_int8(
    inner: AnyTransform, *, block: int = 256, only: str = ""
) -> Transform:
    r"""Keep the state of `inner` in 8 bits a number, and a scale for each block of them.

    $$a = \max_{\text{block}} |x|, \qquad c = \begin{cases}
      \mathrm{sign}(x) \, r(127 \sqrt{|x| / a}) & \text{some } x < 0 \\
      \mathrm{float}(x / a) & \text{no } x < 0 \end{cases}$$

    and `inner` sees what `c` and `a` stand for. The signs in a block choose its code: EMAs of
    gradients have both signs, those of squares only one, and are divided by. `float` has no sign, 4
    bits of exponent and 4 of mantissa: steps of a sixteenth at most, down to a 60,000th of `a`.
    The sign of the kept scale, in float32, tells which code it was. Zero and the largest number
    of a block are exact. In a block without negative numbers, positive ones stay positive, so
    that nothing is divided by a square that was rounded to zero.

    $r$ and `float` round up or down such that the mean over updates is kept: rounded to the
    nearest, an EMA stands still where an update changes it by less than half a code, and steps
    of Adam were 5 to 10 % longer. What decides is a hash of the index, turned by a golden angle
    at each update, not a random number.

    Args:
        inner: any transform, ours or optax's. Arrays of its state in float32 or wider, with an
            axis and at least `block` entries, are kept in 8 bits; smaller ones, scalars, counters,
            keys and averages of parameters stay as they are.
        block: entries of a block at most. The last axes of an array that have so many entries
            together are a row, and a row is cut into blocks of one length.
        only: regular expression; only parts of the state of `inner` whose path contains it are
            encoded, such as `mu` or `0/mu/decoder`. By default all.

    Needs: what `inner` needs.
    State: `0` bytes a leaf, `4` once, and a part of the state of `inner`: of its numbers that are
        kept so `1` byte, in the place of 4, and `4` bytes a block.
    Flops: at most `140*size` a leaf, with two numbers an entry as Adam's, and those of `inner`.
    Paper: Dettmers, Lewis, Shleifer and Zettlemoyer, "8-bit Optimizers via Block-wise
        Quantization", arXiv:2110.02861; the codes from Gonzalez Ortiz, Gupta, Rinard and
        Blalock, "FlashOptim: Optimizers for Memory Efficient Training", arXiv:2602.23349,
        Algorithm 3.
    Departure: FlashOptim has a code for each of Adam's moments; here the signs in a block choose.
        Blocks of both signs use FlashOptim's code of square roots: its code for both signs rounds all
        below a 500th of the largest to zero, too many in blocks of 256. FlashOptim's groups are
        of 32, with scales in float16, where small squares underflow. Squares in blocks of 256
        are too different for roots of 8 bits. FlashOptim rounds to the nearest.
    Limits: an EMA of decay 0.999 has a noise of about a twentieth. A square below a 60,000th of the
        largest of its block is kept as that, so that its step is shorter. Not for states that are
        parameters, bases or factors of matrices, whose small parts matter: exclude them by `only`.
        Encoding has no derivative: gradients do not flow through the state from one update to the
        next. After 100 steps of `benchmarks/codecs.py` the parameters of its 43 recipes are within
        17 % of the way of their float32 runs, losses within 0.01, but `shampoo`'s and `soap`'s.

    >>> tx, p = gk.store_by_int8(gk.scale_by_adam()), jnp.zeros((4, 256))
    >>> sum(x.nbytes for x in jax.tree.leaves(tx.init(p))), 2 * p.nbytes
    (2088, 8192)
    """
    takes = of_size("store_by_int8", "block", block)

    def begin(x: jax.Array) -> Encoded:
        return encode(x, np.empty(blocks.scales_of(x.shape, int(block))), 0)

    def encode(x: jax.Array, scale: Any, count: Any) -> Encoded:
        cut = functools.partial(blocks.in_blocks, scales=scale.shape)
        code, scale = companding.encode(cut(x), cut(dither.bits(count, x)))
        return blocks.from_blocks(code, x), scale

    def decode(code: jax.Array, scale: jax.Array, dtype: object) -> jax.Array | None:
        del dtype
        if not numbers.is_array(scale):
            return None
        x = companding.decode(blocks.in_blocks(code, scale.shape), scale)
        return blocks.from_blocks(x, code)

    codec = Codec(takes, begin, encode, decode, dithered=True)
    return stored("store_by_int8", inner, only, codec)
