"""What the tests know of a method: the paper's algorithm in NumPy, and recorded trajectories.

Files in `oracles/` register both, one file a family:

    @entry("scale_by_adam", b1=0.9, b2=0.99, eps=1e-3)
    def adam(gs, ps, b1, b2, eps):       # one leaf: gs and ps are lists of arrays
        ...
        yield direction                  # what update returns at this step

    golden("adam", lambda: gk.adamw(1e-2, b2=0.99, weight_decay=0.0))
"""

import functools
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit
from gradkit.catalogue import METHODS

SHAPES = {"kernel": (6, 4), "wide": (3, 5), "bias": (4,), "scale": ()}
MADE = {m.name for m in METHODS if m.family == "recipe"} | {  # of parts under test:
    "project_by_dct",  # these of `subspace.project`, as is `project_by_svd`
    "project_by_fira",
    "project_by_grass_jump",
    "project_by_grass_walk",
    "project_by_power_iteration",
    "project_by_random",
    "project_by_range_finder",
    "project_by_subspace_momentum",
    "store_by_bfloat16",  # these of one wrapper, as is `store_by_int8`
    "store_by_bfloat16_plus8",
    "store_by_fp8",
}
# One recipe of every mechanism: what is not of one method's own is tried on these by `make test`,
# on all by `make check-full`.
REPRESENTATIVE = {
    "adamw", "apollo", "dion", "galore", "hspg", "lamb", "lawn", "lion", "muon", "novograd",
    "sgd", "stable_spam", "zclip_adamw",
}  # fmt: skip
ENTRIES: dict[str, "Entry"] = {}
GOLDEN: dict[str, "Golden"] = {}


class Entry(NamedTuple):
    """One method under test."""

    name: str
    oracle: Callable[..., Any]
    hyper: Mapping[
        str, Any
    ]  # passed to factory and oracle; every number is moved by 10 %
    fixed: Mapping[str, Any]  # passed to the factory alone, such as `inner`
    whole: bool  # the oracle sees {name: array} at every step, not one leaf
    shapes: Mapping[str, tuple[int, ...]]
    xfail: Mapping[str, str]  # law -> why it cannot hold
    extra: Callable[[Any], Mapping[str, Any]] | None = None  # of the gradients
    narrow: bool = False  # its parameters are in bfloat16
    args: tuple[Any, ...] = ()  # passed to the factory alone, by position

    @property
    def factory(self) -> Callable[..., optax.GradientTransformationExtraArgs]:
        """The public factory with this entry's arguments, as this entry supplies it."""
        if self.narrow:
            make = in_bfloat16(getattr(gradkit, self.name))
            return functools.partial(make, *self.args, **self.fixed, **self.hyper)
        if self.extra is None:
            return self.bare
        make = supplied(getattr(gradkit, self.name), self.extra)
        return functools.partial(make, *self.args, **self.fixed, **self.hyper)

    @property
    def bare(self) -> Callable[..., optax.GradientTransformationExtraArgs]:
        """The public factory with this entry's arguments."""
        make = getattr(gradkit, self.name)
        return functools.partial(make, *self.args, **self.fixed, **self.hyper)


class Golden(NamedTuple):
    """One recorded trajectory under replay."""

    file: str
    make: Callable[[], Any]
    transpose: bool  # recorded in [out, in] layout, ours is [in, out]
    steps: int | None  # comparable steps, None for all
    tolerance: float


def entry(
    name: str,
    *,
    whole: bool = False,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    fixed: Mapping[str, Any] | None = None,
    xfail: Mapping[str, str] | None = None,
    extra: Callable[[Any], Mapping[str, Any]] | None = None,
    narrow: bool = False,
    args: tuple[Any, ...] = (),
    **hyper: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated oracle under a catalogue name."""

    def register(oracle: Callable[..., Any]) -> Callable[..., Any]:
        assert name not in ENTRIES, f"two test entries for {name}"
        ENTRIES[name] = Entry(
            name,
            oracle,
            hyper,
            fixed or {},
            whole,
            shapes,
            xfail or {},
            extra,
            narrow,
            args,
        )
        return oracle

    return register


def supplied(
    make: Callable[..., Any], extra: Callable[[Any], Mapping[str, Any]]
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """`make`, whose transform is given `extra(gradients)` besides at every update."""

    @functools.wraps(make)
    def factory(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        tx = make(*args, **kwargs)

        def update(updates: Any, state: Any, params: Any = None, **others: Any) -> Any:
            return tx.update(updates, state, params, **extra(updates), **others)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    return factory


def in_bfloat16(
    make: Callable[..., Any],
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """`make`, whose transform is given parameters in bfloat16."""

    def narrow(x: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
        return x.astype(jnp.bfloat16)

    @functools.wraps(make)
    def factory(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        tx = make(*args, **kwargs)

        def init(params: Any) -> Any:
            return tx.init(jax.tree.map(narrow, params))

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            return tx.update(updates, state, jax.tree.map(narrow, params), **extra)

        return optax.GradientTransformationExtraArgs(init, update)

    return factory


def golden(
    file: str,
    make: Callable[[], Any],
    *,
    transpose: bool = False,
    steps: int | None = None,
    tolerance: float = 1e-7,
) -> None:
    """Replay `tests/golden/<file>.npz` through `make()`."""
    assert file not in GOLDEN, f"two replays of {file}"
    GOLDEN[file] = Golden(file, make, transpose, steps, tolerance)


def stream(entry: Entry, steps: int = 12) -> tuple[list[Any], list[Any]]:
    """Gradients and parameters for `steps` updates, float64, the same on every call."""
    rng = np.random.default_rng(0)
    draw = lambda: {k: rng.normal(size=s) for k, s in entry.shapes.items()}
    return [draw() for _ in range(steps)], [draw() for _ in range(steps)]


def follow(entry: Entry) -> list[dict[str, np.ndarray]]:
    """What the paper's algorithm does on `stream`: one dict of leaves a step."""
    gs, ps = stream(entry)
    if entry.whole:
        return list(entry.oracle(gs, ps, **entry.hyper))
    runs = {
        k: list(entry.oracle([g[k] for g in gs], [p[k] for p in ps], **entry.hyper))
        for k in entry.shapes
    }
    return [{k: run[t] for k, run in runs.items()} for t in range(len(gs))]


for _path in sorted((pathlib.Path(__file__).parent / "oracles").glob("[!_]*.py")):
    importlib.import_module(f"oracles.{_path.stem}")
