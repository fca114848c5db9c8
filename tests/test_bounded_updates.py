"""No update of a preconditioner is many times the size that its docstring states.

Whether gradients are of few examples, new in direction, of any size, or fading; and what a leaf
costs does not grow with the square of its only long side.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import precondition as oracles

import gradkit as gk
from gradkit._core.matrix import kronecker

SHAMPOOS: dict[str, Callable[..., Any]] = {
    "shampoo": gk.precondition_by_shampoo,
    "one_sided": gk.precondition_by_one_sided_shampoo,
}
METHODS: dict[str, Callable[..., Any]] = {
    **SHAMPOOS,
    "kl_shampoo": gk.precondition_by_kl_shampoo,
    "psgd": gk.precondition_by_psgd,
    "inverse_free_kfac": gk.precondition_by_inverse_free_kfac,
}
MOST = 2.35  # of averages with 0.9 over roots of averages with 0.99


def stated(name: str, shape: tuple[int, int]) -> float:
    """The largest spectral norm of an update."""
    rows, cols = shape
    beside = 1.0101 * min(shape) ** (1 / 8)
    return {
        "shampoo": MOST * beside,
        "one_sided": MOST * beside,
        "kl_shampoo": 1.5 * max(shape) ** 0.5 * beside,
        "psgd": 2.001 * (rows * cols) ** 0.5,
    }[name]


def sizes(tx: Any, gs: Any) -> tuple[np.ndarray, Any]:
    """Spectral norms of the updates of gradients `[steps, rows, cols]`, and the last state."""

    @jax.jit
    def run(gs: jax.Array) -> Any:
        first = tx.init(gs[0])
        return jax.lax.scan(lambda s, g: tx.update(g, s, g)[::-1], first, gs)

    state, us = run(jnp.asarray(gs, jnp.float32))
    return np.linalg.norm(np.asarray(us, np.float64), 2, (1, 2)), state


def finite(t: Any) -> bool:
    return all(
        np.all(np.isfinite(x)) for x in jax.tree.leaves(t) if x.dtype == "float32"
    )


def layers(seed: int = 0) -> tuple[Any, Callable[..., Any], Any]:
    """Two layers of 64 that learn what two others do, from 512 examples."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    weights = lambda: {"hidden": draw(64, 64) / 8, "last": draw(64, 64) / 8}
    net = lambda p, x: jnp.tanh(x @ p["hidden"]) @ p["last"]
    x, teacher = draw(512, 64), weights()
    y = jnp.tanh(net(teacher, x))
    loss = lambda p, x, y: jnp.mean(jnp.square(net(p, x) - y))
    return weights(), loss, (x, y)


def factors() -> tuple[Any, Callable[..., Any], Any]:
    """Two low-rank factors of what is added to a matrix, the second zero."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    x, w, delta = draw(256, 32), draw(32, 32) / 6, draw(32, 4) @ draw(4, 32) / 12
    y = jnp.tanh(x @ (w + delta))
    seen = lambda p: w + p["lora_a"] @ p["lora_b"]
    loss = lambda p, x, y: jnp.mean(jnp.square(jnp.tanh(x @ seen(p)) - y))
    return {"lora_a": draw(32, 4) / 6, "lora_b": jnp.zeros((4, 32))}, loss, (x, y)


def train(tx: Any, task: Any, size: int | None, steps: int) -> tuple[Any, Any]:
    """Losses of all examples before and after, and the largest spectral norm of an update."""
    p, loss, data = task
    rng = np.random.default_rng(1)
    picks = [rng.choice(len(data[0]), size, replace=False) for _ in range(steps)]

    def step(carry: Any, pick: Any) -> Any:
        p, state = carry
        u, state = tx.update(jax.grad(loss)(p, *(x[pick] for x in data)), state, p)
        return (optax.apply_updates(p, u), state), u

    @jax.jit
    def run(p: Any) -> Any:
        (end, _), us = jax.lax.scan(step, (p, tx.init(p)), jnp.asarray(picks))
        return us, loss(p, *data), loss(end, *data)

    us, before, after = run(p)
    norms = [np.linalg.norm(np.asarray(u), 2, (1, 2)) for u in jax.tree.leaves(us)]
    return float(after / before), np.max(norms)


@pytest.mark.parametrize(
    "size",
    [
        8,
        pytest.param(4, marks=pytest.mark.slow),
        pytest.param(64, marks=pytest.mark.slow),
    ],
)
def test_shampoo_trains_on_few_examples_from_the_first_step(size: int) -> None:
    """The roots of the first gradients have not seen the directions of the next."""
    left, largest = train(gk.shampoo(0.02), layers(), size, 60)
    assert largest < 3 * 0.02, largest
    assert left < 0.75, left


def test_shampoo_trains_low_rank_factors() -> None:
    left, largest = train(gk.shampoo(0.02), factors(), 256, 100)
    assert largest < 3 * 0.02, largest
    assert left < 0.05, left


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("name", ["one_sided", "kl_shampoo"])
@pytest.mark.slow
def test_directions_train_on_few_examples(name: str, size: int) -> None:
    rate = 0.02 / (8 if name == "kl_shampoo" else 1)
    tx = optax.chain(METHODS[name](), optax.scale(-rate))
    left, largest = train(tx, layers(), size, 100)
    assert largest < rate * stated(name, (64, 64)), largest
    assert left < 0.75, left


@functools.cache
def late(new: float) -> np.ndarray:
    """Gradients with two directions, and at last the third, between two renewals."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (24, 16))
    gs = rng.normal(size=(68, 3, 3))
    gs[:63, 2], gs[:63, :, 2], gs[63:] = 0, 0, new * gs[63:]
    return u @ gs @ v.T


