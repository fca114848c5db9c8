"""What clips and normalizers promise, each promise a named property with a definition.

A property sees one update as `apply(g) -> u`, the method's state and parameters held still.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

Tree = dict[str, Any]
Transform = optax.GradientTransformationExtraArgs
SHAPES = {
    "kernel": (6, 4),
    "conv": (2, 3, 5),
    "embedding": (5, 3),
    "bias": (4,),
    "gain": (),
    "none": (0, 3),
}
SCALES = [1e-20, 1e-10, 1e10, 1e20]
SLACK = 32 * float(jnp.finfo(jnp.float32).eps)

CLIPS: dict[str, Callable[[], Transform]] = {
    "clip_by_global_norm": gk.clip_by_global_norm,
    "clip_by_component_norm": gk.clip_by_component_norm,
    "clip_by_unit_norm": functools.partial(gk.clip_by_unit_norm, 0.3),
    "clip_by_percentile": functools.partial(gk.clip_by_percentile, 40.0, history=4),
    "clip_by_zscore": functools.partial(gk.clip_by_zscore, 0.5, warmup=3, eps=0.0),
    "clip_by_ema_norm": functools.partial(gk.clip_by_ema_norm, warmup=3),
}
NORMALIZERS: dict[str, Callable[[], Transform]] = {
    "normalize_by_block": gk.normalize_by_block,
    "normalize_by_dual_norm": gk.normalize_by_dual_norm,
    "normalize_by_orthograd": gk.normalize_by_orthograd,
}
ALL = CLIPS | NORMALIZERS
TREE_WIDE = ["global_norm", "percentile", "zscore", "ema_norm"]


class Step(NamedTuple):
    """One update of a run: what went in, what came out."""

    g: Tree
    p: Tree
    state: Any
    u: Tree
    new: Any
    apply: Callable[[Tree], Tree]


@functools.cache
def compiled(name: str) -> tuple[Transform, Callable[..., Any]]:
    tx = ALL[name]()
    return tx, jax.jit(tx.update)


def draw(rng: np.random.Generator, scale: float) -> Tree:
    sizes = {k: scale * rng.normal(size=s) for k, s in SHAPES.items()}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), sizes)


def run(name: str, scale: float = 1.0, steps: int = 6) -> Iterator[Step]:
    """A run of a method on random gradients, the fourth ten times as long as the others."""
    rng = np.random.default_rng(0)
    tx, update = compiled(name)
    state = tx.init(draw(rng, 1.0))
    for t in range(steps):
        g, p = draw(rng, 10 * scale if t == 3 else scale), draw(rng, 1.0)
        apply = lambda x, s=state, p=p: update(x, s, p)[0]
        u, new = update(g, state, p)
        yield Step(g, p, state, u, new, apply)
        state = new


def norm(x: Any, axis: Any = None) -> Any:
    """The Euclidean norm in float64."""
    return np.sqrt(np.sum(np.asarray(x, np.float64) ** 2, axis=axis))


def whole(t: Tree) -> float:
    """The norm of a tree as one vector, in float64."""
    return float(norm([norm(x) for x in t.values()]))


def times(s: float, t: Tree) -> Tree:
    return {k: jnp.float32(s) * x for k, x in t.items()}


def assert_close(a: Tree, b: Tree) -> None:
    """Equal up to a few units in the last place of each leaf's largest entry."""
    for k in a:
        x, y = np.asarray(a[k], np.float64), np.asarray(b[k], np.float64)
        most = np.max(np.abs(y), initial=0)
        np.testing.assert_allclose(x, y, rtol=SLACK, atol=SLACK * most, err_msg=k)


def bounded_norm(norms: Any, bounds: Any) -> None:
    """No norm exceeds its bound by more than rounding."""
    norms, bounds = np.broadcast_arrays(np.asarray(norms), np.asarray(bounds))
    assert np.all(norms <= bounds * (1 + SLACK)), (norms, bounds)


def idempotent(apply: Callable[[Tree], Tree], g: Tree) -> None:
    """A second application changes nothing."""
    assert_close(apply(apply(g)), apply(g))


def scale_invariant(apply: Callable[[Tree], Tree], g: Tree) -> None:
    """The direction is the same whatever the size of the gradient."""
    for s in SCALES:
        assert_close(apply(times(s, g)), apply(g))


def scale_equivariant(apply: Callable[[Tree], Tree], g: Tree) -> None:
    """A gradient `s` times as large gives a direction `s` times as large."""
    for s in SCALES:
        assert_close(apply(times(s, g)), times(s, apply(g)))


def aligned(apply: Callable[[Tree], Tree], g: Tree) -> None:
    """No leaf is turned against its gradient: the inner product is at least zero."""
    u = apply(g)
    for k in g:
        x, y = np.asarray(u[k], np.float64), np.asarray(g[k], np.float64)
        assert np.sum(x * y) >= -SLACK * norm(x) * norm(y), k


