"""A transform named on the command line as `package.module:factory`."""

import importlib
import os
import sys
from typing import Any

from gradkit import testing
from gradkit._lab.complaint import Complaint


def load(spec: str, shapes: str | None = None) -> testing.Subject:
    """The transform that `spec` names, ready to be held to the laws on such parameters."""
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise Complaint(f"{spec!r} must read package.module:factory.")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise Complaint(f"cannot load {spec!r}: {error}.") from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found) and not (
        hasattr(found, "init") and hasattr(found, "update")
    ):
        raise Complaint(
            f"{spec!r} must be a transform or a factory of one, got {found!r}."
        )
    try:
        subject = testing.Subject(found, _shapes(shapes))
        made = subject.tx
    except (TypeError, ValueError, AttributeError) as error:
        raise Complaint(f"{spec!r} makes no transform: {error}") from error
    del made
    return subject


def _shapes(text: str | None) -> dict[str, tuple[int, ...]] | None:
    """By name, from shapes such as 6x4,4."""
    if text is None:
        return None
    try:
        found = [tuple(map(int, one.split("x"))) for one in text.split(",")]
    except ValueError:
        found = [(0,)]
    if min(map(min, found)) < 1:
        raise Complaint(f"--shapes must read 6x4,3x5 or the like, got {text}.")
    return {f"p{i}": shape for i, shape in enumerate(found)}
