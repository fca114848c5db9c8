"""What preconditioners promise: they turn with their matrix, and flat directions are no longer slow."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit._transform.precondition.psgd import of_triangles

Transform = optax.GradientTransformationExtraArgs
SIDES = {"square": (5, 5), "fat": (4, 7), "thin": (7, 4)}

METHODS: dict[str, Callable[..., Transform]] = {
    "shampoo": functools.partial(gk.precondition_by_shampoo, damping=1e-3, every=2),
    "one_sided": functools.partial(
        gk.precondition_by_one_sided_shampoo, damping=1e-3, every=2
    ),
    "soap": functools.partial(gk.precondition_by_soap, every=2),
    "kl_shampoo": functools.partial(gk.precondition_by_kl_shampoo, every=2),
    "inverse_free_kfac": functools.partial(
        gk.precondition_by_inverse_free_kfac, fit_rate=0.1, every=2
    ),
    "psgd": functools.partial(gk.precondition_by_psgd, fit_probability=1.0),
}
TURNING = [name for name in METHODS if name != "psgd"]  # its triangles have an order


@functools.cache
def made(name: str) -> Transform:
    """The method, whose update is traced once for all that give it the same shapes."""
    return METHODS[name]()


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s)) for s in shapes]


def rotation(n: int, seed: int) -> jax.Array:
    return jnp.linalg.qr(draw((n, n), seed=seed)[0])[0]


def steps(tx: Transform, gs: list[Any], probes: list[Any] | None = None) -> list[Any]:
    """What a transform makes of gradients, one after the other."""
    update, state, us = jax.jit(tx.update), tx.init(gs[0]), []
    for g, v in zip(gs, probes or itertools.repeat(None)):
        extra = {} if v is None else {"probe": v}
        u, state = update(g, state, **extra)
        us.append(u)
    return us


def close(got: Any, want: Any, tolerance: float = 1e-6) -> None:
    found, wanted = map(jax.tree_util.tree_leaves_with_path, (got, want))
    for (path, a), (_, b) in zip(found, wanted, strict=True):
        scale = np.max(np.abs(b), initial=1e-30)
        leaf = f"leaf {jax.tree_util.keystr(path)}"
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=leaf)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def sides_of(name):
    return {"square": (5, 5)} if name in ("soap", "kl_shampoo") else SIDES


def stream(sides, seed=0):
    """Five steps of random gradients, a tree of leaves with these sides."""
    return [dict(zip(sides, draw(*sides.values(), seed=t + seed))) for t in range(5)]


@pytest.mark.parametrize("name", TURNING)
def test_directions_turn_with_their_matrix(name) -> None:
    """Another orthonormal basis of inputs and outputs is seen as the same problem.

    SOAP and KL-Shampoo take bases from the first gradient: it has full rank here on one side
    only, and in the null space of the other their bases are arbitrary, so both are square.
    """
    gs = stream(sides_of(name))
    turn = lambda xs: [
        {
            k: rotation(x.shape[0], 11) @ x @ rotation(x.shape[1], 12)
            for k, x in t.items()
        }
        for t in xs
    ]
    close(steps(made(name), turn(gs)), turn(steps(made(name), gs)))


@pytest.mark.parametrize("name", METHODS)
def test_a_transposed_matrix_gets_the_transposed_direction(name) -> None:
    """In torch's layout as in ours, PSGD's noise turned along; bases as above."""
    sides = sides_of(name)
    if name == "one_sided":
        sides = {**sides, "square": (4, 6)}  # else no side is the small one
    gs, vs = stream(sides), stream(sides, 20)
    probes = name == "psgd"
    plain = steps(made(name), gs, vs if probes else None)
    turn = lambda xs: jax.tree.map(jnp.transpose, xs)
    turned = steps(made(name), turn(gs), turn(vs) if probes else None)
    close(turned, turn(plain))


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_leaves_does_not_matter(name) -> None:
    shapes = [(5, 5), (4, 4), (5, 5)]
    gs, vs = ([draw(*shapes, seed=t + s) for t in range(4)] for s in (0, 20))
    probes = name == "psgd"
    plain = steps(made(name), gs, vs if probes else None)
    turn = lambda xs: [x[::-1] for x in xs]
    turned = steps(made(name), turn(gs), turn(vs) if probes else None)
    close(turned, turn(plain))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", METHODS)
def test_batch_axes_are_matrices_of_their_own(name, axis) -> None:
    layers = [(5, 5)] * 3
    gs, vs = ([draw(*layers, seed=t + s) for t in range(4)] for s in (0, 20))
    probes = name == "psgd"
    apart = steps(made(name), gs, vs if probes else None)
    stack = lambda xs: [jnp.stack(x, axis) for x in xs]
    tx = METHODS[name](batch_axes=(axis,))
    together = steps(tx, stack(gs), stack(vs) if probes else None)
    close(together, stack(apart))


@pytest.mark.parametrize("name", ["shampoo", "one_sided", "soap"])
def test_the_size_of_gradients_does_not_matter(name) -> None:
    gs = [draw((5, 5), seed=t)[0] for t in range(4)]
    tx = METHODS[name](**({"eps": 0.0} if name == "soap" else {}))
    for scale in (1e-9, 1e9):
        close(steps(tx, [scale * g for g in gs]), steps(tx, gs), 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_huge_and_tiny_gradients_end_finite_after_the_first_step_too(name) -> None:
    """In float32, also where the first step is none."""
    good = [x.astype(jnp.float32) for x in draw((6, 6), (6, 6), (6, 6), seed=3)]
    tx = made(name)
    for size in (1e-30, 1e25, np.inf, np.nan):
        bad = good[0].at[1, 2].set(size) if size > 1 else good[0] * jnp.float32(size)
        state = tx.init(good[0])
        for g in (good[0], bad, good[1], good[2]):
            u, state = jax.jit(tx.update)(g, state)
            assert u.dtype == jnp.float32
            for x in jax.tree.leaves((u, state)):
                assert np.all(np.isfinite(np.asarray(x, np.float64))), size


@pytest.mark.parametrize("name", ["shampoo", "one_sided", "soap", "kl_shampoo"])
def test_roots_and_bases_change_when_due_and_not_before(name) -> None:
    tx = METHODS[name](every=3)
    update, state, seen = jax.jit(tx.update), tx.init(jnp.zeros((4, 4))), []
    for t in range(8):
        _, state = update(draw((4, 4), seed=t)[0], state)
        kept = state.roots if hasattr(state, "roots") else state.bases
        seen.append(jax.tree.leaves(kept)[0])
    changed = [bool(jnp.any(a != b)) for a, b in itertools.pairwise(seen)]
    later = name in ("soap", "kl_shampoo")  # by the update after the one that is due
    due = [True, False, False, True, False, False, True]
    doubled = [True, False, True, False, False, True, False]  # at updates 2, 4, 7
    assert changed == (due if later else doubled)


def test_soap_is_adam_where_it_has_no_basis() -> None:
    """One step late, with eps added before debiasing as in the release."""
    gs = [draw((4, 6), (5,), ()) for _ in range(5)]
    us = steps(gk.precondition_by_soap(eps=0.0, max_size=3), gs)
    adam = steps(gk.scale_by_adam(0.95, b2=0.95, eps=0.0), gs[1:])
    close(us, [jax.tree.map(jnp.zeros_like, gs[0]), *adam])


def test_kl_eigenvalues_have_a_floor() -> None:
    tx = gk.precondition_by_kl_shampoo(decay=0.1)
    update, state = jax.jit(tx.update), tx.init(jnp.zeros((30, 12)))
    for t in range(9):
        g = draw((30, 12))[0] if t == 0 else jnp.zeros((30, 12))
        _, state = update(g, state)
    np.testing.assert_allclose(state.values.rows, 30.0**-2)
    np.testing.assert_allclose(state.values.cols, 12.0**-2)


@pytest.mark.parametrize("sides", [(6, 6), (4, 9)])
def test_psgd_makes_gradients_white(sides) -> None:
    """Gradients of covariance `L (x) R` come out with about unit covariance on each side."""
    rng = np.random.default_rng(0)
    skew = [
        np.linalg.qr(rng.normal(size=(n, n)))[0] * np.geomspace(1, 30, n) for n in sides
    ]
    tx = gk.precondition_by_psgd(
        b1=0.0, fit_probability=1.0, fit_rate=0.05, max_rms=1e9, max_entry=1e9
    )
    gs = skew[0] @ rng.normal(size=(3000, *sides)) @ skew[1].T
    _, us = jax.lax.scan(
        lambda s, g: tx.update(g, s)[::-1], tx.init(gs[0]), jnp.asarray(gs)
    )
    late = np.asarray(us[1000:])
    for side in (0, 1):
        x = late if side == 0 else late.swapaxes(1, 2)
        values = np.linalg.eigvalsh(np.mean(x @ x.swapaxes(1, 2), 0) / x.shape[2])
        assert values[-1] / values[0] < 4 and 0.5 < np.mean(values) < 2, values
        raw = gs if side == 0 else gs.swapaxes(1, 2)
        before = np.linalg.eigvalsh(np.mean(raw @ raw.swapaxes(1, 2), 0))
        assert before[-1] / before[0] > 500


@pytest.mark.parametrize("n", [1, 511, 512, 1025])
def test_triangles_are_multiplied_as_matrices_are(n) -> None:
    a, b = (jnp.triu(x) for x in draw((2, n, n), (2, n, n)))
    close(of_triangles(a, b), a @ b, 1e-12)


def test_psgd_keeps_what_its_factors_do() -> None:
    """`Q^T Q` as the factors are after any number of fits, diagonals too."""
    g = draw((5, 9), (6,))
    tx = gk.precondition_by_psgd(fit_probability=0.7, max_size=8)
    state = tx.init(g)
    for _ in range(6):
        _, state = jax.jit(tx.update)(g, state)
    factors, grams = map(jax.tree.leaves, (state.factors, state.grams))
    assert sorted(q.shape for q in factors) == [(5, 5), (6,), (9,)]
    for q, gram in zip(factors, grams, strict=True):
        close(gram, q.T @ q if q.ndim == 2 else q * q, 1e-12)


def sensing(condition: float, tx: Transform, rate: float, count: int) -> list[float]:
    """Relative errors of a rank-3 matrix found from 800 random views, as `X X^T`."""
    rng = np.random.default_rng(0)
    n, rank, views = 16, 3, 800
    basis = np.linalg.qr(rng.normal(size=(n, rank)))[0]
    target = jnp.asarray((basis * np.geomspace(1, 1 / condition, rank)) @ basis.T)
    a = rng.normal(size=(views, n, n))
    a = jnp.asarray((a + a.swapaxes(1, 2)) / 2)

    def loss(x: jax.Array) -> jax.Array:
        seen = jnp.einsum("vij,ij->v", a, x @ x.T - target)
        return jnp.sum(jnp.square(seen)) / (4 * views)

    def step(carry: Any, _: None) -> Any:
        x, state = carry
        u, state = tx.update(jax.grad(loss)(x), state, x)
        x = x - rate * u
        return (x, state), jnp.linalg.norm(x @ x.T - target) / jnp.linalg.norm(target)

    x = 1e-3 * jnp.asarray(rng.normal(size=(n, rank)))
    _, errors = jax.lax.scan(step, (x, tx.init(x)), length=count)
    return [float(e) for e in errors]


def test_paired_factors_forget_the_condition_number() -> None:
    """A linear rate that does not depend on it; gradient descent stays where it is."""
    rates = {}
    for condition in (10.0, 1000.0):
        tx = gk.precondition_by_paired_factors(
            {r".*": r"\g<0>"}, damping=0.1 / condition
        )
        errors = sensing(condition, tx, 0.3, 120)
        assert errors[-1] < 1e-9, errors[-1]
        late = [e for e in errors if e < 0.1 / condition]
        rates[condition] = (late[-1] / late[0]) ** (1 / (len(late) - 1))
        plain = [sensing(condition, optax.identity(), r, 120)[-1] for r in (0.3, 0.6)]
        assert min(plain) > 1e-3, plain
    assert rates[10.0] < 0.85 and abs(rates[1000.0] - rates[10.0]) < 0.03, rates


def skew(seed: int) -> jax.Array:
    """Inputs or outputs whose covariance has condition 1e4."""
    q = rotation(12, seed)
    return q @ jnp.diag(jnp.geomspace(1, 1e-2, 12)) @ q.T


def least_squares(make: Callable[[], Any], rates: list[float], **extra: Any) -> float:
    """The share of the loss left, at the best rate, where both sides are ill-conditioned."""
    left, right, count = skew(1), skew(2), 150
    target = draw((12, 12), seed=3)[0]
    loss = lambda w: jnp.sum(jnp.square(left @ (w - target) @ right)) / 2

    def end(rate: jax.Array) -> jax.Array:
        tx, w = make(), jnp.zeros((12, 12))

        def step(carry: Any, t: jax.Array) -> Any:
            w, state = carry
            u, state = tx.update(jax.grad(loss)(w), state, w, **extra)
            return (w - rate * (1 - t / count) * u, state), None

        (w, _), _ = jax.lax.scan(step, (w, tx.init(w)), jnp.arange(count))
        return loss(w) / loss(jnp.zeros((12, 12)))

    ends = jax.jit(jax.vmap(end))(jnp.asarray(rates))
    return float(jnp.min(jnp.nan_to_num(ends, nan=jnp.inf)))


@functools.cache
def first_order() -> float:
    """What gradient descent and heavy ball leave, each at its best learning rate."""
    heavy = lambda: gk.average_by_heavy_ball(0.9)
    return min(
        least_squares(optax.identity, [0.5, 1.0, 1.9]),
        least_squares(heavy, [0.05, 0.1, 0.2, 0.3]),
    )


@pytest.mark.parametrize("name", ["shampoo", "one_sided", "soap", "psgd", "kl_shampoo"])
def test_flat_directions_are_no_longer_slow(name) -> None:
    """Ten times closer than heavy ball and gradient descent, each at its best learning rate."""
    ours = least_squares(METHODS[name], [0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
    assert ours < 0.1 * first_order(), (ours, first_order())


def test_flat_directions_are_no_longer_slow_for_kfac() -> None:
    """Its factors, fitted to the covariances of inputs and outputs, are Newton's here."""
    make = functools.partial(
        gk.precondition_by_inverse_free_kfac, 1e-6, fit_rate=0.3, every=1
    )
    pair = skew(1) @ skew(1), skew(2) @ skew(2)
    ours = least_squares(make, [0.1, 0.3, 1.0], covariances=pair)
    assert ours < 1e-4 * first_order(), (ours, first_order())


