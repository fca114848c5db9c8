"""The loss and the parameters of a measurement: their checks, and programs compiled once for a loss."""

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import jax

from gradkit._core import check, numbers
from gradkit._core.call import error
from gradkit._core.numbers import Tree
from gradkit._core.paths import is_variable, leaf_paths

Programs = dict[Any, tuple[list[Any], Callable[..., Any]]]
_programs: weakref.WeakKeyDictionary[Any, Programs] = weakref.WeakKeyDictionary()


def compiled(
    run: Callable[..., Any], loss: Callable[..., Any], **settings: Any
) -> Callable[..., Any]:
    """`run(loss, ..., **settings)`, compiled once for these, for as long as the loss lives.

    It is compiled anew where a variable that the loss names has another value, as a batch in a
    loop, and where the loss has no hash.
    """
    try:
        kept = _programs.setdefault(loss, {})
    except TypeError:
        return jax.jit(functools.partial(run, loss, **settings))
    key, now = (run, *settings.items()), _variables(loss)
    then, program = kept.get(key, ([], None))
    same = len(then) == len(now) and all(x is y for x, y in zip(then, now))
    if program is None or not same:
        of = weakref.ref(loss)  # a program that holds its loss would keep both
        program = jax.jit(lambda *arrays: run(of(), *arrays, **settings))

    def call(*arrays: Any) -> Any:
        found = program(*arrays)
        kept[key] = _variables(loss), program  # as now: it may count its calls itself
        return found

    return call


def _variables(f: Callable[..., Any]) -> list[Any]:
    """The values of the variables outside of a function that its own lines name."""
    try:
        found = inspect.getclosurevars(f)
    except (TypeError, ValueError):  # no Python function; a variable without a value
        return []
    return [*found.nonlocals.values(), *found.globals.values()]


def one_number(method: str, loss: Callable[..., Any], *args: Any) -> None:
    """Check that `loss` of arguments of these shapes is one real number."""
    kind = jax.eval_shape(loss, *args)
    if getattr(kind, "shape", None) != () or not numbers.is_real(kind):
        said = getattr(kind, "shape", type(kind).__name__)
        got = f"{said} of {kind.dtype}" if hasattr(kind, "dtype") else said
        text = (
            f"loss must return one real number, got {got}. Average it over the batch."
        )
        raise error(ValueError, method, text)


def parameters(method: str, params: Tree, name: str = "params") -> None:
    """Check that `params` are real, some, and without the state of a model, such as running means."""
    names = leaf_paths(params, _is_of_flax)
    for path, x in zip(names, jax.tree.leaves(params, is_leaf=_is_of_flax)):
        if _is_state(x):
            at = f" at {path}" if path else ""
            text = f"{name} must be what is trained alone, got {type(x).__name__}{at}"
            remedy = "Pass nnx.state(model, nnx.Param), and merge it with the others in the loss."
            raise error(TypeError, method, f"{text}. {remedy}")
    if isinstance(params, Mapping) and {"params", "batch_stats"} <= {*params}:
        text = f"{name} must be what is trained alone, got batch_stats besides params"
        remedy = 'Pass variables["params"], and join it with the others in the loss.'
        raise error(TypeError, method, f"{text}. {remedy}")
    real(method, params, name)
    want, remedy = f"{name} must have one entry or more", "Pass the model's parameters."
    entries = sum(x.size for x in jax.tree.leaves(params))
    check.holds(method, entries > 0, want, entries, remedy)


def real(method: str, params: Tree, name: str = "params") -> None:
    """Check that every leaf of `params` is an array of a real floating dtype."""
    for path, leaf in check.leaves(params):
        if numbers.is_real(leaf):
            continue
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        remedy = (
            "Pass what is trained alone, as nnx.state(model, nnx.Param) or the first of "
            "eqx.partition(model, eqx.is_inexact_array), and join it with the others in the loss."
        )
        if numbers.is_trained(leaf):
            remedy = "Pass the real and the imaginary part, and join them in the loss."
        of = f"leaf {path} of {name}" if path else name
        text = f"{of} must be a real floating array, got {kind}. {remedy}"
        raise error(TypeError, method, text)


def _is_of_flax(x: Any) -> bool:
    """Whether this is an `nnx.Module` or an `nnx.Variable`, told without importing Flax."""
    return is_variable(x) or "Module" in _in_nnx(x)


def _is_state(x: Any) -> bool:
    """Whether this is an `nnx.Module`, or a variable of a kind of Flax's that is not trained."""
    kinds = _in_nnx(x) - {"Variable", "Representable"}  # of which all are
    return _is_of_flax(x) and bool(kinds) and "Param" not in kinds


def _in_nnx(x: Any) -> set[str]:
    """The names of the classes of NNX that `x` is of."""
    kinds = type(x).__mro__
    return {k.__name__ for k in kinds if k.__module__.startswith("flax.nnx")}
