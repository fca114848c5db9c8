"""What is named on the command line as `package.module:name`: transforms and parameters."""

import contextlib
import importlib
import math
import os
import pathlib
import reprlib
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import gradkit
from gradkit import testing
from gradkit._lab import memory
from gradkit._lab.complaint import Complaint, near

Shapes = dict[str, tuple[int, ...]]


def load(
    spec: str, shapes: str | None = None, params: str | None = None
) -> testing.Subject:
    """The transform that `spec` names, ready to be held to the laws on such parameters."""
    if shapes is not None and params is not None:
        raise Complaint("--shapes and --params say the same. Give one of them.")
    found = find(spec)
    if not callable(found) and not is_transform(found):
        said = reprlib.repr(found)
        raise Complaint(
            f"{spec!r} must be a transform or a factory of one, got {said}."
        )
    leaves = _shapes(shapes) if shapes is not None else None
    leaves = tree(params) if params is not None else leaves
    if leaves is not None:
        size = sum(map(math.prod, leaves.values()))
        memory.require(f"checks on {size:,} parameters", memory.RUN * size)
    with refused(f"{spec!r} makes no transform"):
        subject = testing.Subject(found, leaves)
        made = subject.factory(**subject.required)
    if not is_transform(made):
        raise Complaint(
            f"{spec!r} makes no transform: it must return a pair of init and update, "
            f"got {reprlib.repr(made)}."
        )
    return subject


def find(spec: str) -> Any:
    """What `spec` names; the current folder stays where modules are looked for first."""
    module, _, name = spec.partition(":")
    file = "/" in module or module.endswith(".py")
    if file or "" in [*module.split("."), *name.split(".")]:
        raise Complaint(
            f"{spec!r} must read package.module:name, as Python imports it."
        )
    with contextlib.suppress(FileNotFoundError):  # a folder that has been deleted
        sys.path.insert(0, os.getcwd())
    with refused(f"cannot load {spec!r}"):
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            if not hasattr(found, part):
                raise AttributeError(
                    f"{_called(found)} has no {part!r}.{near(part, dir(found))}"
                )
            found = getattr(found, part)
    return found


def tree(spec: str) -> Shapes:
    """The shapes of the parameters that `spec` names, or makes without arguments, by path."""
    found = find(spec)
    with refused(f"{spec!r} makes no parameters"):
        made = found() if callable(found) else found
        named = jax.tree_util.tree_leaves_with_path(made)
        paths = [jax.tree_util.keystr(k, simple=True, separator="/") for k, _ in named]
    leaves = {path.removesuffix("/value"): x for path, (_, x) in zip(paths, named)}
    for path, x in leaves.items():
        if not (hasattr(x, "shape") and jnp.issubdtype(x.dtype, jnp.floating)):
            raise Complaint(
                f"leaf {path or 'itself'} of {spec!r} must be a real floating array, got "
                f"{getattr(x, 'dtype', reprlib.repr(x))}. Name a tree of such alone."
            )
    if not leaves:
        raise Complaint(f"{spec!r} must hold parameters, got {reprlib.repr(made)}.")
    return {path or "p0": x.shape for path, x in leaves.items()}


def is_transform(x: Any) -> bool:
    """Whether this is a pair of `init` and `update`."""
    return hasattr(x, "init") and hasattr(x, "update")


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Say what goes wrong in a user's code in one line, an end of Python as well."""
    try:
        yield
    except SystemExit as error:
        said = f"it ends Python with sys.exit({error.code!r})"
        raise Complaint(f"{what}: {said}{_place(error)}.") from error
    except Exception as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        kind = type(error).__name__
        plain = isinstance(error, ImportError | AttributeError | SyntaxError)
        if not (plain or said.startswith("gradkit.")):
            said = f"{kind}: {said}" if said else kind
        end = "" if said.endswith("?") else "."
        raise Complaint(f"{what}: {said}{_place(error)}{end}") from error


def _place(error: BaseException) -> str:
    """The last line of a user's own that led to the error, if any did."""
    packages = sysconfig.get_paths()
    others = {packages[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    others |= {str(pathlib.Path(gradkit.__file__).parent), "<frozen"}
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(tuple(others))
    ]
    name = pathlib.Path(own[-1].filename).name if own else ""
    return f" ({name}, line {own[-1].lineno})" if own else ""


def _called(x: Any) -> str:
    return f"{type(x).__name__} {getattr(x, '__name__', reprlib.repr(x))!r}"


def _shapes(text: str) -> Shapes:
    """By name, from shapes such as 6x4,4."""
    try:
        found = [tuple(map(int, one.split("x"))) for one in text.split(",")]
    except ValueError:
        found = [(0,)]
    if min(map(min, found)) < 1:
        raise Complaint(f"--shapes must read 6x4,3x5 or the like, got {text!r}.")
    return {f"p{i}": shape for i, shape in enumerate(found)}
