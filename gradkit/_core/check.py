"""Checks of arguments, with errors that name the factory, the argument or leaf, and a remedy.

Traced values are not checked, so any hyperparameter can be a schedule, vmapped or injected.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradkit._core.call import error
from gradkit._core.mismatch import mismatch
from gradkit._core.numbers import (
    dtypes,
    is_floating,
    is_narrow,
    is_real,
    is_trained,
)
from gradkit._core.paths import leaf_paths

PARAMETERS = (
    "Pass the parameters alone, eqx.filter(model, eqx.is_inexact_array) or "
    "nnx.state(model, nnx.Param)"
)


def _require(
    method: str, want: str, holds: Callable[[Any], bool], values: dict[str, Any]
) -> None:
    """Check that each number `holds`, which `want` says in words; arrays and schedules pass."""
    for name, value in values.items():
        scalar = value if isinstance(value, float | int) else number(value)
        if isinstance(scalar, Real):
            if holds(scalar):
                continue
            text = f"{name} must be {want}, got {scalar!r}. Choose {name} within this range."
            raise error(ValueError, method, text)
        if not (isinstance(scalar, jax.Array) or callable(scalar)):
            text = f"{name} must be a number, {want}, got {_instead(name, value)}"
            raise error(TypeError, method, text)


def _instead(name: str, value: Any) -> str:
    """What was given for a number, and what to give; of a tuple with a schedule, that one."""
    fields = getattr(value, "_fields", ())
    if "learning_rate" not in fields:
        return f"{value!r}. Choose a number."
    field = name if name in fields else "learning_rate"
    return f"a {type(value).__name__}. Pass its .{field}."


def number(value: Any) -> Any:
    """A one-element array as a Python number; all else, and arrays without known values, as is."""
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
    if not is_array or isinstance(value, Tracer) or value.size != 1:
        return value
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    remote = isinstance(value, jax.Array) and not value.is_fully_addressable
    return value if remote else value.item()


def number_or_schedule(method: str, name: str, value: Any) -> None:
    """`one_number`, with a message that offers a schedule."""
    one_number(method, name, value, " or a schedule")


def whole_number_or_schedule(method: str, name: str, value: Any) -> None:
    """`number_or_schedule`, of a count: its number is a whole one, where it is known."""
    number_or_schedule(method, name, value)
    scalar = number(value)
    if isinstance(scalar, float) and not scalar.is_integer():
        text = f"{name} must be a whole number, got {scalar}. Choose one."
        raise error(ValueError, method, text)


def one_number(method: str, name: str, value: Any, or_what: str = "") -> None:
    """Check that `value` is one finite number of at least float32; infinity passes as a `max_...`.

    `or_what` is an alternative for the message.
    """
    must = f"{name} must be one number{or_what}"
    scalar = value if isinstance(value, float | int) else number(value)
    if isinstance(scalar, float) and math.isinf(scalar) and not name.startswith("max_"):
        text = f"{name} must be finite, got {scalar}. Choose a finite number."
        raise error(ValueError, method, text)
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_array or is_number):
        raise error(TypeError, method, f"{must}, got {_instead(name, value)}")
    if not is_array:
        return
    if value.ndim:
        text = (
            f"{must}, got an array of shape {value.shape}. Map over it with jax.vmap."
        )
        raise error(TypeError, method, text)
    dtype = value.dtype
    if not _is_precise(dtype):
        text = (
            f"{name} must be of at least float32, got {dtype}. Pass hyperparam_dtype="
            "jnp.float32 to optax.inject_hyperparams, or cast it."
        )
        raise error(TypeError, method, text)


def whole(method: str, name: str, value: Any) -> None:
    """Check that `value` is one integer; it may be traced."""
    one_number(method, name, value)
    dtype = getattr(value, "dtype", None)
    if isinstance(value, Integral) or (
        dtype is not None and jnp.issubdtype(dtype, jnp.integer)
    ):
        return
    text = f"{name} must be a whole number, got {value!r}. Choose one."
    raise error(ValueError, method, text)


def key(method: str, name: str, value: Any) -> None:
    """Check that `value` is a seed, a `jax.random` key, or the data of a key."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return
    kinds = jax.dtypes.prng_key, jnp.integer
    dtype = getattr(value, "dtype", None)
    if dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        text = f"{name} must be a seed or a key, got {value!r}. Pass jax.random.key(0), say."
        raise error(TypeError, method, text)