PAIRED = functools.partial(gk.precondition_by_paired_factors, damping=0.0)


def test_pairs_see_the_product_and_not_its_factors() -> None:
    """`A T` and `T^-1 B` move the product as `A` and `B` do."""
    a, b, t = draw((6, 2), (2, 5), (2, 2))
    inverse = jnp.linalg.inv(t)
    loss = lambda p: jnp.sum(jnp.sin(p["lora_a"] @ p["lora_b"]))

    @jax.jit
    def moved(p: Any) -> jax.Array:
        u = PAIRED().update(jax.grad(loss)(p), optax.EmptyState(), p)[0]
        return u["lora_a"] @ p["lora_b"] + p["lora_a"] @ u["lora_b"]

    plain = moved({"lora_a": a, "lora_b": b})
    close(moved({"lora_a": a @ t, "lora_b": inverse @ b}), plain)


def test_pairs_may_be_stacked_and_start_at_zero() -> None:
    a, b, ga, gb = draw((3, 6, 2), (3, 2, 5), (3, 6, 2), (3, 2, 5))
    tx = gk.precondition_by_paired_factors(damping=0.1)
    pair = lambda x, y: {"l/lora_a": x, "l/lora_b": y}
    update = jax.jit(tx.update)
    together, _ = update(pair(ga, gb), tx.init(pair(a, b)), pair(a, b))
    for i in range(3):
        p = pair(a[i], b[i])
        apart, _ = update(pair(ga[i], gb[i]), tx.init(p), p)
        close([x[i] for x in together.values()], apart)
    p = pair(a, 0 * b)
    u, _ = PAIRED().update(pair(0 * ga, gb), optax.EmptyState(), p)
    assert not jnp.any(u["l/lora_a"]) and jnp.all(jnp.isfinite(u["l/lora_b"]))


