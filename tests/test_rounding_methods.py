"""Parameters in bfloat16 and float16: `round_by_` methods land where they say, and lose nothing.

`optax.apply_updates` adds a float32 update to a narrow parameter in float32, and rounds once.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk
from gradkit._core.codec import floats

METHODS = {
    "stochastic": gk.round_by_stochastic,
    "kahan": gk.round_by_kahan,
    "error_correction": gk.round_by_error_correction,
    "master": gk.round_by_master,
}
EXACT = ["kahan", "error_correction", "master"]
NARROW = [jnp.bfloat16, jnp.float16]
EACH = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(autouse=True)
def as_users_have_it():
    """A narrow parameter and a float32 update are added in float32."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def lattice(exponents: range) -> np.ndarray:
    """All numbers of bfloat16 with these exponents, of both signs, and zero, in float32."""
    sizes = [np.ldexp(1 + np.arange(128) / 128, e) for e in exponents]
    positive = np.concatenate(sizes).astype(np.float32)
    return np.concatenate([-positive, [np.float32(0)], positive])


def neighbours(x: np.ndarray, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of `dtype` around float32 numbers, by the bits of the dtype itself."""
    near = x.astype(dtype)
    lowest, highest = (np.array(s * np.inf, dtype) for s in (-1, 1))
    wide = near.astype(np.float32)
    low = np.where(wide <= x, near, np.nextafter(near, lowest))
    high = np.where(wide >= x, near, np.nextafter(near, highest))
    return low.astype(np.float32), high.astype(np.float32)


@jax.jit
def landed(p: jax.Array, q: jax.Array) -> jax.Array:
    """Where `optax.apply_updates` takes bfloat16 parameters by the difference to `q`."""
    return optax.apply_updates(p, q - p.astype(jnp.float32)).astype(jnp.float32)


def test_a_difference_in_float32_lands_on_what_was_chosen():
    """From every bfloat16 number, by every bfloat16 update: to both numbers around the sum.

    Only ratios matter, so that one exponent of parameters stands for all: updates go from too
    small to move it to too large for it to matter.
    """
    ps, us = lattice(range(1))[:, None], lattice(range(-30, 31))[None]
    for part in np.array_split(us, 61, axis=1):
        x = ps + part
        p = np.broadcast_to(ps, x.shape).astype(jnp.bfloat16)
        for q in neighbours(x, jnp.bfloat16):
            np.testing.assert_array_equal(landed(p, q), q)


def test_a_difference_in_bfloat16_would_not():
    """So that nothing may round it: from 1 to 0.001 it is -1 or -0.996."""
    p, q = jnp.ones((), jnp.bfloat16), jnp.asarray(0.001, jnp.bfloat16)
    assert optax.apply_updates(p, q - p) != q
    assert landed(p, q.astype(jnp.float32)) == q


@pytest.mark.parametrize("dtype", NARROW)
def test_the_nearest_is_what_a_cast_finds(dtype: Any):
    """Where its numbers are normal in float32; ties to even, and the largest beyond."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 2**20, dtype=np.uint32)
    ties = (bits & 0xFFFF0000) | 0x8000, (bits & 0xFFFFE000) | 0x1000
    x = np.concatenate([bits, *ties]).view(np.float32)
    limits = jnp.finfo(dtype)
    x = x[(np.abs(x) < float(limits.max)) & (np.abs(x) > 2.0**-118)]
    want = x.astype(limits.dtype).astype(np.float32)
    want = np.clip(want, -float(limits.max), float(limits.max))
    got = jax.jit(functools.partial(floats.nearest, dtype=dtype))(x)
    np.testing.assert_array_equal(got, want)
    assert floats.nearest(jnp.float32(3.4e38), dtype) == limits.max


@pytest.mark.parametrize("dtype", NARROW)
def test_drawn_numbers_are_those_around(dtype: Any):
    rng = np.random.default_rng(1)
    x = np.float32(rng.normal(size=10**5) * 2.0 ** rng.integers(-30, 15, 10**5))
    low, high = neighbours(x, jnp.finfo(dtype).dtype)
    draw = jax.jit(functools.partial(floats.stochastic, dtype=dtype))
    got = np.asarray(draw(jax.random.key(0), x))
    assert np.all((got == low) | (got == high))
    assert np.any(got == low) and np.any(got == high)
    exact = jnp.asarray(low)
    np.testing.assert_array_equal(draw(jax.random.key(1), exact), exact)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("x", [1.0003, -0.30001, 7e-6, -1.003, 0.99999])
def test_the_mean_of_what_is_drawn_is_the_number(dtype: Any, x: float):
    """Within five standard errors, of 100,000 draws."""
    p = jnp.full(10**5, 0.5, dtype)
    u = jnp.float32(x) - p.astype(jnp.float32)
    tx = gk.round_by_stochastic(key=3)
    q = optax.apply_updates(p, tx.update(u, tx.init(p), p)[0]).astype(jnp.float32)
    want = np.float64(np.float32(0.5) + np.asarray(u)[0])
    step = float(floats.spacing(jnp.float32(x), dtype))
    fraction = want / step - np.floor(want / step)
    error = step * np.sqrt(fraction * (1 - fraction) / len(q))
    assert abs(np.mean(np.asarray(q, np.float64)) - want) <= 5 * error + 1e-6 * step


def train(tx: Any, dtype: Any, steps: int, rate: float = 1e-3) -> Any:
    """Weights of 1 after Adam's updates with gradients of 1, each of size `rate`."""
    p, g = {"w": jnp.ones(512, dtype)}, {"w": jnp.ones(512, dtype)}

    def step(carry: Any, _: None) -> tuple[Any, None]:
        p, state = carry
        u, state = tx.update(g, state, p)
        return (optax.apply_updates(p, u), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    return np.asarray(run((p, tx.init(p)))[0]["w"].astype(jnp.float32))


CHAINS = {
    "recipe in gradkit.chain": lambda last: gk.chain(gk.adamw(weight_decay=0.0), last),
    "parts in gradkit.chain": lambda last: gk.chain(
        gk.clip_by_global_norm(100.0),
        gk.scale_by_adam(),
        gk.step_by_learning_rate(1e-3),
        last,
    ),
    "chain in gradkit.chain": lambda last: gk.chain(
        gk.clip_by_global_norm(100.0), gk.chain(gk.adamw(weight_decay=0.0), last)
    ),
    "recipe in optax.chain": lambda last: optax.chain(gk.adamw(weight_decay=0.0), last),
    "optax in gradkit.chain": lambda last: gk.chain(optax.adam(1e-3), last),
}


@pytest.mark.parametrize("chain", CHAINS)
@EACH
def test_adam_in_bfloat16_moves_as_in_float32(name: str, chain: str):
    """A hundred updates of 1e-3 from 1, where each alone is a quarter of what bfloat16 holds.

    To within one number of bfloat16 at 0.9, 1/256; where drawn, the mean of 512.
    """
    want = train(gk.adamw(weight_decay=0.0), jnp.float32, 100)
    got = train(CHAINS[chain](METHODS[name]()), jnp.bfloat16, 100)
    assert np.all(want < 0.91)
    if name == "stochastic":
        assert abs(got.mean() - want[0]) < 2e-3
    else:
        np.testing.assert_allclose(got, want, atol=1 / 256)


def test_adam_alone_stays_where_it_is():
    for tx in (optax.adam(1e-3), gk.adamw(weight_decay=0.0)):
        assert np.all(train(tx, jnp.bfloat16, 100) == 1)


def drawn(seed: int) -> dict[str, jax.Array]:
    """A matrix and a vector in bfloat16."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
    return {"hidden": draw(8, 4), "bias": draw(4)}


@functools.cache
def in_float32(make: Any) -> list[Any]:
    """Where a recipe takes float32 parameters in each of three updates."""
    tx, found = gk.chain(make(1e-3)), []
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), drawn(0))
    state, update = tx.init(wide), jax.jit(tx.update)
    for t in range(1, 4):
        u, state = update(drawn(t), state, wide)
        wide = optax.apply_updates(wide, u)
        found.append(wide)
    return found


@pytest.mark.parametrize("make", [gk.adamw, gk.muon, gk.lion, gk.soap])
@EACH
def test_recipes_land_on_numbers_of_the_parameters(name: str, make: Any):
    """Whether a matrix or a vector, chained by gradkit: the rate is small against a weight."""
    tx, p = gk.chain(make(1e-3), METHODS[name]()), drawn(0)
    state, update = tx.init(p), jax.jit(tx.update)
    for t, wide in enumerate(in_float32(make), 1):
        u, state = update(drawn(t), state, p)
        for k in p:
            assert u[k].dtype == jnp.float32
            exact = p[k].astype(jnp.float32) + u[k]
            np.testing.assert_array_equal(exact, exact.astype(jnp.bfloat16))
            if name != "stochastic":
                np.testing.assert_allclose(exact, wide[k], atol=0.02, rtol=1 / 128)
        p = optax.apply_updates(p, u)


def walk(name: str, dtype: Any, sizes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Parameters after random updates, and their sum in float64."""
    rng = np.random.default_rng(4)
    p = jnp.asarray(rng.normal(size=1000), dtype)
    exact = np.asarray(p, np.float64)
    tx = METHODS[name]()
    state, update = tx.init(p), jax.jit(tx.update)
    for size in sizes:
        u = np.float32(rng.normal(size=1000) * size)
        d, state = update(jnp.asarray(u), state, p)
        p, exact = optax.apply_updates(p, d), exact + u
    return np.asarray(p.astype(jnp.float32), np.float64), exact


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", EXACT)
def test_what_is_kept_is_what_was_lost(name: str, dtype: Any):
    """After 200 updates parameters are those of exact sums, rounded, give or take one unit."""
    got, want = walk(name, dtype, [1e-3] * 200)
    unit = np.asarray(floats.spacing(jnp.asarray(want, jnp.float32), dtype))
    near = np.abs(want) > 1e-2  # around zero units are smaller than what sums have lost
    assert np.max(np.abs(got - want)[near] / unit[near]) < 1
    assert np.max(np.abs(got - want)[~near], initial=0) < 2e-4


@pytest.mark.parametrize("name", EXACT)
def test_weights_that_cross_zero_lose_nothing_either(name: str):
    got, want = walk(name, jnp.bfloat16, [1.0, 1e-3, 1.0, 1e-3])
    np.testing.assert_allclose(got, want, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("dtype", NARROW)
def test_eight_more_bits_hold_what_rounding_leaves(dtype: Any):
    """Of all numbers of 20 bits: within half a code of the unit of the number kept."""
    x = jnp.asarray(np.ldexp(1 + np.arange(2**20) / 2**20, 3), jnp.float32)
    q = floats.nearest(x, dtype)
    code = floats.residual_code(x, q, dtype)
    back = q + floats.residual(code, q, dtype)
    unit = floats.spacing(q, dtype)
    assert jnp.max(jnp.abs(back - x) / unit) <= 0.5 / 254 + 1e-3
    assert code.min() == -127 and code.max() == 127


def test_all_codes_come_back():
    """The 255 of int8, at every number of 8 bits: what they stand for has this code."""
    q = lattice(range(-1, 2))
    q = jnp.asarray(q[q != 0, None])
    code = jnp.arange(-127, 128, dtype=jnp.int8)[None]
    x = q + floats.residual(code, q, jnp.bfloat16)
    again = floats.residual_code(x, q, jnp.bfloat16)
    np.testing.assert_array_equal(again, np.broadcast_to(code, again.shape))


@EACH
def test_leaves_of_float32_pass(name: str):
    p = {"narrow": jnp.ones(3, jnp.bfloat16), "wide": jnp.ones(3)}
    u = {"narrow": jnp.full(3, 1e-3), "wide": jnp.full(3, 1e-3)}
    tx = METHODS[name]()
    state = tx.init(p)
    d, _ = tx.update(u, state, p)
    np.testing.assert_array_equal(d["wide"], u["wide"])
    kept = {"stochastic": 8, "kahan": 6, "error_correction": 3, "master": 12}
    assert sum(x.nbytes for x in jax.tree.leaves(state)) == kept[name]


@EACH
def test_state_and_update_keep_their_types(name: str):
    """With gradients of either dtype, in a scan: law 3, but for the update's dtype."""
    p = {"w": jnp.ones((3, 2), jnp.bfloat16)}
    for dtype in (jnp.float32, jnp.bfloat16):
        g = {"w": jnp.ones((5, 3, 2), dtype)}
        tx = METHODS[name]()
        step = lambda state, g, tx=tx: tx.update(g, state, p)[::-1]
        state, u = jax.lax.scan(step, tx.init(p), g)
        assert u["w"].dtype == jnp.float32
        assert jax.tree.map(jnp.result_type, state) == jax.tree.map(
            jnp.result_type, tx.init(p)
        )


@EACH
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_is_as_on_one_device(name: str, kind: AxisType):
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.normal(size=(8, 6)), jnp.bfloat16)
    u = jnp.asarray(1e-2 * rng.normal(size=(8, 6)), jnp.float32)
    tx = METHODS[name]()
    want, due = tx.update(u, tx.init(p), p)
    mesh = jax.make_mesh((4, 2), ("x", "y"), (kind, kind))
    with jax.set_mesh(mesh):
        here = NamedSharding(mesh, PartitionSpec("x", "y"))
        p, u = (jax.device_put(np.asarray(x), here) for x in (p, u))
        got, state = jax.jit(tx.update)(u, jax.jit(tx.init)(p), p)
    np.testing.assert_array_equal(got, want)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(due)):
        np.testing.assert_array_equal(a, b)
        if a.shape == p.shape:
            assert a.sharding.is_equivalent_to(here, 2)
    if kind == AxisType.Explicit:
        assert jax.typeof(got).sharding == jax.typeof(u).sharding


@EACH
def test_numbers_too_large_stay_at_the_largest(name: str):
    p, u = jnp.asarray([6e4, -6e4, 1.0], jnp.float16), jnp.float32([1e9, -1e9, jnp.inf])
    tx = METHODS[name]()
    q = optax.apply_updates(p, tx.update(u, tx.init(p), p)[0])
    np.testing.assert_array_equal(q, np.float16([65504, -65504, 1]))


@EACH
def test_inside_of_another_wrapper_in_a_chain_it_speaks(name: str):
    """There parameters are in float32, and it would silently do nothing."""
    method = METHODS[name].__name__
    p = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = gk.chain(gk.sgd(), optax.masked(METHODS[name](), {"w": True}))
    with pytest.raises(ValueError) as caught:
        tx.init(p)
    assert "must be the last transform of gradkit.chain itself" in str(caught.value)
    with pytest.raises(ValueError, match=r"gradkit.chain: .* must be the last one"):
        gk.chain(METHODS[name](), gk.sgd())
    outside = optax.chain(gk.sgd(), optax.masked(METHODS[name](), {"w": True}))
    outside.update(p, outside.init(p), p)
    with pytest.raises(ValueError, match=f"gradkit.{method}: params must be passed"):
        METHODS[name]().update(p, METHODS[name]().init(p))


@EACH
def test_in_a_loop_of_optax(name: str):
    """`MultiSteps`, `apply_if_finite`, `inject_hyperparams` around a chain that ends in it."""
    p = {"w": jnp.ones(3, jnp.bfloat16)}
    make = lambda learning_rate: gk.chain(gk.sgd(learning_rate), METHODS[name]())
    for tx in (
        optax.MultiSteps(make(1e-3), 2).gradient_transformation(),
        optax.apply_if_finite(make(1e-3), 3),
        optax.inject_hyperparams(make, hyperparam_dtype=jnp.float32)(1e-3),
    ):
        q, state, update = p, tx.init(p), jax.jit(tx.update)
        for _ in range(400):
            u, state = update({"w": jnp.ones(3)}, state, q)
            q = optax.apply_updates(q, u)
        assert np.all(np.asarray(q["w"], np.float32) < 0.9)
