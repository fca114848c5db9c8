"""A transform named on the command line as `package.module:factory`."""

import importlib
import os
import sys
from typing import Any

from gradkit import testing
from gradkit._lab.complaint import Complaint


def load(spec: str) -> testing.Subject:
    """The transform that `spec` names, ready to be held to the laws."""
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
        subject = testing.Subject(found)
        made = subject.tx
    except (TypeError, ValueError, AttributeError) as error:
        raise Complaint(f"{spec!r} makes no transform: {error}") from error
    del made
    return subject