@pytest.mark.parametrize(
    "shapes,named",
    [
        ({"lora_a": (6, 2)}, ["leaf lora_a", "its partner lora_b"]),
        ({"lora_a": (6, 2), "lora_b": (3, 5)}, ["leaf lora_a", "lora_b", "(3, 5)"]),
        ({"lora_b": (2, 5)}, ["leaf lora_b must be in one pair"]),
        ({"w": (2, 5)}, ["leaf w must be in one pair", "gradkit.route"]),
        ({"bias": (5,)}, ["leaf bias must have at least 2 axes"]),
    ],
)
def test_what_is_no_pair_is_named(shapes, named) -> None:
    p = {k: jnp.zeros(s) for k, s in shapes.items()}
    with pytest.raises(ValueError) as caught:
        PAIRED().update(p, optax.EmptyState(), p)
    text = str(caught.value)
    assert text.startswith("gradkit.precondition_by_paired_factors: ")
    assert all(part in text for part in named), text


def test_kfac_of_single_samples_is_what_gradients_say() -> None:
    """Where each gradient is one input times one output gradient, both forms agree."""
    tx = gk.precondition_by_inverse_free_kfac(fit_rate=0.1, every=1)
    update, with_pairs, without = jax.jit(tx.update), [], []
    first = second = tx.init(jnp.zeros((5, 3)))
    for t in range(4):
        x, d = draw((5, 1), (1, 3), seed=t)
        pair = (x @ x.T, d.T @ d)
        u, first = update(x @ d, first, covariances=pair)
        v, second = update(x @ d, second)
        with_pairs.append(u)
        without.append(v)
    close(with_pairs, without)


