"""What a call knows of its surroundings: the factory that the user called, and views around it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A factory of which this is the call, or the `init` or `update` of what it made."""

    name: str
    building: bool  # the call


_call: ContextVar[Call | None] = ContextVar("gradkit.call", default=None)
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
