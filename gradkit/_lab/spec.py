"""Load transforms and parameters named on the command line as `package.module:name`."""

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
    """The `testing.Subject` of the transform that `spec` names, with these parameters."""
    if shapes is not None and params is not None:
        raise Complaint("--shapes and --params say the same. Give one of them.")
    target = find(spec)
    if not callable(target) and not is_transform(target):
        got = reprlib.repr(target)
        raise Complaint(f"{spec!r} must be a transform or a factory of one, got {got}.")
    leaves = shapes_of(shapes) if shapes is not None else None
    leaves = tree(params) if params is not None else leaves
    if leaves is not None:
        size = sum(map(math.prod, leaves.values()))
        memory.require(f"checks on {size:,} parameters", memory.RUN * size)
    with refused(f"{spec!r} makes no transform"):
        subject = testing.Subject(target, leaves)
        made = subject.factory(**subject.required)
    if not is_transform(made):
        raise Complaint(
            f"{spec!r} makes no transform: it must return a pair of init and update, "
            f"got {reprlib.repr(made)}."
        )
    return subject


def find(spec: str) -> Any:
    """Import the object that `spec` names; the current folder comes first in `sys.path`."""
    module, _, name = spec.partition(":")
    file = "/" in module or module.endswith(".py")
    if file or "" in [*module.split("."), *name.split(".")]:
        raise Complaint(
            f"{spec!r} must read package.module:name, as Python imports it."
        )
    with contextlib.suppress(FileNotFoundError):  # a folder that has been deleted
        sys.path.insert(0, os.getcwd())
    with refused(f"cannot load {spec!r}"):
        target: Any = importlib.import_module(module)
        for part in name.split("."):
            if not hasattr(target, part):
                raise AttributeError(
                    f"{_called(target)} has no {part!r}.{near(part, dir(target))}"
                )
            target = getattr(target, part)
    return target


def tree(spec: str) -> Shapes:
    """Shapes by path of the parameters that `spec` names, or makes without arguments."""
    target = find(spec)
    with refused(f"{spec!r} makes no parameters"):
        params = target() if callable(target) else target
        named = jax.tree_util.tree_leaves_with_path(params)
        paths = [jax.tree_util.keystr(k, simple=True, separator="/") for k, _ in named]
    leaves = {path.removesuffix("/value"): x for path, (_, x) in zip(paths, named)}
    for path, x in leaves.items():
        if not (hasattr(x, "shape") and jnp.issubdtype(x.dtype, jnp.floating)):
            raise Complaint(
                f"leaf {path or 'itself'} of {spec!r} must be a real floating array, got "
                f"{getattr(x, 'dtype', reprlib.repr(x))}. Name a tree of such alone."
            )
    if not leaves:
        raise Complaint(f"{spec!r} must hold parameters, got {reprlib.repr(params)}.")
    return {path or "p0": x.shape for path, x in leaves.items()}


def is_transform(x: Any) -> bool:
    """Whether this is a pair of `init` and `update`."""
    return hasattr(x, "init") and hasattr(x, "update")


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn errors of user code, and `sys.exit`, into a `Complaint` that begins with `what`."""
    try:
        yield
    except SystemExit as error:
        message = f"it ends Python with sys.exit({error.code!r})"
        raise Complaint(f"{what}: {message}{_place(error)}.") from error
    except Exception as error:
        message = " ".join(str(error).split())[:300].rstrip(".")
        kind = type(error).__name__
        plain = isinstance(error, ImportError | AttributeError | SyntaxError)
        if not (plain or message.startswith("gradkit.")):
            message = f"{kind}: {message}" if message else kind
        end = "" if message.endswith("?") else "."
        raise Complaint(f"{what}: {message}{_place(error)}{end}") from error


def _place(error: BaseException) -> str:
    """The file and line of the last frame in the user's code, or nothing if there is none."""
    packages = sysconfig.get_paths()
    libraries = {
        packages[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    libraries |= {str(pathlib.Path(gradkit.__file__).parent), "<frozen"}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(tuple(libraries))
    ]
    name = pathlib.Path(frames[-1].filename).name if frames else ""
    return f" ({name}, line {frames[-1].lineno})" if frames else ""


def _called(x: Any) -> str:
    return f"{type(x).__name__} {getattr(x, '__name__', reprlib.repr(x))!r}"


def shapes_of(text: str) -> Shapes:
    """Parse shapes such as 6x4,bias=4 to a dict `{"p0": (6, 4), "bias": (4,)}`."""
    shapes: Shapes = {}
    for i, part in enumerate(text.split(",")):
        name, named, lengths = part.strip().rpartition("=")
        try:
            shape = tuple(map(int, lengths.split("x")))
        except ValueError:
            shape = (0,)
        name = name if named else f"p{i}"
        if not name or min(shape) < 1 or name in shapes:
            raise Complaint(
                f"--shapes must read 6x4,3x5 or kernel=6x4,bias=4, got {text!r}."
            )
        shapes[name] = shape
    return shapes