def triples(method: str, **values: Any) -> None:
    """Check that each value is a sequence of one or more triples of numbers."""
    for name, value in values.items():
        are_triples = isinstance(value, Sequence) and len(value) > 0
        are_triples = are_triples and all(
            isinstance(x, Sequence)
            and len(x) == 3
            and all(isinstance(y, Real) for y in x)
            for x in value
        )
        requirement = f"{name} must be one triple of numbers or more"
        remedy = "Pass gradkit.newton_schulz.JORDAN, say."
        holds(method, are_triples, requirement, repr(value), remedy)


def live(method: str, state: Any) -> None:
    """Refuse an `nnx.State` of an optimizer, which keeps names, but no classes."""
    kind = type(state)
    if kind.__name__ == "State" and kind.__module__.startswith("flax."):
        what = "state must be an nnx.Optimizer or its opt_state, got an nnx.State"
        raise error(TypeError, method, f"{what}. Pass optimizer.opt_state.")


def flag(method: str, name: str, value: Any) -> None:
    """Check that `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        text = f"{name} must be True or False, got {value!r}. Choose one."
        raise error(TypeError, method, text)


def _is_precise(dtype: Any) -> bool:
    """Whether a dtype is integer, or floating of at least 32 bits."""
    floating = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return floating or jnp.issubdtype(dtype, jnp.integer)


def interval(method: str, interval: str, **values: Any) -> None:
    """Check that each value is in an interval; `[0, 1)` is at least 0 and below 1."""
    low, high = map(float, interval[1:-1].split(","))
    closed_low, closed_high = interval[0] == "[", interval[-1] == "]"

    def holds(x: Any) -> bool:
        return (
            (low < x < high) or (closed_low and x == low) or (closed_high and x == high)
        )

    if closed_low and closed_high:
        want = f"from {low:g} to {high:g}"
    else:
        at_least = "at least" if closed_low else "above"
        want = (
            f"{at_least} {low:g} and {'at most' if closed_high else 'below'} {high:g}"
        )
    _require(method, want, holds, values)


def positive(method: str, **values: Any) -> None:
    """Check that each value is above 0 and not nan."""
    _require(method, "above 0", lambda x: x > 0, values)


def nonnegative(method: str, **values: Any) -> None:
    """Check that each value is at least 0 and not nan."""
    _require(method, "at least 0", lambda x: x >= 0, values)


def above(method: str, limit: float, **values: Any) -> None:
    """Check that each value is above a limit."""
    _require(method, f"above {limit}", lambda x: x > limit, values)


def at_least(method: str, limit: float, **values: Any) -> None:
    """Check that each value is at least a limit."""
    _require(method, f"at least {limit}", lambda x: x >= limit, values)


def below(method: str, bound: str, limit: Any, **values: Any) -> None:
    """Check that each value is below `limit`, the value of the argument `bound`."""
    limit = number(limit)
    if isinstance(limit, Real):
        _require(method, f"below {bound} = {limit!r}", lambda x: x < limit, values)


def count(method: str, **values: Any) -> None:
    """Check that each value is an integer of at least 1, known before tracing."""
    for name, value in values.items():
        if not isinstance(value, Integral) or value < 1:
            raise error(
                ValueError,
                method,
                f"{name} must be a whole number of at least 1, "
                f"got {value!r}. It is part of the program, so it cannot be traced or scheduled.",
            )


def concrete(method: str, **values: Any) -> None:
    """Check that no value is traced, as `optax.inject_hyperparams` does in a jitted `init`."""
    for name, value in values.items():
        if isinstance(value, Tracer):
            raise error(
                TypeError,
                method,
                f"{name} must be known before tracing, got {value!r}. Name it "
                "in static_args of optax.inject_hyperparams, or call init outside of jit.",
            )


def holds(
    method: str, condition: bool, requirement: str, got: Any, remedy: str
) -> None:
    """Raise a ValueError, `<requirement>, got <got>. <remedy>`, unless the condition is true."""
    if not condition:
        raise error(ValueError, method, f"{requirement}, got {got}. {remedy}")


def loss(method: str, value: Any) -> None:
    """Check that the loss of the batch, one number, is passed to an update."""
    requirement = "value, the loss, must be passed to update"
    remedy = "Call tx.update(grads, state, params, value=loss)."
    holds(method, value is not None, requirement, None, remedy)
    shape = () if isinstance(value, Real) else getattr(value, "shape", None)
    got = type(value).__name__ if shape is None else f"shape {shape}"
    holds(method, shape == (), "value must be one number", got, "Take its mean.")


def is_transform(x: Any) -> bool:
    """Whether `x` has callable `init` and `update`."""
    return callable(getattr(x, "init", None)) and callable(getattr(x, "update", None))


def transform(method: str, name: str, value: Any) -> None:
    """Check that `value` is a transform, and not a factory of transforms."""
    if is_transform(value):
        return
    got, remedy = repr(value), "Pass one of optax or gradkit, made by its factory."
    if callable(value):
        got = getattr(getattr(value, "func", value), "__name__", got)
        remedy = f"Call it, if it makes one: {got}()."
    elif isinstance(value, Sequence) and all(map(is_transform, value)):
        got = f"a {type(value).__name__}"
        remedy = "Join its transforms: gradkit.chain(*transforms)."
    text = f"{name} must be a transform, with init and update, got {got}. {remedy}"
    raise error(TypeError, method, text)


def transforms(method: str, name: str, values: Sequence[Any]) -> None:
    """Check that each value is a transform."""
    for value in values:
        if isinstance(value, Sequence) and not is_transform(value):
            text = f"each of {name} must be a transform, got a {type(value).__name__}"
            raise error(TypeError, method, f"{text}. Pass them one by one: *{name}.")
        transform(method, f"each of {name}", value)


def anything(method: str, name: str, value: Any) -> None:
    """Accept any `value`: the program is compiled for it."""


def expression(method: str, name: str, value: Any) -> None:
    """Check that `value` is a regular expression."""
    requirement = f"{name} must be a regular expression"
    if not isinstance(value, str | re.Pattern):
        raise error(TypeError, method, f"{requirement}, got {value!r}. Write one.")
    try:
        re.compile(value)
    except re.error as wrong:
        got = f"{value!r}: {wrong}"
        raise error(
            ValueError, method, f"{requirement}, got {got}. Correct it."
        ) from None


def not_array(method: str, name: str, value: Any) -> None:
    """Check that `value` is no array; `optax.inject_hyperparams` replaces a callable by one."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        text = (
            f"{name} must be no array, got {jax.typeof(value)}. optax.inject_hyperparams takes "
            f'a callable for a schedule: pass it static_args="{name}".'
        )
        raise error(TypeError, method, text)


