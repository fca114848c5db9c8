"""Assertions about trees, whose messages name the leaf, what it must be and what it is."""

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TOLERANCE = 1e-4  # of a leaf's largest entry: float32, summed in another order


class Unavailable(Exception):
    """A law cannot be tried here: a package or devices are missing. Says how to get them."""


class Undocumented(Exception):
    """A law has nothing to hold the transform to: its docstring does not state a number."""


def require(holds: Any, message: str) -> None:
    """Raise `message` as an AssertionError unless `holds`."""
    if not holds:
        raise AssertionError(message)


@contextlib.contextmanager
def attempt(what: str) -> Iterator[None]:
    """Turn any error of the block into an AssertionError that says what was attempted."""
    try:
        yield
    except (AssertionError, Unavailable, Undocumented):
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        raise AssertionError(
            f"{what} must work, got {type(error).__name__}: {said}"
        ) from error


def load(module: str) -> ModuleType:
    """An optional package's module, imported when a law first needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"needs {module}, which is not installed") from error


def leaves(tree: Any) -> dict[str, Any]:
    """Every leaf by its path, such as `mu/kernel`."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): x for k, x in paths}


def kind(x: Any) -> str:
    """Dtype and shape, such as `float32[6,4]`."""
    return f"{jnp.result_type(x)}[{','.join(map(str, jnp.shape(x)))}]"


def same_kinds(what: str, got: Any, want: Any) -> None:
    """Both trees have the same structure, and every leaf the same shape and dtype."""
    ours, due = leaves(got), leaves(want)
    for path in due:
        require(path in ours, f"{what} must have leaf {path!r}, got {list(ours)}")
    for path in ours:
        require(path in due, f"{what} must have no leaf {path!r}, but {list(due)}")
    require(
        jax.tree.structure(got) == jax.tree.structure(want),
        f"{what} must have structure {jax.tree.structure(want)}, "
        f"got {jax.tree.structure(got)}",
    )
    for path, x in ours.items():
        require(
            kind(x) == kind(due[path]),
            f"{what}, leaf {path!r}, must be {kind(due[path])}, got {kind(x)}",
        )


def same(what: str, got: Any, want: Any, tolerance: float = TOLERANCE) -> None:
    """Both trees are the same, every entry within `tolerance` times its leaf's largest."""
    same_kinds(what, got, want)
    due = leaves(want)
    for path, x in leaves(got).items():
        ours, theirs = numbers(x), numbers(due[path])
        plain = np.isfinite(ours) & np.isfinite(theirs)
        scale = np.max(np.abs(theirs), where=plain, initial=0)
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(ours - theirs) <= tolerance * scale)
        differs = np.where(plain, wrong, ~np.equal(ours, theirs))
        differs &= ~(np.isnan(ours) & np.isnan(theirs))
        if np.any(differs):
            at, where = _first(differs)
            raise AssertionError(
                f"{what}, leaf {path!r}{where}, must be {theirs[at]}, got {ours[at]}"
            )


def finite(what: str, tree: Any) -> None:
    """Every number in the tree is finite."""
    for path, x in leaves(tree).items():
        bad = ~np.isfinite(numbers(x))
        if np.any(bad):
            at, where = _first(bad)
            raise AssertionError(
                f"{what}, leaf {path!r}{where}, must be finite, got {numbers(x)[at]}"
            )


def numbers(x: Any) -> np.ndarray:
    """The leaf as NumPy numbers wide enough for all of its values."""
    if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    wide = np.complex128 if jnp.iscomplexobj(x) else np.float64
    return np.asarray(x).astype(wide)


def _first(where: np.ndarray) -> tuple[tuple[int, ...], str]:
    """The index of the first true entry, and how to write it."""
    at = tuple(int(i) for i in np.argwhere(where)[0])
    return at, f"[{','.join(map(str, at))}]" if at else ""
