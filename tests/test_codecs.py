"""States in few bits: what the codes lose is bounded, and any transform can be inside."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk
from gradkit._core.codec import blocks, companding, dither, packing

STORES = {
    "int4": gk.store_by_int4,
    "int8": gk.store_by_int8,
    "fp8": gk.store_by_fp8,
    "bfloat16": gk.store_by_bfloat16,
    "bfloat16_plus8": gk.store_by_bfloat16_plus8,
}
KEPT = {
    "int4": jnp.uint8,
    "int8": jnp.int8,
    "fp8": jnp.float8_e4m3fn,
    "bfloat16": jnp.bfloat16,
    "bfloat16_plus8": jnp.bfloat16,
}
EACH = pytest.mark.parametrize("name", STORES)


def through(x: Any, block: int = 256, count: int = 0) -> np.ndarray:
    """Numbers as they come back from eight bits."""
    x = jnp.asarray(x, jnp.float32)
    scales = blocks.scales_of(x.shape, block)
    bits = blocks.in_blocks(dither.bits(count, x), scales)
    code, scale = companding.encode(blocks.in_blocks(x, scales), bits)
    return np.asarray(blocks.from_blocks(companding.decode(code, scale), x))


ALL = (
    np.arange(-127, 128),
    np.arange(256) - 128,
)  # codes of signed and of positive blocks


@pytest.mark.parametrize("scale", [1.0, 3e-30, 1e37, 1 / 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_all_codes_come_back(sign: int, scale: float):
    """What each of the 255 or 256 stands for is encoded as it, at any scale and count."""
    code = jnp.asarray(ALL[sign < 0], jnp.int8)
    x = companding.decode(code, jnp.float32(sign * scale))
    assert np.all(np.diff(np.asarray(x)) > 0)
    for count in range(100):
        again, kept = companding.encode(x, dither.bits(count, x))
        np.testing.assert_array_equal(again, code)
        assert kept == jnp.float32(sign * scale)


@pytest.mark.parametrize("signed", [True, False])
def test_what_is_lost_is_bounded(signed: bool):
    """By a code: of roots where there are signs, of a sixteenth of squares: of a million sizes."""
    y = np.linspace(0, 1, 2**20, dtype=np.float32)
    x = np.stack([y, -y]).T.reshape(-1) if signed else y
    got = through(x, x.size)
    if signed:
        assert np.max(np.abs(np.sqrt(np.abs(got)) - np.sqrt(np.abs(x)))) <= 1.001 / 127
        assert np.all(got * x >= 0)
    else:
        assert np.all(np.abs(got - x) <= np.maximum(x / 16, 2.0**-15))
    assert np.all(got[x == 0] == 0)
    assert signed or np.all((got > 0) == (x > 0))


KEEPS = optax.GradientTransformation(
    lambda params: params, lambda updates, state, params=None: (state, updates)
)  # an inner transform that shows what it was given


@pytest.mark.parametrize("name", ["int8", "fp8", "int4"])
@pytest.mark.parametrize("signed", [True, False])
def test_the_mean_is_kept(name: str, signed: bool):
    """What is in between two codes comes back so, on average over updates."""
    x = np.random.default_rng(2).uniform(0.1, 0.85, size=256).astype(np.float32)
    x[::2] *= -1 if signed else 1
    x[::128] = 1  # the scale of each block
    tx = STORES[name](KEEPS)

    def step(state: Any, _: None) -> Any:
        return tx.update(jnp.asarray(x), state)[::-1]

    _, seen = jax.lax.scan(step, tx.init(jnp.asarray(x)), length=1001)
    mean = np.mean(np.asarray(seen)[1:], 0)
    np.testing.assert_allclose(mean, x, rtol=1e-2)


@pytest.mark.parametrize("shape", [(1,), (255,), (256,), (257,), (3, 100), (2, 3, 300)])
@pytest.mark.parametrize("block", [1, 4, 256])
def test_blocks_need_not_divide(shape: Any, block: int):
    """Their largest number comes back, each with a block of its own, and the number of blocks is
    what it must be."""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    scales = blocks.scales_of(shape, block)
    cut = blocks.in_blocks(jnp.asarray(x), scales)
    assert cut.shape[:-1] == scales and cut.shape[-1] <= block
    np.testing.assert_array_equal(blocks.from_blocks(cut, jnp.asarray(x)), x)
    got = through(x, block)
    row = int(np.prod(shape[len(scales) - 1 :]))
    assert scales[-1] == -(-row // block)
    for was, now in zip(x.reshape(-1, row), got.reshape(-1, row)):
        for i in range(0, row, cut.shape[-1]):
            part = slice(i, i + cut.shape[-1])
            at = np.argmax(np.abs(was[part]))
            np.testing.assert_allclose(now[part][at], was[part][at], rtol=1e-6)
            largest = np.max(np.abs(was[part]))
            assert np.max(np.abs(was[part] - now[part])) <= largest / 16


def test_infinity_is_a_large_number():
    got = through([np.inf, -np.inf, 1.0, 0.0])
    np.testing.assert_array_equal(
        got[[0, 1, 3]], np.float32([2.0**126, -(2.0**126), 0])
    )


def test_nothing_and_the_smallest_numbers():
    np.testing.assert_array_equal(through(np.zeros(5)), np.zeros(5))
    assert not np.any(np.signbit(through(np.zeros(5))))
    assert np.all(np.isfinite(through(np.float32([1e-45, 0, 1e-38]))))


INNER = {
    "adam": gk.scale_by_adam,
    "optax": lambda: optax.adamw(1e-2),
    "muon": lambda: gk.muon(0.02),
    "shampoo": gk.shampoo,
    "nested": lambda: gk.chain(gk.clip_by_spike(0.9), gk.average_by_nesterov()),
    "key": gk.average_by_random_scaling,
    "masked": lambda: optax.masked(
        optax.adam(1e-2), {"w": True, "hidden": False, "b": True}
    ),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(1e-2),
    "rounded": lambda: gk.chain(gk.adamw(), gk.round_by_kahan()),
    "lion": lambda: optax.lion(1e-2),
}


def draw(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    shapes = {"w": (24, 20), "hidden": (20, 16), "b": (16,)}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


@pytest.mark.parametrize(
    "name,inner",
    [  # all but what compiles longest in one; in the others those whose states differ in kind
        pytest.param(name, inner, marks=[pytest.mark.slow] * is_slow)
        for name in STORES
        for inner in INNER
        for is_slow in [
            inner == "shampoo"
            or (name != "int8" and inner not in ("muon", "key", "masked"))
        ]
    ],
)
def test_any_transform_can_be_inside(name: str, inner: str):
    """Updates are about those of `inner`; counters, keys and what is small are exactly its."""
    tx, plain = STORES[name](INNER[inner]()), INNER[inner]()
    tx, plain = map(optax.with_extra_args_support, (tx, plain))
    p = draw(9)
    state, other = tx.init(p), plain.init(p)
    update, alone = jax.jit(tx.update), jax.jit(plain.update)
    for t in range(3):
        with jax.numpy_dtype_promotion("standard"):  # optax's
            u, state = update(draw(t), state, p)
            want, other = alone(draw(t), other, p)
    is_masked = lambda x: isinstance(x, optax.MaskedNode)
    ours, theirs = (jax.tree.leaves(t, is_leaf=is_masked) for t in (state.inner, other))
    codes = state.scales.codes if name == "int4" else state.inner
    for x, y, code in zip(
        ours, theirs, jax.tree.leaves(codes, is_leaf=is_masked), strict=True
    ):
        if is_masked(y):
            assert is_masked(x) and is_masked(code)
            continue
        if name == "int4" and y.size >= 256 and jnp.issubdtype(y.dtype, jnp.floating):
            assert code.shape == (*y.shape[:-1], y.shape[-1] // 2), y.shape
            x = code
        else:
            assert x.shape == y.shape
        if y.size < 256 or not jnp.issubdtype(y.dtype, jnp.floating):
            assert x.dtype == y.dtype
            if jnp.issubdtype(y.dtype, jnp.integer):
                np.testing.assert_array_equal(x, y)
        elif y.dtype == jnp.float32:
            assert x.dtype == KEPT[name]
    for k in u:
        size = float(jnp.sqrt(jnp.mean(want[k] ** 2)))
        lost = float(jnp.sqrt(jnp.mean((u[k] - want[k]) ** 2)))
        assert lost <= (0.5 if name == "int4" else 0.15) * size, k


POSITIVE = [0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875]
SIGNED = np.array([-x for x in POSITIVE[::-1]] + [0.0, *POSITIVE, 1.0])
LINEAR = np.arange(1, 17) / 16


def through_int4(x: Any, block: int = 128) -> np.ndarray:
    """Numbers as they come back from four bits."""
    x = jnp.asarray(x, jnp.float32)
    tx = gk.store_by_int4(KEEPS, block=block)
    _, state = tx.update(x, tx.init(jnp.zeros_like(x)))
    return np.asarray(tx.update(x, state)[0])


@pytest.mark.parametrize("scale", [1.0, 3e-30, 1e37, 1 / 3])
@pytest.mark.parametrize("table", [SIGNED, LINEAR], ids=["signed", "linear"])
def test_all_codes_of_int4_come_back(table: np.ndarray, scale: float):
    """What each of the 16 stands for is itself, in a vector, a matrix and of three axes."""
    x = np.float32(scale) * np.float32(table)
    np.testing.assert_allclose(through_int4(x, 16), x, rtol=3e-7)
    for shape in ((16, 16), (2, 8, 16)):
        rows = np.broadcast_to(x, shape).copy()
        if table is LINEAR:  # the maximum of a column would be the scale
            rows[(0,) * (len(shape) - 1)] = x[-1]
            rows[..., -1] = x[-1]
        np.testing.assert_allclose(through_int4(rows, 16), rows, rtol=3e-7)


@pytest.mark.parametrize("table", [SIGNED, LINEAR], ids=["signed", "linear"])
def test_what_int4_loses_is_bounded(table: np.ndarray):
    """It comes back as one of the two values around it; zero as zero, and no square as zero."""
    low = -1.0 if table is SIGNED else 0.0
    x = np.linspace(low, 1, 2**16 + 1, dtype=np.float32)
    got = through_int4(x, x.size)
    assert set(np.unique(got)) == set(np.float32(table))
    above = np.clip(np.searchsorted(table, x), 1, len(table) - 1)
    low, high = np.float32(table)[above - 1], np.float32(table)[above]
    assert np.all((got == low) | (got == high))
    if table is SIGNED:
        assert np.all(got[x == 0] == 0) and got[0] == np.float32(-0.8875)
    else:
        assert np.all(got > 0) and got[-1] == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_of_int4_are_of_rows_and_columns(axis: int):
    """A row or a column of outliers spoils no other number, and of zeros it stays zero."""
    v = np.random.default_rng(0).uniform(0.5, 1, size=(32, 40)).astype(np.float32)
    v[3], v[9] = 1e6, 0.0
    got = through_int4(v.T if axis else v)
    got = got.T if axis else got
    assert np.max(np.abs(got - v)[v < 1]) <= 1 / 16
    np.testing.assert_array_equal(got[3], v[3])
    np.testing.assert_array_equal(got[9], 0)


@pytest.mark.parametrize("shape", [(1,), (127,), (129,), (3, 99), (2, 3, 301), (5, 1)])
@pytest.mark.parametrize("block", [1, 4, 128])
@pytest.mark.parametrize("signed", [True, False])
def test_int4_of_any_shape(shape: Any, block: int, signed: bool):
    """Odd axes, blocks that do not divide, and what is smaller than a block, which stays."""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    x = x if signed else np.abs(x)
    got = through_int4(x, block)
    assert got.shape == x.shape
    if x.size < block:
        np.testing.assert_array_equal(got, x)
        return
    row = int(np.prod(shape[len(blocks.scales_of(shape, block)) - 1 :]))
    width = -(-row // -(-row // block))
    for was, now in zip(x.reshape(-1, row), got.reshape(-1, row)):
        for i in range(0, row, width):
            part = slice(i, i + width)
            largest = np.max(np.abs(was[part])) if signed else np.max(x)
            gap = 0.225 if signed else 1 / 16  # the widest of the tables
            assert np.max(np.abs(was[part] - now[part])) <= largest * gap * 1.0001


def test_infinity_zero_and_the_smallest_numbers_in_int4():
    got = through_int4([np.inf, -np.inf, 1.0, 0.0], 4)
    np.testing.assert_allclose(got, np.float32([1, -0.8875, 0, 0]) * 2.0**126)
    for shape in ((5,), (3, 7)):
        zero = through_int4(np.zeros(shape), 4)
        assert not np.any(zero) and not np.any(np.signbit(zero))
        tiny = np.zeros(shape, np.float32)
        tiny.flat[:3] = [1e-45, 0, 1e-38]
        assert np.all(np.isfinite(through_int4(tiny, 4)))


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_two_codes_are_a_byte(n: int):
    """All pairs come back, and the dtype tells an odd axis from an even one."""
    code = np.random.default_rng(n).integers(0, 16, size=(256, n)).astype(np.uint8)
    both = packing.pack(jnp.asarray(code))
    assert both.shape == (256, -(-n // 2))
    assert both.dtype == (jnp.int8 if n % 2 else jnp.uint8)
    np.testing.assert_array_equal(packing.unpack(both), code)
    assert both.nbytes == 256 * -(-n // 2)


def test_bytes_of_int4():
    """A number has a half, a block of 128 has 4, and so has a row and a column."""
    p = {"w": jnp.zeros((64, 512)), "odd": jnp.zeros((3, 301)), "b": jnp.zeros(100)}
    got = bytes_of(gk.store_by_int4(gk.scale_by_adam()).init(p))
    w = 64 * 256 + 4 * 64 * 4 + 4 * (64 + 512)
    odd = 3 * 151 + 4 * 3 * 3 + 4 * (3 + 301)
    assert got == 2 * (w + odd + 400) + 8


def bytes_of(state: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(state))


def test_bytes_of_int8():
    """A number has one, a block of 256 has 4; what is small stays as it is."""
    p = {"w": jnp.zeros((64, 512)), "odd": jnp.zeros((3, 300)), "b": jnp.zeros(100)}
    got = bytes_of(gk.store_by_int8(gk.scale_by_adam()).init(p))
    w, odd, b = 64 * 512 + 4 * 64 * 2, 900 + 4 * 3 * 2, 400
    assert got == 2 * (w + odd + b) + 8


def test_a_part_is_stored_and_the_rest_is_not():
    p = draw(0)
    tx = gk.store_by_int8(gk.scale_by_adam(), only="^nu/w")
    _, state = tx.update(p, tx.init(p), p)
    _, plain = gk.scale_by_adam().update(p, gk.scale_by_adam().init(p), p)
    assert state.inner.nu["w"].dtype == jnp.int8
    for k in ("hidden", "b"):
        np.testing.assert_array_equal(state.inner.nu[k], plain.nu[k])
    for k in p:
        np.testing.assert_array_equal(state.inner.mu[k], plain.mu[k])


@EACH
def test_a_part_that_is_not_there_is_named(name: str):
    with pytest.raises(ValueError, match=r"only = 'nu/' must be found.*mu/w"):
        STORES[name](gk.average_by_heavy_ball(), only="nu/").init(draw(0))
    with pytest.raises(ValueError, match=r"only must be a regular expression"):
        STORES[name](gk.average_by_heavy_ball(), only="mu(")


@EACH
@pytest.mark.parametrize(
    "kind,axes",
    [  # on Explicit axes one by one by make check-full alone
        pytest.param(kind, axes, marks=[pytest.mark.slow] * is_slow)
        for kind in (AxisType.Auto, AxisType.Explicit)
        for axes in (("x", None), (None, "x"), ("x", "y"))
        for is_slow in [kind == AxisType.Explicit and None in axes]
    ],
)
def test_sharded_is_as_on_one_device(name: str, kind: AxisType, axes: Any):
    """And what is kept of a sharded parameter is sharded as it is."""
    rng = np.random.default_rng(0)
    p, g = (np.float32(rng.normal(size=(8, 1024))) for _ in range(2))
    tx = STORES[name](gk.scale_by_adam())
    want, due = tx.update(jnp.asarray(g), tx.init(jnp.asarray(p)))
    mesh = jax.make_mesh((4, 2), ("x", "y"), (kind, kind))
    with jax.set_mesh(mesh):
        here = NamedSharding(mesh, PartitionSpec(*axes))
        ours, grads = (jax.device_put(x, here) for x in (p, g))
        got, state = jax.jit(tx.update)(grads, jax.jit(tx.init)(ours))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(due), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        if a.ndim == 2 and a.size >= p.size / 2:
            assert a.sharding.is_equivalent_to(here, 2), a.sharding


@EACH
def test_variables_of_nnx_may_hold_parameters(name: str):
    """Also where the last axis is odd, so that codes of four bits are of another shape."""
    p = {"w": nnx.Param(jnp.ones((32, 17))), "b": nnx.Param(jnp.ones(3))}
    tx = STORES[name](gk.adamw(1e-2))
    state = tx.init(p)
    u, after = tx.update(p, state, p)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(np.all(np.asarray(x) < 0) for x in jax.tree.leaves(u))