def reading(method: str, name: str, value: Any) -> None:
    """Check that `value` is a result of `gradkit.read_model`."""
    if not hasattr(value, "shown_to"):
        got = type(value).__name__
        text = f"{name} must be what gradkit.read_model returns, got {got}"
        remedy = "Call read_model(apply, params, example)."
        raise error(TypeError, method, f"{text}. {remedy}")


def parametrization(method: str, name: str, value: Any) -> None:
    """Check that `value` is a result of `gradkit.infer_parametrization`."""
    is_mapping = isinstance(value, Mapping)
    if not (is_mapping and all(hasattr(type(p), "growth_in") for p in value.values())):
        got = f"{value!r:.60}"
        text = f"{name} must be what gradkit.infer_parametrization returns, got {got}"
        remedy = "Call infer_parametrization(base=..., target=...)."
        raise error(TypeError, method, f"{text}. {remedy}")


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """Path and value of every leaf; paths are written as for `route`."""
    return list(zip(leaf_paths(tree), jax.tree.leaves(tree)))


def real(method: str, tree: Any) -> None:
    """Check that every leaf is an array of a real floating dtype."""
    if all(map(is_floating, dtypes(tree))):
        return
    for path, leaf in leaves(tree):
        if not is_real(leaf):
            dtype = getattr(leaf, "dtype", type(leaf).__name__)
            is_complex = is_trained(leaf)
            split = "Split complex leaves with optax.contrib.split_real_and_imaginary"
            remedy = split if is_complex else PARAMETERS
            text = f"leaf {path} must be a real floating array, got {dtype}. {remedy}"
            raise error(TypeError, method, f"{text}, or mask it out with optax.masked.")