@pytest.mark.parametrize("new", [1.0, 1e6])
@pytest.mark.parametrize("name", [n for n in METHODS if n != "inverse_free_kfac"])
def test_a_new_direction_is_not_enlarged(name: str, new: float) -> None:
    found, state = sizes(METHODS[name](), late(new))
    assert found.max() < stated(name, (24, 16)), found
    assert finite(state)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_any_size_and_of_rank_one_make_bounded_updates(name: str) -> None:
    """Also of 1e-25, whose squares vanish, and after small ones huge."""
    rng = np.random.default_rng(0)
    g = rng.normal(size=(16, 1)) * rng.normal(size=12)
    tx, powers = METHODS[name](), [-25, -18, -17, -10, 0, 10, 17]
    gs = np.stack([[10.0**k * g] * 6 for k in powers])
    gs[:, 3:, 0] *= 1.5  # another direction, also of rank one
    runs = jax.jit(
        jax.vmap(
            lambda gs: jax.lax.scan(
                lambda s, g: tx.update(g, s)[::-1], tx.init(gs[0]), gs
            )
        )
    )
    states, us = runs(jnp.asarray(gs, jnp.float32))
    assert finite(states)
    found = np.linalg.norm(np.asarray(us, np.float64), 2, (2, 3))
    given = np.linalg.norm(gs, 2, (2, 3))
    if (
        name == "inverse_free_kfac"
    ):  # curvature of no gradient: it begins as the identity
        np.testing.assert_array_less(found, 1.1 * given)
    else:
        assert found.max() < stated(name, (16, 12)), found
    if name in SHAMPOOS:  # whatever the size, but for that of which nothing is seen
        np.testing.assert_allclose(found[2:, 2], 1.0, rtol=0.02)
        np.testing.assert_allclose(found[0], given[0], rtol=0.02)


def test_a_huge_gradient_after_small_ones_makes_a_bounded_update() -> None:
    gs = np.random.default_rng(0).normal(size=(24, 6, 5))
    gs[:21] *= 1e-12
    gs[21:] *= 1e25
    for name, make in METHODS.items():
        found, state = sizes(make(), gs)
        assert np.all(np.isfinite(found)) and finite(state), name
        if name != "inverse_free_kfac":
            assert found.max() < stated(name, (6, 5)), (name, found)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_that_fade_end_in_no_nan(name: str) -> None:
    """Averages vanish one by one: of the gradient, then of its square, then of all."""
    rng = np.random.default_rng(0)
    fading = np.geomspace(1, 1e-25, 50)[:, None, None]
    gs = fading * rng.normal(size=(50, 4, 1)) * rng.normal(size=3)  # of rank one
    tx = METHODS[name](
        **({} if name in ("psgd", "inverse_free_kfac") else {"decay": 0.5})
    )
    tail = np.zeros((200, 4, 3))
    found, state = sizes(tx, np.concatenate([gs, tail]))
    assert np.all(np.isfinite(found)) and finite(state)
    assert found[-1] < 1e-4 * found.max()


@pytest.mark.parametrize("name", SHAMPOOS)
def test_new_roots_are_never_limited(name: str, monkeypatch: Any) -> None:
    """With `every=1` the paper's updates to the last bit, on the gradients that need a limit."""
    rng = np.random.default_rng(0)
    few = rng.normal(size=(30, 24, 1)) * rng.normal(size=(30, 1, 16))
    gs, found = np.concatenate([few, late(1.0)]), []
    for slack in (kronecker.SLACK, np.inf):
        monkeypatch.setattr(kronecker, "SLACK", slack)
        found.append(sizes(SHAMPOOS[name](every=1), gs)[0])
    np.testing.assert_array_equal(*found)
    kept = sizes(SHAMPOOS[name](every=10), gs)[0]
    assert (
        kept.max() > 100
    )  # as long as without a limit, which this test has taken away


