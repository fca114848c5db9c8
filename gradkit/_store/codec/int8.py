"""A state in eight bits a number: blocks with a scale, and codes dense where numbers are many."""

from typing import Any

import jax
import numpy as np

from gradkit._core import numbers
from gradkit._core.codec import blocks, companding
from gradkit._core.codec.stored import Codec, Encoded, of_size, stored
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Transform


@factory
def store_by_int8(
    inner: AnyTransform, *, block: int = 256, only: str = ""
) -> Transform:
    r"""Keep the state of `inner` in 8 bits a number, and a scale for each block of them.

    $$a = \max_{\text{block}} |x|, \qquad y = \sqrt{|x| / a}, \qquad c = \begin{cases}
      \mathrm{sign}(x) \, \mathrm{round}(127 y) & \text{some } x < 0 \\
      \max(\mathrm{round}(255 y), [y > 0]) & \text{no } x < 0 \end{cases}$$

    and `inner` sees what `c` and `a` stand for. Which of the two codes a block has is what its
    numbers say: an average of gradients is of both signs, one of their squares is of none. The sign
    of the scale that is kept, in float32, says which it was. Zero and the largest number of a
    block come back as they were, and larger numbers never come back as smaller ones. What is
    above zero in a block without negative numbers stays above zero, so that nothing is divided
    by a square that was rounded away.

    Args:
        inner: any transform, ours or optax's. Kept in 8 bits are the arrays of its state in
            float32 or wider that have an axis and at least `block` entries; smaller ones,
            scalars, counters and keys stay as they are.
        block: entries of a block at most. The last axes of an array that have so many entries
            together are a row, and a row is cut into blocks of one length.
        only: regular expression; what is kept in 8 bits are the parts of the state of `inner`
            whose path contains it, such as `mu` or `0/mu/decoder`. By default all.

    Needs: what `inner` needs.
    State: `0` bytes a leaf besides a part of the state of `inner`: of its numbers that are kept
        so `1` byte, in the place of 4, and `4` bytes a block.
    Flops: at most `70*size` a leaf, with two numbers an entry as Adam's, and those of `inner`.
    Paper: Dettmers, Lewis, Shleifer and Zettlemoyer, "8-bit Optimizers via Block-wise
        Quantization", arXiv:2110.02861; the codes from Gonzalez Ortiz, Gupta, Rinard and
        Blalock, "FlashOptim: Optimizers for Memory Efficient Training", arXiv:2602.23349,
        Algorithm 3.
    Departure: FlashOptim has a code for each of Adam's averages; here blocks say by themselves.
        Numbers of both signs have the code that it has for squares, since with its own, all
        below a 500th of the largest are zero, which is too many in blocks of 256. Its groups
        are of 32, with scales in float16, in which small squares vanish.
    Limits: what is nearest is kept, so that an average that moves by less than a code, about a
        hundredth, moves with its block alone. Not for states that are parameters, bases or
        factors of matrices, whose small parts matter: leave them out by `only`. What is kept
        has no derivative: that of several updates is the sum of theirs.

    >>> tx, p = gk.store_by_int8(gk.scale_by_adam()), jnp.zeros((4, 256))
    >>> sum(x.nbytes for x in jax.tree.leaves(tx.init(p))), 2 * p.nbytes
    (2084, 8192)
    """
    takes = of_size("store_by_int8", "block", block)

    def begin(x: jax.Array) -> Encoded:
        return encode(x, np.empty(blocks.scales_of(x.shape, int(block))))

    def encode(x: jax.Array, scale: Any, key: object = None) -> Encoded:
        del key
        code, scale = companding.encode(blocks.in_blocks(x, scale.shape))
        return blocks.from_blocks(code, x), scale

    def decode(code: jax.Array, scale: jax.Array, dtype: object) -> jax.Array | None:
        del dtype
        if not numbers.is_array(scale):
            return None
        x = companding.decode(blocks.in_blocks(code, scale.shape), scale)
        return blocks.from_blocks(x, code)

    return stored("store_by_int8", inner, only, Codec(takes, begin, encode, decode))
