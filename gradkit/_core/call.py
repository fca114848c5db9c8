"""The factory that the user called: the name by which errors go."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple


class Call(NamedTuple):
    """A factory of which this is the call, or the `init` or `update` of what it made."""

    name: str
    building: bool  # the call


_call: ContextVar[Call | None] = ContextVar("gradkit.call", default=None)


def called(method: str) -> str:
    """The factory that the user called, in whose parts this is; `method`, where in none."""
    call = _call.get()
    return method if call is None else call.name


def is_building() -> bool:
    """Whether this is within the call of a factory, as a part of what it makes."""
    call = _call.get()
    return call is not None and call.building


@contextlib.contextmanager
def calling(name: str, building: bool = False) -> Iterator[None]:
    """Errors in this context go by the name of this factory."""
    token = _call.set(Call(name, building))
    try:
        yield
    finally:
        _call.reset(token)


def error(kind: type[Exception], method: str, text: str) -> Exception:
    """An error of this kind: the factory that the user called, and what is wrong."""
    return kind(f"gradkit.{called(method)}: {text}")


_within: ContextVar[bool] = ContextVar("gradkit.stacked", default=False)


@contextlib.contextmanager
def stacked() -> Iterator[None]:
    """In this context leaves are stacks."""
    token = _within.set(True)
    try:
        yield
    finally:
        _within.reset(token)


def are_stacked() -> bool:
    """Whether this is in such a context."""
    return _within.get()


def is_overlooked(shape: Sequence[int], batch_axes: Sequence[int]) -> bool:
    """Whether a leaf of this shape is a stack of more than one that these axes do not number."""
    numbers = {axis % 3 for axis in batch_axes}
    return are_stacked() and len(shape) == 3 and shape[0] > 1 and 0 not in numbers