def test_a_fit_that_leaves_float32_is_left_out() -> None:
    tx = gk.precondition_by_inverse_free_kfac(every=1)
    g = jnp.full((3, 3), 1e18, jnp.float32)
    state = tx.init(g)
    state = state._replace(factors=jax.tree.map(lambda a: 1e10 * a, state.factors))
    _, new = jax.jit(tx.update)(g, state)
    close((new.factors, new.moves), (state.factors, state.moves), 0)


def test_factors_learn_the_inverse_of_the_curvature() -> None:
    """`A A^T (x) B B^T` times the covariance of the gradients is about the identity."""
    rng = np.random.default_rng(0)
    skew = [
        np.linalg.qr(rng.normal(size=(n, n)))[0] * np.geomspace(1, 3, n) for n in (4, 6)
    ]
    gs = skew[0] @ rng.normal(size=(4000, 4, 6)) @ skew[1].T
    tx = gk.precondition_by_inverse_free_kfac(1e-6, fit_rate=0.02, every=1)
    state, _ = jax.lax.scan(
        lambda s, g: tx.update(g, s)[::-1], tx.init(jnp.zeros((4, 6))), jnp.asarray(gs)
    )
    a, b = state.factors
    seen = [
        np.asarray(a @ a.T) @ skew[0] @ skew[0].T,
        np.asarray(b @ b.T) @ skew[1] @ skew[1].T,
    ]
    product = np.kron(seen[0], seen[1])
    np.testing.assert_allclose(product, np.eye(24), atol=0.5)