def test_what_kept_roots_enlarge_is_limited_as_stated() -> None:
    """As in exact arithmetic, where the limit acts and where powers add up to something else."""
    rng = np.random.default_rng(0)
    gs = [rng.normal(size=(6, 1)) * rng.normal(size=5) for _ in range(12)]
    for powers in ((0.25, 0.25), (0.1, 0.2), (0.4, 0.3)):
        hyper: dict[str, Any] = dict(zip(("rows_power", "cols_power"), powers))
        hyper |= {"b1": 0.9, "decay": 0.99, "damping": 1e-3, "every": 10, "max_size": 9}
        want = list(oracles.shampoo(gs, None, **hyper))
        with jax.enable_x64(True):
            tx = gk.precondition_by_shampoo(**hyper)
            update, state = jax.jit(tx.update), tx.init(jnp.zeros((6, 5)))
            for t, g in enumerate(gs):
                u, state = update(jnp.asarray(g), state)
                np.testing.assert_allclose(u, want[t], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "b1, decay", [(0.9, 0.99), (0.0, 0.9), (0.95, 0.95), (0.5, 0.3)]
)
def test_the_most_of_an_average(b1: float, decay: float) -> None:
    for t in (1, 2, 7, 40):
        got = kronecker.limit_of_ema(b1, decay, jnp.int32(t), jnp.float32)
        np.testing.assert_allclose(
            got, oracles.most_of_average(b1, decay, t), rtol=1e-4
        )
    assert kronecker.limit_of_ema(0.9, 0.8, jnp.int32(3), jnp.float32) == np.inf


@pytest.mark.parametrize("every", [1, 2, 3, 10, 64])
def test_roots_are_taken_often_at_first(every: int) -> None:
    due = [t for t in range(1, 131) if kronecker.roots_due(jnp.int32(t - 1), every)]
    assert due == [t for t in range(1, 131) if oracles.roots_due(t, every)]
    assert {1, 2, 4, 8} & {*range(1, every + 1)} <= {*due}


VECTORS = [(1, 9), (9, 1), (1, 1)]


@pytest.mark.parametrize("name", SHAMPOOS)
def test_a_vector_is_divided_by_the_root_of_its_average_square(name: str) -> None:
    """A matrix of one row or one column, as of one norm that is averaged; both powers on it."""
    rng = np.random.default_rng(0)
    gs = [{str(s): rng.normal(size=s) for s in VECTORS} for _ in range(5)]
    b1, decay = 0.9, 0.99
    mu: dict[str, Any] = dict.fromkeys(gs[0], 0.0)
    nu: dict[str, Any] = dict.fromkeys(gs[0], 0.0)
    with jax.enable_x64(True):
        tx = SHAMPOOS[name](every=1, damping=0.0)
        state, update = tx.init(jax.tree.map(jnp.asarray, gs[0])), jax.jit(tx.update)
        for t, g in enumerate(gs, 1):
            u, state = update(jax.tree.map(jnp.asarray, g), state)
            for k, x in g.items():
                mu[k] = b1 * mu[k] + (1 - b1) * x
                nu[k] = decay * nu[k] + (1 - decay) * np.sum(x**2)
                want = mu[k] / (1 - b1**t) / np.sqrt(nu[k] / (1 - decay**t))
                np.testing.assert_allclose(u[k], want, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_no_state_grows_with_the_square_of_a_long_side(name: str) -> None:
    """A table of 50,304 rows, and vectors that are written as matrices."""
    for shape in [(1, 8192), (8192, 1), (2, 1, 8192), (50304, 768), (768, 50304)]:
        tx = METHODS[name](batch_axes=(0,) if len(shape) == 3 else ())
        state = jax.eval_shape(tx.init, jax.ShapeDtypeStruct(shape, jnp.float32))
        held = sum(x.size for x in jax.tree.leaves(state))
        size, side = np.prod(shape), min(shape[-2:])
        assert held <= size + 2 * (50304 + side) + 2 * side**2 + 20, (shape, held)


@pytest.mark.parametrize("name", METHODS)
def test_a_side_over_max_size_is_left_as_it_is(name: str) -> None:
    """Where both are, the update is the average gradient, and nothing is kept beside it."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)), jnp.float32)
    tx = METHODS[name](max_size=2)
    state, update = tx.init(g), jax.jit(tx.update)
    held = sum(x.size for x in jax.tree.leaves(state))
    assert held <= g.size + 2 * (7 + 3) + 8
    for _ in range(3):
        u, state = update(g, state)
        if name not in ("psgd", "kl_shampoo"):  # diagonals there; and no debiasing
            np.testing.assert_allclose(u, g, rtol=1e-5)


def test_kl_shampoo_is_the_papers_where_every_update_turns() -> None:
    """Also where its limit would be met, as in the first updates of large gradients."""
    gs = 10 * np.random.default_rng(0).normal(size=(6, 6, 5))
    paper = gk.precondition_by_kl_shampoo(every=1, max_norm=jnp.inf)
    (got, _), (want, _) = (
        sizes(tx, gs) for tx in (gk.precondition_by_kl_shampoo(every=1), paper)
    )
    np.testing.assert_array_equal(got, want)
    assert sizes(gk.precondition_by_kl_shampoo(), gs)[0].max() < 0.5 * want.max()