def shortening(apply: Callable[[Tree], Tree], g: Tree) -> None:
    """No entry grows or changes its sign."""
    u = apply(g)
    for k in g:
        x, y = np.asarray(u[k], np.float64), np.asarray(g[k], np.float64)
        assert np.all(np.sign(x) == np.sign(y)), k
        assert np.all(np.abs(x) <= np.abs(y) * (1 + SLACK)), k


def orthogonal(u: Tree, w: Tree) -> None:
    """No leaf has a part along the other tree's."""
    for k in u:
        x, y = np.asarray(u[k], np.float64), np.asarray(w[k], np.float64)
        assert np.abs(np.sum(x * y)) <= SLACK * norm(x) * norm(y), k


def bound(name: str, at: Step) -> tuple[Any, Any]:
    """The norms a clip promises to bound, and their bounds."""
    if name == "clip_by_global_norm":
        return whole(at.u), 1.0
    if name == "clip_by_component_norm":
        return [norm(x) for x in at.u.values()], 1.0
    if name == "clip_by_percentile":
        seen = at.new.norms[: int(at.new.seen)]
        return whole(at.u), np.percentile(np.asarray(seen, np.float64), 40.0)
    if name == "clip_by_zscore":
        warm = at.state.seen < 3
        return whole(at.u), np.inf if warm else at.state.mean + at.state.deviation / 2
    if name == "clip_by_ema_norm":
        if at.state.count < 2:
            return whole(at.u), 1.0
        return [norm(at.u[k]) for k in sorted(at.u)], 1.05 * at.state.norms
    norms = [np.ravel(unit_norms(x)) for x in at.u.values()]
    bounds = [np.ravel(0.3 * np.maximum(unit_norms(at.p[k]), 1e-3)) for k in at.u]
    return np.concatenate(norms), np.concatenate(bounds)


def unit_norms(x: Any) -> Any:
    """The norms over all axes but the last; a vector or scalar has one."""
    return norm(x, tuple(range(x.ndim - 1)) if x.ndim > 1 else None)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_bounded(name: str, scale: float) -> None:
    for at in run(name, scale):
        bounded_norm(*bound(name, at))


@pytest.mark.parametrize("name", CLIPS)
def test_clips_clip(name: str) -> None:
    """The spike of a run is shortened, so that the other tests see a clip at work."""
    spike = list(run(name))[3]
    assert whole(spike.u) < 0.9 * whole(spike.g)


@pytest.mark.parametrize(
    "name", sorted({*ALL} - {"clip_by_percentile", "normalize_by_dual_norm"})
)
def test_most_are_idempotent(name: str) -> None:
    """The percentile counts the norm it clips, and Newton-Schulz moves what is near 1."""
    for at in run(name):
        idempotent(at.apply, at.g)


@pytest.mark.parametrize("name", ALL)
def test_all_are_aligned(name: str) -> None:
    for at in run(name):
        aligned(at.apply, at.g)


@pytest.mark.parametrize("name", CLIPS)
def test_clips_shorten(name: str) -> None:
    for at in run(name):
        shortening(at.apply, at.g)


@pytest.mark.parametrize("name", ["normalize_by_block", "normalize_by_dual_norm"])
def test_normalizers_are_scale_invariant(name: str) -> None:
    for at in run(name, steps=2):
        scale_invariant(at.apply, at.g)


def test_orthograd_is_scale_equivariant() -> None:
    for at in run("normalize_by_orthograd", steps=2):
        scale_equivariant(at.apply, at.g)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["clip_by_percentile", "clip_by_zscore"])
def test_relative_clips_are_scale_equivariant(name: str, scale: float) -> None:
    """A whole run of gradients `s` times as large gives directions `s` times as large."""
    for plain, scaled in zip(run(name), run(name, scale)):
        assert_close(scaled.u, times(scale, plain.u))


def test_blocks_have_unit_norm() -> None:
    for at in run("normalize_by_block"):
        norms = [norm(x) for x in at.u.values() if x.size]
        np.testing.assert_allclose(norms, 1, rtol=SLACK)


def test_duals_have_unit_norm() -> None:
    """Each leaf in the norm of its role; the matrix engine's singular values are near 1."""
    for at in run("normalize_by_dual_norm"):
        assert jnp.all(jnp.abs(at.u["bias"]) == 1) and jnp.abs(at.u["gain"]) == 1
        rows = jnp.sqrt(jnp.mean(jnp.square(at.u["embedding"]), axis=1))
        np.testing.assert_allclose(rows, 1, rtol=SLACK)
        for k in ("kernel", "conv"):
            matrix = np.asarray(at.u[k], np.float64).reshape(6, -1)
            values = np.linalg.svd(matrix * np.sqrt(6 / matrix.shape[1]))[1]
            assert np.all((values > 0.6) & (values < 1.3)), values


