"""Hyperparameters that a state keeps, and how they are read from it and set in it."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from gradkit._core import check, numbers
from gradkit._core.call import error
from gradkit._core.paths import unboxed

SET = "set_hyperparameters"


class TunedState(NamedTuple):
    """State of `tune`."""

    count: jax.Array  # updates so far, int32 []
    hyperparameters: dict[str, jax.Array]  # by name, at least float32 []
    scheduled: dict[
        str, jax.Array
    ]  # as the last update had them; at first those of count 0
    inner: optax.OptState


def hyperparameters(state: optax.OptState) -> dict[str, jax.Array]:
    """Every number that a `gradkit.tune` anywhere in a state has made state, by name.

    Args:
        state: of any transform of which a part is tuned: in a chain, in `route`, in a wrapper such
            as `optax.masked`, `optax.MultiSteps` or `accumulate`, in an `nnx.Optimizer`.

    Returns:
        A dict whose keys are `1/learning_rate` where `state[1]` is that of the tuned transform, and
        `learning_rate` where it is the whole. Those of a part are `1/scale_by_adam/eps`. Scheduled
        numbers are those that the last update had. Of a batch of states each has an axis for it.

    >>> tx = optax.chain(optax.clip(1.0), gk.tune(gk.sgd, learning_rate=0.5))
    >>> print(gk.hyperparameters(tx.init(jnp.zeros(2)))["1/learning_rate"])
    0.5
    """
    check.live("hyperparameters", state)
    return {
        f"{path}{name}": unboxed(x)
        for path, tuned in _tuned(state)
        for name, x in {**tuned.hyperparameters, **tuned.scheduled}.items()
    }


def set_hyperparameters(
    state: optax.OptState, values: Mapping[str, Any]
) -> optax.OptState:
    """The same state with other hyperparameters, for the next update and all that follow.

    Nothing is traced or compiled anew, as their shapes and dtypes stay. It may be called in and
    out of `jax.jit`, `jax.vmap` and `jax.lax.scan`.

    Args:
        state: of any transform of which a part is tuned, as `hyperparameters` takes it.
        values: numbers, by keys of `hyperparameters(state)`, or by the end of one, such as
            `learning_rate`, if no other key ends so. Where the state is a batch, one for all or an
            array of one for each. They are cast to the dtype that the state has.

    >>> tx = optax.chain(optax.clip(1.0), gk.tune(gk.sgd, learning_rate=0.5))
    >>> state = gk.set_hyperparameters(tx.init(jnp.ones(2)), {"learning_rate": 0.25})
    >>> print(tx.update(jnp.ones(2), state, jnp.ones(2))[0])
    [-0.25 -0.25]
    """
    if not isinstance(values, Mapping):
        what = f"values must be a dict by name, got {values!r}"
        raise error(TypeError, SET, f'{what}. Write {{"learning_rate": 0.1}}, say.')
    check.live(SET, state)
    found = [*_tuned(state)]
    known = [f"{path}{k}" for path, tuned in found for k in tuned.hyperparameters]
    scheduled = [f"{path}{k}" for path, tuned in found for k in tuned.scheduled]
    given: dict[str, Any] = {}
    for name, value in values.items():
        key = _key(name, known, scheduled)
        if key in given:
            what = f"values must have one number for {key}, got two"
            raise error(ValueError, SET, f"{what}. Leave {name} out.")
        given[key] = value
    return _with(state, given, "")


def closest(name: str, known: Collection[str]) -> str:
    """The remedy for an unknown name: those with its end, or the closest, and all of them."""
    end = name.rpartition("/")[2]
    same = sorted(k for k in known if k.rpartition("/")[2] == end)
    if len(same) > 1:  # of several groups or parts: the closest could be another's
        return f"Those called {end} are {', '.join(same)}."
    near = difflib.get_close_matches(name, known, 1, cutoff=0)
    return f"The closest is {near[0]!r}, of {', '.join(sorted(known))}."


def _is_tuned(x: Any) -> bool:
    return isinstance(x, TunedState)


def _path(outer: str, keys: Any) -> str:
    """Before the names of what stands at these keys of what has the path `outer`."""
    return f"{outer}{keystr(keys, simple=True, separator='/')}/" if keys else outer


def _tuned(state: Any, outer: str = "") -> Iterator[tuple[str, TunedState]]:
    """All `TunedState`s in a state, also nested ones, each with the prefix of its names.

    A tree like it without the numbers, such as that of the scales of what is stored, is none.
    """
    for keys, x in tree_flatten_with_path(state, is_leaf=_is_tuned)[0]:
        if _is_tuned(x) and jax.tree.leaves(x.count):
            path = _path(outer, keys)
            yield path, x
            yield from _tuned(x.inner, path)


def _with(state: Any, given: Mapping[str, Any], outer: str) -> Any:
    """`state`, with the numbers given by their keys."""
    leaves, structure = tree_flatten_with_path(state, is_leaf=_is_tuned)

    def leaf(keys: Any, x: Any) -> Any:
        if not _is_tuned(x):
            return x
        path = _path(outer, keys)
        kept = {
            k: _cast(f"{path}{k}", given[f"{path}{k}"], old)
            if f"{path}{k}" in given
            else old
            for k, old in x.hyperparameters.items()
        }
        return x._replace(hyperparameters=kept, inner=_with(x.inner, given, path))

    return structure.unflatten(leaf(*pair) for pair in leaves)


def _key(name: str, known: Collection[str], scheduled: Collection[str]) -> str:
    """The one key that `name` is, or is the end of."""
    keys = [*known, *scheduled]
    if not keys:
        what = "state must have a hyperparameter that can be set, got none"
        remedy = "Build its transform by gradkit.tune(factory, ...)."
        raise error(ValueError, SET, f"{what}. {remedy}")
    ends = [k for k in keys if k == name or k.endswith(f"/{name}")]
    found = [name] if name in ends else ends
    if not found:
        what = f"values must be of hyperparameters that the state has, got {name!r}"
        raise error(ValueError, SET, f"{what}. {closest(str(name), keys)}")
    if len(found) > 1:
        what = f"{name} must be the end of one key, got {', '.join(sorted(found))}"
        raise error(ValueError, SET, f"{what}. Write one of these in full.")
    if found[0] in scheduled:
        what = f"{found[0]} must be a number, got one that is scheduled"
        remedy = "Its schedule decides; give gradkit.tune a number to set it."
        raise error(ValueError, SET, f"{what}. {remedy}")
    return found[0]


def _cast(name: str, value: Any, old: Any) -> Any:
    """`value` in the dtype and the shape of the number that is kept, and in its box."""
    kept: Any = unboxed(old)
    _check_number(name, value)
    shape = np.shape(value)
    if shape not in ((), kept.shape):
        must = f"of shape {kept.shape}, or one number" if kept.shape else "one number"
        call = f"jax.vmap(lambda x: gradkit.{SET}(state, {{{name!r}: x}}))(values)"
        text = (
            f"{name} must be {must}, got shape {shape}. For a batch of states: {call}."
        )
        raise error(ValueError, SET, text)
    _check_finite(name, value)
    new = jnp.asarray(value, kept.dtype) if shape else jnp.full_like(kept, value)
    return jax.tree.map(lambda _: new, old)


def _check_number(name: str, value: Any) -> None:
    """The value is a real number or an array of such, not rounded to less than float32."""
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    dtype = value.dtype if is_array else np.dtype(float)
    is_real = any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer))
    if not ((is_array or is_number) and is_real):
        got = dtype if is_array else repr(value)
        raise error(TypeError, SET, f"{name} must be a number, got {got}. Choose one.")
    if numbers.is_narrow(dtype):
        text = f"{name} must be of at least float32, got {dtype}. Cast it."
        raise error(TypeError, SET, text)


def _check_finite(name: str, value: Any) -> None:
    """Refuse a value that is known not to be finite; infinity may be a `max_` of a clip."""
    if isinstance(value, Tracer) or not getattr(value, "is_fully_addressable", True):
        return
    x = np.asarray(value, float)
    limit = name.rpartition("/")[2].startswith("max_") and not np.isnan(x).any()
    if not (np.isfinite(x).all() or limit):
        text = f"{name} must be finite, got {value}. Choose a finite number."
        raise error(ValueError, SET, text)