def given(method: str, params: Any, to: str = "update") -> None:
    """Check that `params` were passed to `tx.update` or `tx.init`, which `to` names."""
    if params is None:
        arguments = {"update": "grads, state, params", "init": "params"}
        call = f"Call tx.{to}({arguments[to]})."
        text = f"params must be passed to {to}, got None. {call}"
        raise error(ValueError, method, text)


def alike(method: str, updates: Any, params: Any) -> None:
    """Check that every update has the path and the shape of its parameter."""
    gs, g_structure = jax.tree.flatten(updates)
    ps, p_structure = jax.tree.flatten(params)
    same = g_structure == p_structure
    if same and all(g.shape == p.shape for g, p in zip(gs, ps)):
        return
    remedy = "Take gradients with respect to these params."
    if leaf_paths(updates) == leaf_paths(params):
        for (path, g), p in zip(leaves(updates), ps):
            requirement = f"leaf {path} must have the shape of its parameter {p.shape}"
            holds(method, g.shape == p.shape, requirement, g.shape, remedy)
    difference = mismatch(updates, params)
    if not all(map(is_trained, ps)):  # a model with functions, say
        remedy = f"{PARAMETERS}."
    requirement = "updates must be a tree like params, leaf by leaf"
    holds(method, difference is None, requirement, difference, remedy)


def still_narrow(method: str, params: Any, kept: Any) -> None:
    """Check that parameters are below float32 where `kept` has an array of each, and only there."""
    arrays = jax.tree.map(lambda p, k: bool(jax.tree.leaves(k)), params, kept)
    for (path, p), was in zip(leaves(params), jax.tree.leaves(arrays)):
        if is_narrow(p.dtype) != was:
            than = "less than" if was else "at least"
            raise error(
                TypeError,
                method,
                f"leaf {path} must have the dtype that it had in init, got {p.dtype} instead of "
                f"{than} float32. Add updates by optax.apply_updates, which keeps the dtypes of "
                "parameters; p + u and equinox.apply_updates do not. After a change that you "
                "want, call init again.",
            )


def matrix(method: str, tree: Any, batch_axes: tuple[int, ...] = ()) -> None:
    """Check that every leaf has the axes `batch_axes`, and at least two others."""
    if not isinstance(batch_axes, Sequence):
        raise error(
            TypeError,
            method,
            f"batch_axes must be a tuple, got {batch_axes!r}. Pass (0,), say.",
        )

    def axes_in(x: Any) -> set[int]:
        return {axis % x.ndim for axis in batch_axes if -x.ndim <= axis < x.ndim}

    least, n_batch = 2 + len(batch_axes), len(batch_axes)
    if all(
        x.ndim >= least and len(axes_in(x)) == n_batch for x in jax.tree.leaves(tree)
    ):
        return
    for path, leaf in leaves(tree):
        if leaf.ndim < least:
            besides = f" besides batch_axes {batch_axes}" if batch_axes else ""
            raise error(
                ValueError,
                method,
                f"leaf {path} must have at least 2 axes{besides}, got "
                f"shape {leaf.shape}. Send vectors elsewhere with gradkit.route.",
            )
        if len(axes_in(leaf)) < n_batch:
            raise error(
                ValueError,
                method,
                f"batch_axes must be different axes of leaf {path}, got "
                f"{batch_axes} for shape {leaf.shape}. Choose from 0 to {leaf.ndim - 1}.",
            )