@pytest.mark.parametrize("share", [1.0, 1e-1, 1e-3])
def test_orthograd_is_orthogonal_and_keeps_the_norm(share: float) -> None:
    """Also where all but a `share` of the gradient is along the parameters."""
    _, update = compiled("normalize_by_orthograd")
    for at in run("normalize_by_orthograd"):
        g = {k: at.p[k] + share * at.g[k] for k in at.g}
        u, _ = update(g, at.state, at.p)
        orthogonal(u, at.p)
        for k in ("kernel", "conv", "bias"):
            np.testing.assert_allclose(norm(u[k]), norm(g[k]), rtol=SLACK)


def test_orthograd_of_parallel_is_zero_and_of_no_parameter_is_identity() -> None:
    _, update = compiled("normalize_by_orthograd")
    w = draw(np.random.default_rng(1), 1.0)
    none, _ = update(times(-3e10, w), optax.EmptyState(), w)
    assert all(not jnp.any(x) for x in none.values())
    turned, _ = update(draw(np.random.default_rng(4), 1.0), optax.EmptyState(), w)
    assert turned["gain"] == 0 and jnp.all(turned["bias"] != 0)  # one entry is parallel
    same, _ = update(w, optax.EmptyState(), times(0.0, w))
    assert_close(same, w)


@pytest.mark.parametrize("name", TREE_WIDE)
def test_groups_share_a_norm(name: str) -> None:
    """Two halves, each told the norm of the whole, are clipped as the whole is."""
    name = f"clip_by_{name}"
    tx, update = compiled(name)
    groups = [("kernel", "gain"), ("conv", "bias", "none")]
    part = lambda t, keys: {k: t[k] for k in keys}
    states: list[Any] = [None, None]
    for at in run(name):
        shared = jnp.float32(whole(at.g))
        for i, keys in enumerate(groups):
            p, g = part(at.p, keys), part(at.g, keys)
            state = states[i] if states[i] is not None else tx.init(p)
            u, states[i] = update(g, state, p, global_norm=shared)
            assert_close(u, part(at.u, keys))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", TREE_WIDE)
def test_a_bad_step_is_forgotten(name: str, bad: float) -> None:
    """A gradient without a finite entry gives zero and leaves what is remembered alone.

    Neither does a shared norm that is not finite matter.
    """
    name = f"clip_by_{name}"
    _, update = compiled(name)
    at = list(run(name))[-1]
    lost = {k: jnp.full_like(x, bad) for k, x in at.g.items()}
    u, new = update(lost, at.state, at.p)
    assert all(not jnp.any(x) for x in u.values())
    told, kept = update(at.g, at.state, at.p, global_norm=jnp.float32(bad))
    assert_close(told, at.u)
    jax.tree.map(np.testing.assert_array_equal, kept, at.new)
    for field in {"norms", "mean", "deviation"} & set(getattr(new, "_fields", ())):
        np.testing.assert_array_equal(getattr(new, field), getattr(at.state, field))


def test_a_leaf_that_starts_at_zero_is_not_frozen() -> None:
    """Under `clip_by_ema_norm`, whose paper would clip it to zero for ever."""
    tx = gk.clip_by_ema_norm(warmup=2)
    state = tx.init(jnp.zeros(3))
    for _ in range(4):
        _, state = tx.update(jnp.zeros(3), state)
    u, _ = tx.update(jnp.full(3, 0.1), state)
    assert jnp.all(u == jnp.float32(0.1))


@pytest.mark.parametrize("entry", [1e-45, 1e-38, 1e38, 3.4e38])
@pytest.mark.parametrize("name", ALL)
def test_the_ends_of_float32_are_finite(name: str, entry: float) -> None:
    """Where a norm, or a reciprocal of it, is no longer a normal number."""
    tx, update = compiled(name)
    g = {k: jnp.full(s, entry, jnp.float32) for k, s in SHAPES.items()}
    p = draw(np.random.default_rng(2), 1.0)
    state = tx.init(p)
    for _ in range(4):
        u, state = update(g, state, p)
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((u, state)))


@pytest.mark.parametrize(
    "law,breaker",
    [
        (idempotent, lambda t: times(0.5, t)),
        (scale_invariant, lambda t: t),
        (scale_equivariant, lambda t: jax.tree.map(jnp.sign, t)),
        (aligned, lambda t: times(-1.0, t)),
        (shortening, lambda t: times(1.001, t)),
    ],
)
def test_every_law_can_fail(law: Callable[..., None], breaker: Any) -> None:
    with pytest.raises(AssertionError):
        law(breaker, draw(np.random.default_rng(3), 1.0))
