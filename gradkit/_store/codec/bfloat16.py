"""A state in bfloat16, rounded at random so that EMAs go on moving."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, random
from gradkit._core.codec import floats
from gradkit._core.codec.stored import Codec, Encoded, of_size, stored
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Transform


@factory
def store_by_bfloat16(
    inner: AnyTransform, *, min_size: int = 256, only: str = "", key: random.Key = 0
) -> Transform:
    r"""Keep the state of `inner` in bfloat16, rounded up or down such that its mean is kept.

    $$s \leftarrow \begin{cases}
      \lceil s \rceil & \text{with probability } (s - \lfloor s \rfloor) /
      (\lceil s \rceil - \lfloor s \rfloor) \\ \lfloor s \rfloor & \text{else} \end{cases}$$

    of the two numbers of bfloat16 around each number. Rounded to the nearest, an EMA of decay
    0.999 would never fall: it loses a thousandth in one update, which is less than half the
    spacing of bfloat16.

    Args:
        inner: any transform, ours or optax's. Arrays of its state in float32 or wider, with an
            axis and at least `min_size` entries, are kept in bfloat16; smaller ones, scalars,
            counters, keys and averages of parameters stay as they are.
        min_size: the fewest entries of an array that is encoded.
        only: regular expression; only parts of the state of `inner` whose path contains it are
            encoded, such as `mu` or `0/mu/decoder`. By default all.
        key: see the glossary.

    Needs: what `inner` needs.
    State: `0` bytes a leaf, `8` once, and a part of the state of `inner`: of its numbers that
        are kept so `2` bytes, in the place of 4.
    Flops: at most `130*size` a leaf, with two numbers an entry as Adam's, and those of `inner`.
    Paper: Gupta, Agrawal, Gopalakrishnan and Narayanan, "Deep Learning with Limited Numerical
        Precision", arXiv:1502.02551, Section 3, for stochastic rounding.
    Departure: the paper rounds to fixed points.
    Limits: an EMA of decay 0.999 that is rounded at every update has a noise of about a twentieth.
        Arrays that `inner` itself keeps in bfloat16 are rounded likewise. Not for states that are
        parameters: exclude them by `only`. After 100 steps of `benchmarks/codecs.py` the parameters
        of its 43 recipes are within 3.3 % of the way of their float32 runs, but `muon`'s and
        `normuon`'s 8 %, and `soap`'s far, at the same loss.

    >>> tx, p = gk.store_by_bfloat16(gk.scale_by_adam()), jnp.zeros((4, 256))
    >>> sum(x.nbytes for x in jax.tree.leaves(tx.init(p))), 2 * p.nbytes
    (4108, 8192)
    """
    check.nonnegative("store_by_bfloat16", key=key)
    takes = of_size("store_by_bfloat16", "min_size", min_size)

    def begin(x: jax.Array) -> Encoded:
        return floats.nearest(x, jnp.bfloat16).astype(jnp.bfloat16), optax.MaskedNode()

    def encode(x: jax.Array, scale: object, key: Any) -> Encoded:
        if numbers.is_narrow(x.dtype):
            return x, scale
        return floats.stochastic(key, x, jnp.bfloat16).astype(jnp.bfloat16), scale

    def decode(code: jax.Array, scale: object, dtype: Any) -> jax.Array | None:
        del scale
        return code.astype(dtype) if code.dtype == jnp.bfloat16 else None

    codec = Codec(takes, begin, encode, decode)
    return stored("store_by_bfloat16", inner, only, codec, key)
