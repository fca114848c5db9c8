"""The decorator of laws: each has a number, one way to be called, and one way to fail."""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from gradkit.testing import _laws
from gradkit.testing._compare import attempt
from gradkit.testing._subject import Subject, subject

Law = Callable[[Any], None]
_numbered: dict[int, Law] = {}


def law(number: int) -> Callable[[Callable[[Subject], None]], Law]:
    """Register the decorated function as the law of this number.

    It may be called with a Subject, a factory or a ready transform. Whatever goes wrong is an
    AssertionError that begins with the law's name.
    """

    def register(body: Callable[[Subject], None]) -> Law:
        name = body.__name__

        @functools.wraps(body)
        def checked(make_tx: Any) -> None:
            tested = subject(make_tx)
            try:
                with attempt("the transform"):
                    body(tested)
            except AssertionError as error:
                raise AssertionError(f"law {name}: {error}") from error

        assert number not in _numbered, f"two laws have the number {number}"
        _numbered[number] = checked
        return checked

    return register


def every() -> dict[str, Law]:
    """All laws by name, in order of their numbers, from the files of `_laws`."""
    for module in pkgutil.iter_modules(_laws.__path__):
        importlib.import_module(f"{_laws.__name__}.{module.name}")
    return {body.__name__: body for _, body in sorted(_numbered.items())}
