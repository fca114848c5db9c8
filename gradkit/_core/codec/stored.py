"""Any transform, some arrays of whose state are kept in few bits between two updates."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, paths, random
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates

Encoded = tuple[jax.Array, Any]  # of the shape of an array, and what else is kept of it


class StoredState(NamedTuple):
    """What `inner` remembers, as it is kept."""

    inner: optax.OptState  # with codes in the place of arrays, of the same shapes
    scales: Any  # a tree like `inner`: what its codes need besides, if any
    key: Any  # data of the key to draw from next, uint32 [2], where codes are drawn


class Codec(NamedTuple):
    """How an array is kept. `decode` is given the dtype that updates are computed in."""

    takes: Callable[[jax.Array], bool]  # whether an array of `inner` is kept so
    begin: Callable[[jax.Array], Encoded]  # an array of the first state
    encode: Callable[[jax.Array, Any, Any], Encoded]  # an array, its scale, and a key
    decode: Callable[[jax.Array, Any, Any], jax.Array | None]  # None of what is no code


def of_size(method: str, name: str, least: int) -> Callable[[jax.Array], bool]:
    """Whether an array is of float32 or wider, and has at least so many entries."""
    if not isinstance(least, jax.Array):  # as which optax.inject_hyperparams has it
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
    """`inner`, the parts of whose state that `only` is found in are kept by this codec.

    It draws codes, where there is a key.
    """
    check.expression(method, "only", only)
    tx = optax.with_extra_args_support(inner)

    def init(params: Params) -> StoredState:
        state = tx.init(params)
        names = paths.leaf_paths(state)
        check.holds(
            method,
            not jax.tree.leaves(params) or any(re.search(only, name) for name in names),
            f"only = {only!r} must be found in the path of a part of the state",
            names,
            "Name one of these, or leave it out to store all.",
        )

        def leaf(name: str, x: Any) -> Encoded:
            chosen = numbers.is_real(x) and x.ndim and codec.takes(x)
            if not (chosen and re.search(only, name)):
                return x, optax.MaskedNode()
            abstract = isinstance(x, jax.ShapeDtypeStruct)
            begin = lambda x: codec.begin(
                numbers.opaque(x)
            )  # of known zeros too, at run time
            return jax.eval_shape(begin, x) if abstract else begin(x)

        pairs = [*map(leaf, names, jax.tree.leaves(state))]
        if key is None:
            return _state(state, pairs, optax.MaskedNode())
        data = jax.random.key_data(random.typed(key))
        return _state(state, pairs, jnp.array(data, copy=True))

    def update(
        updates: Updates, state: StoredState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, StoredState]:
        codes, structure = jax.tree.flatten(state.inner)
        names = paths.leaf_paths(state.inner)
        kept = jax.tree.structure(paths.unboxed(state.inner)).flatten_up_to(
            state.scales
        )
        widest = _dtype(updates)
        decoded = [
            codec.decode(code, scale, widest) if re.search(only, name) else None
            for name, code, scale in zip(names, codes, kept)
        ]
        whole = [code if x is None else x for code, x in zip(codes, decoded)]
        u, new = tx.update(updates, structure.unflatten(whole), params, **extra)
        draws, following = [None] * len(codes), state.key
        if key is not None:
            first, *draws = random.split(state.key, len(codes) + 1, key)
            following = jax.random.key_data(first)
        pairs = [
            (x, optax.MaskedNode()) if old is None else codec.encode(x, scale, draw)
            for x, old, scale, draw in zip(
                jax.tree.leaves(new), decoded, kept, draws, strict=True
            )
        ]
        return u, _state(new, pairs, following)

    return tx._replace(init=init, update=update)


def _state(like: Any, pairs: list[Encoded], key: Any) -> StoredState:
    """Codes and scales in trees like this one; the scales are of other shapes, so in no boxes."""
    codes = jax.tree.structure(like).unflatten([code for code, _ in pairs])
    plain = jax.tree.structure(paths.unboxed(like))
    scales = plain.unflatten([scale for _, scale in pairs])
    return StoredState(codes, scales, key)


def _dtype(updates: Updates) -> Any:
    """The widest dtype that updates are computed in."""
    dtypes = [
        numbers.wide_dtype(x) for x in jax.tree.leaves(updates) if numbers.is_real(x)
    ]
    return max(dtypes, key=lambda d: d.itemsize, default=jnp.dtype(jnp.float32))
