"""Context of a call: the factory that the user called, the views and tuned parts around it."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A factory of which this is the call, or the `init` or `update` of what it made."""

    name: str
    building: bool  # the call


class Part(NamedTuple):
    """A factory that is called while `gradkit.tune` builds, which may replace its numbers."""

    path: str | None  # prefix of its numbers' names; None outside of the tuned factory
    put: Callable[[str, Any], Any]  # (name, value) -> the number to use
    parts: dict[str, int]  # calls of factories so far, by name


_call: ContextVar[Call | None] = ContextVar("gradkit.call", default=None)
_part: ContextVar[Part | None] = ContextVar("gradkit.part", default=None)
_stacked: ContextVar[bool] = ContextVar("gradkit.stacked", default=False)
_widened: ContextVar[bool] = ContextVar("gradkit.widened", default=False)


def called(method: str) -> str:
    """The factory that the user called, in whose parts this is; `method`, where in none."""
    call = _call.get()
    return method if call is None else call.name


def is_building() -> bool:
    """Whether this is within the call of a factory, as a part of what it makes."""
    call = _call.get()
    return call is not None and call.building


def calling(
    name: str, f: Callable[..., Any], *args: Any, building: bool = False
) -> Any:
    """`f(*args)`, whose errors go by the name of this factory."""
    token = _call.set(Call(name, building))
    try:
        return f(*args)
    finally:
        _call.reset(token)


def part_called(name: str) -> Part | None:
    """The part that a call of this factory is; None where nothing is tuned."""
    outer = _part.get()
    if outer is None or outer.path is None:
        return outer and outer._replace(path="")
    outer.parts[name] = count = outer.parts.get(name, 0) + 1
    own = name if count == 1 else f"{name}_{count}"
    return outer._replace(path=f"{outer.path}{own}/")


def within(part: Part | None, f: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `f` so that the factories it calls are parts of `part`; of nothing if that is None."""

    def call(*args: Any) -> Any:
        token = _part.set(part and part._replace(parts={}))
        try:
            return f(*args)
        finally:
            _part.reset(token)

    return call


def refusal(f: Callable[..., Any], *args: Any, **kwargs: Any) -> TypeError | None:
    """Why a function cannot be called with these; None if it can, or if it does not say."""
    try:
        inspect.signature(f).bind(*args, **kwargs)
    except TypeError as wrong:
        return wrong
    except ValueError:  # a builtin without a signature
        pass
    return None


def error(kind: type[Exception], method: str, text: str) -> Exception:
    """An error of this kind: the factory that the user called, and what is wrong."""
    return kind(f"gradkit.{called(method)}: {text}")


@contextlib.contextmanager
def stacked() -> Iterator[None]:
    """In this context leaves of three axes are stacks of matrices, numbered by the first.

    A view makes them so for the transform within, whose `batch_axes` are these, if it is not told.
    """
    token = _stacked.set(True)
    try:
        yield
    finally:
        _stacked.reset(token)


def are_stacked() -> bool:
    """Whether this is in such a context."""
    return _stacked.get()


@contextlib.contextmanager
def widened() -> Iterator[None]:
    """In this context parameters are given in float32 that are kept in less."""
    token = _widened.set(True)
    try:
        yield
    finally:
        _widened.reset(token)


def are_widened() -> bool:
    """Whether this is in such a context."""
    return _widened.get()


def is_overlooked(shape: Sequence[int], batch_axes: Sequence[int]) -> bool:
    """Whether a leaf of this shape is a stack of more than one that these axes do not number."""
    if len(shape) != 3 or shape[0] < 2 or not _stacked.get():
        return False
    return 0 not in {axis % 3 for axis in batch_axes}
