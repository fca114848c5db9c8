"""A state in four bits a number: blocks of a moment, and a rank-1 scale of its squares."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradkit._core import check, shard
from gradkit._core.codec import blocks, dither, packing
from gradkit._core.codec.stored import Codec, Encoded, of_size, stored
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Transform

LINEAR = np.arange(1, 17) / 16  # values of unsigned codes: no zero
POSITIVE = [0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875]
DYNAMIC = np.array([*(-x for x in POSITIVE[::-1]), 0, *POSITIVE, 1])  # signed


class Kept(NamedTuple):
    """What is kept of the state of `inner`: trees like it, with MaskedNode for other arrays."""

    codes: Any  # two a byte, [..., ceil(n / 2)]
    blocks: Any  # the largest size of each block, [..., blocks]; negative for unsigned codes
    maxima: (
        Any  # the largest sizes along each axis, [sum of axes]; MaskedNode for a vector
    )


NONE = Kept(*[optax.MaskedNode()] * 3)


@factory
def store_by_int4(
    inner: AnyTransform, *, block: int = 128, only: str = ""
) -> Transform:
    r"""Keep the state of `inner` in 4 bits a number, with scales of its blocks, rows and columns.

    $$T_c \approx \frac{x}{a}, \qquad a, T = \begin{cases}
      \max_{\text{block}} |x|, \; D & \text{some } x < 0 \\
      \min(\max_{\text{row}} x, \max_{\text{column}} x), \; L & \text{no } x < 0 \end{cases}$$

    and `inner` sees $a T_c$. The signs in an array choose its table: EMAs of gradients have both,
    those of squares only one. $D$ is the dynamic exponent map, with values
    $0, \pm 0.0055, \pm 0.0325, \dots, \pm 0.8875, 1$. $L = 1/16, 2/16, \dots, 1$ is linear and
    has no zero, so nothing is divided by a square that was rounded to zero. Arrays of more axes
    take the least of the maxima along each of them, and vectors the scale of their block. $T_c$ is
    the value above or below, such that the mean over updates is kept, by a hash of the index that
    is turned by a golden angle at each update. Rounded to the nearest, an EMA stands still where
    an update changes it by less than half a code, and steps of Adam were up to 26 % longer.

    Args:
        inner: any transform, ours or optax's. Arrays of its state in float32 or wider, with an
            axis and at least `block` entries, are kept in 4 bits, two a byte along the last axis;
            smaller ones, scalars, counters, keys and averages of parameters stay as they are.
        block: entries of a block at most. The last axes of an array that have so many entries
            together are a row, and a row is cut into blocks of one length.
        only: regular expression; only parts of the state of `inner` whose path contains it are
            encoded, such as `mu` or `0/mu/decoder`. By default all.

    Needs: what `inner` needs.
    State: `0` bytes a leaf, `4` once, and a part of the state of `inner`: of its numbers that are
        kept so `0.5` bytes, in the place of 4, an odd last axis rounded up, and `4` bytes a block;
        and where there are more axes than one, `4` bytes for each index of each.
    Flops: at most `290*size` a leaf, with two numbers an entry as Adam's, and those of `inner`.
    Paper: Li, Chen and Zhu, "Memory Efficient Optimizers with 4-bit States", arXiv:2309.01507:
        B128/DE for the first moment, Rank-1/Linear for the second.
    Departure: the paper has a code for each of Adam's moments; here the signs in an array choose,
        so that scales of blocks and of axes are both kept. A block is a part of a row, so that
        other axes stay sharded; the authors' code cuts the whole array. That leaves arrays of at
        most 4096 entries in 32 bits, here those below `block` are. The paper rounds to the
        nearest.
    Limits: steps of Adam are up to 8 % longer, by noise. Negative numbers saturate at 0.8875 of the
        scale. An EMA of gradients of which none was negative has the table without zero. Not for
        states that are parameters, bases or factors of matrices: exclude them by `only`. Codes stay
        sharded along the last axis only where that divides half of it. Encoding has no derivative:
        gradients do not flow through the state from one update to the next. After 100 steps of
        `benchmarks/codecs.py` the parameters of its 43 recipes are within 43 % of the way of their
        float32 runs, mostly farther than other batches would move them, but `muon`'s and
        `normuon`'s 64 %, and those of `madgrad`, `psgd`, `schedule_free_adamw`, `shampoo` and
        `soap` farther still.

    >>> tx, p = gk.store_by_int4(gk.scale_by_adam()), jnp.zeros((64, 256))
    >>> sum(x.nbytes for x in jax.tree.leaves(tx.init(p))), 2 * p.nbytes
    (19976, 131072)
    """
    takes = of_size("store_by_int4", "block", block)

    def begin(x: jax.Array) -> Encoded:
        scales = np.empty(blocks.scales_of(x.shape, int(block)))
        return encode(x, NONE._replace(blocks=scales), 0)

    def encode(x: jax.Array, kept: Any, count: Any) -> Encoded:
        uniform = dither.fraction(dither.bits(count, x), x.dtype)
        x = blocks.bounded(x)
        largest = jnp.max(jnp.abs(blocks.in_blocks(x, kept.blocks.shape)), -1)
        plain = (jnp.min(x) >= 0) & (jnp.max(largest) > 0)
        maxima = _maxima(x)
        y = blocks.divided(x, _scales(x, largest, maxima, plain))
        table = jnp.where(plain, *(jnp.asarray(t, x.dtype) for t in (LINEAR, DYNAMIC)))
        code = jnp.zeros_like(y, jnp.uint8)
        for low, high in itertools.pairwise(table):
            code += (y - low > uniform * (high - low)).astype(jnp.uint8)
        largest = jnp.where(plain, -largest, largest)
        return optax.MaskedNode(), Kept(packing.pack(code), largest, maxima)

    def decode(place: object, kept: Any, dtype: object) -> jax.Array | None:
        del place, dtype
        if isinstance(kept.blocks, optax.MaskedNode):
            return None
        what = "codes in the state must have dtype uint8 or int8"
        remedy = "Restore the state without casting it."
        is_code = kept.codes.dtype in (jnp.uint8, jnp.int8)
        check.holds("store_by_int4", is_code, what, kept.codes.dtype, remedy)
        code = packing.unpack(kept.codes)
        plain = jnp.min(kept.blocks) < 0
        y = jnp.full_like(code, DYNAMIC[0], kept.blocks.dtype)
        for i, value in enumerate(DYNAMIC[1:], 1):
            y = jnp.where(code >= i, jnp.asarray(value, y.dtype), y)
        y = jnp.where(plain, (code.astype(y.dtype) + 1) / len(LINEAR), y)
        return y * _scales(y, jnp.abs(kept.blocks), kept.maxima, plain)

    codec = Codec(takes, begin, encode, decode, NONE, dithered=True)
    return stored("store_by_int4", inner, only, codec)


def _maxima(x: jax.Array) -> Any:
    """The largest sizes along each axis, of one axis after the other; nothing for a vector."""
    if x.ndim < 2:
        return optax.MaskedNode()
    others = [tuple(b for b in range(x.ndim) if b != a) for a in range(x.ndim)]
    return jnp.concatenate([shard.whole(jnp.max(jnp.abs(x), axes)) for axes in others])


def _scales(
    like: jax.Array, largest: jax.Array, maxima: Any, plain: jax.Array
) -> jax.Array:
    """The scale of each entry: of its block, or the least of its maxima where `plain`."""
    cells = blocks.in_blocks(like, largest.shape)
    scale = blocks.from_blocks(jnp.broadcast_to(largest[..., None], cells.shape), like)
    if like.ndim < 2:
        return scale
    each = jnp.split(maxima, np.cumsum(like.shape)[:-1])
    least = functools.reduce(jnp.minimum, jnp.ix_(*each))
    return jnp.where(plain, shard.alike(least, like), scale)
