"""A wrapper that keeps arrays of a transform's state quantized between updates.

An average of parameters stays as it is: `eval_params` reads it, and knows of no codes.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, paths, random, tree
from gradkit._core.averages import AverageState
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates

Encoded = tuple[Any, Any]  # codes in the shape of an array, and their scales


class StoredState(NamedTuple):
    """The state of `inner` with some arrays encoded, and their scales."""

    inner: optax.OptState  # codes in place of encoded arrays, of the same shapes
    scales: Any  # a tree like `inner`, or several: the scales of codes, else MaskedNode
    key: Any  # data of the next key, uint32 [2], for stochastic codes
    count: Any  # updates so far, int32 [], for dithered codes


class Codec(NamedTuple):
    """How arrays are encoded. `decode` gets the dtype that updates are computed in.

    Codes of another shape than the array are kept with the scales, as they cannot take on the
    sharding metadata of a parameter; in their place in `inner` is a MaskedNode.
    """

    takes: Callable[[jax.Array], bool]  # whether to encode an array of `inner`
    begin: Callable[[jax.Array], Encoded]  # encodes an array of the first state
    encode: Callable[[jax.Array, Any, Any], Encoded]  # an array, scale, key or count
    decode: Callable[[jax.Array, Any, Any], jax.Array | None]  # None if not a code
    none: Any = optax.MaskedNode()  # scales of what is not encoded; a tuple if several
    dithered: bool = False  # whether `encode` gets the count of updates, not a key

    @property
    def is_leaf(self) -> Callable[[Any], bool] | None:
        """Whether a MaskedNode may stand for an encoded array in the state of `inner`."""
        return None if tree.is_masked(self.none) else tree.is_masked


def of_size(method: str, name: str, least: int) -> Callable[[jax.Array], bool]:
    """A predicate: the array is of at least float32, and of at least `least` entries."""
    if not isinstance(least, jax.Array):  # as optax.inject_hyperparams passes it
        check.count(method, **{name: least})

    def takes(x: jax.Array) -> bool:
        check.concrete(method, **{name: least})
        return not numbers.is_narrow(x.dtype) and math.prod(x.shape) >= least

    return takes


def stored(
    method: str,
    inner: AnyTransform,
    only: str,
    codec: Codec,
    key: random.Key | None = None,
) -> Transform:
    """`inner`, with the arrays of its state whose paths match `only` encoded by `codec`.

    `key`, if given, is split at each update, for stochastic codes.
    """
    check.expression(method, "only", only)
    tx = optax.with_extra_args_support(inner)

    def init(params: Params) -> StoredState:
        state = tx.init(params)
        names, encodable = _names(state, codec), _encodable(state, codec)
        may_be = [name for name, one in zip(names, encodable) if one]
        any_found = not only or any(re.search(only, name) for name in may_be)
        check.holds(
            method,
            not jax.tree.leaves(params) or any_found,
            f"only = {only!r} must be found in the path of a part of the state",
            may_be,
            "Name one of these, or leave it out to store all.",
        )

        def leaf(name: str, encodable: bool, x: Any) -> Encoded:
            real = encodable and numbers.is_real(x)
            chosen = real and x.ndim and codec.takes(x)
            if not (chosen and re.search(only, name)):
                return x, codec.none
            is_near = not numbers.is_in_host_memory(x)
            what = f"leaf {name} of the state of inner must be on the device"
            remedy = f"Put store_by_offload around {method}."
            check.holds(method, is_near, what, "one in host memory", remedy)
            abstract = isinstance(x, jax.ShapeDtypeStruct)
            # opaque: at run time, even if XLA knows that these are zeros
            begin = lambda x: codec.begin(numbers.opaque(x))
            return jax.eval_shape(begin, x) if abstract else begin(x)

        pairs = [*map(leaf, names, encodable, _flatten(state, codec)[0])]
        none = optax.MaskedNode()
        count = jnp.zeros([], jnp.int32) if codec.dithered else none
        if key is None:
            return _state(state, pairs, none, count, codec)
        data = jax.random.key_data(random.typed(key))
        return _state(state, pairs, jnp.array(data, copy=True), count, codec)

    def update(
        updates: Updates, state: StoredState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, StoredState]:
        codes, structure = _flatten(state.inner, codec)
        names, encodable = _names(state.inner, codec), _encodable(state.inner, codec)
        scales = _scales(state, codec)
        widest = _dtype(updates)
        decoded = [
            codec.decode(code, scale, widest) if one and re.search(only, name) else None
            for name, one, code, scale in zip(names, encodable, codes, scales)
        ]
        arrays = [code if x is None else x for code, x in zip(codes, decoded)]
        u, new = tx.update(updates, structure.unflatten(arrays), params, **extra)
        count = numbers.increment(state.count) if codec.dithered else state.count
        draws, next_key = [count] * len(codes), state.key
        if key is not None:
            first, *draws = random.split(state.key, len(codes) + 1, key)
            next_key = jax.random.key_data(first)
        pairs = [
            (x, codec.none) if old is None else codec.encode(x, scale, draw)
            for x, old, scale, draw in zip(
                _flatten(new, codec)[0], decoded, scales, draws, strict=True
            )
        ]
        for name, *old, after in zip(names, codes, scales, pairs):
            _check_dtypes(method, name, old, after)
        return u, _state(new, pairs, next_key, count, codec)

    return tx._replace(init=init, update=update)


def _state(
    like: Any, pairs: list[Encoded], key: Any, count: Any, codec: Codec
) -> StoredState:
    """The state, codes and scales in trees like `like`; scales, of other shapes, are unboxed."""
    codes = _flatten(like, codec)[1].unflatten([code for code, _ in pairs])
    plain = _flatten(paths.unboxed(like), codec)[1]
    scales = [scale for _, scale in pairs]
    if tree.is_masked(codec.none):
        return StoredState(codes, plain.unflatten(scales), key, count)
    columns = zip(*scales) if scales else ((),) * len(codec.none)
    trees = (plain.unflatten(column) for column in columns)
    return StoredState(codes, type(codec.none)(*trees), key, count)


def _scales(state: StoredState, codec: Codec) -> list[Any]:
    """The scales of each leaf of the state of `inner`."""
    plain = _flatten(paths.unboxed(state.inner), codec)[1]
    if tree.is_masked(codec.none):
        return plain.flatten_up_to(state.scales)
    columns = map(plain.flatten_up_to, state.scales)
    return [type(codec.none)(*row) for row in zip(*columns)]


def _check_dtypes(method: str, name: str, old: Any, new: Any) -> None:
    """Refuse codes and scales of other dtypes than an update makes: they were cast."""
    for x, made in zip(jax.tree.leaves(old), jax.tree.leaves(tuple(new)), strict=True):
        what = f"leaf {name} of the state must have dtype {made.dtype}"
        remedy = "Restore the state without casting it."
        check.holds(method, x.dtype == made.dtype, what, x.dtype, remedy)


def _names(t: Any, codec: Codec) -> list[str]:
    return paths.leaf_paths(t, codec.is_leaf)


def _encodable(t: Any, codec: Codec) -> list[bool]:
    """Of each leaf, whether it may be encoded: that of an average may not."""
    is_average = lambda x: isinstance(x, AverageState)
    is_leaf = codec.is_leaf or (lambda x: False)
    found = jax.tree.leaves(t, is_leaf=lambda x: is_average(x) or is_leaf(x))
    return [
        not is_average(x)
        for x in found
        for _ in (_flatten(x, codec)[0] if is_average(x) else [x])
    ]


def _flatten(t: Any, codec: Codec) -> tuple[list[Any], Any]:
    return jax.tree.flatten(t, is_leaf=codec.is_leaf)


def _dtype(updates: Updates) -> Any:
    """The widest dtype that updates are computed in."""
    dtypes = [
        numbers.wide_dtype(x) for x in jax.tree.leaves(updates) if numbers.is_real(x)
    ]
    return max(dtypes, key=lambda d: d.itemsize, default=jnp.dtype(jnp.float32))
