"""Where leaves are stacks of matrices, which the first of three axes numbers.

A view makes them so for the transform within, whose `batch_axes` are these, if it is not told.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

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
