"""A condition stays one under every transformation of JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gradkit._core.condition import when

DUE = jnp.array([True, False])
XS = jnp.ones((2, 3))
FACTORS = jnp.arange(1.0, 4.0)
WANT = np.stack([np.sin(1) * np.arange(1, 4), np.ones(3)])


def sines(due: Any, x: Any, factors: Any = FACTORS) -> Any:
    return when(due, lambda x: factors * jnp.sin(x), x)


def test_jit_and_a_batch() -> None:
    for f in (jax.vmap(sines), jax.jit(jax.vmap(sines))):
        np.testing.assert_allclose(f(DUE, XS), WANT, rtol=1e-6)
    for due, x, want in zip(DUE, XS, WANT):
        np.testing.assert_allclose(jax.jit(sines)(due, x), want, rtol=1e-6)


def test_nothing_is_computed_where_nothing_is_due() -> None:
    calls = []

    def noted(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: calls.append(1))
        return x

    run = jax.jit(jax.vmap(lambda due, x: when(due, noted, x)))
    jax.block_until_ready(run(jnp.zeros(2, bool), XS))
    jax.effects_barrier()
    assert not calls


@pytest.mark.parametrize("axes", [(), (0,)])
def test_reverse_mode(axes: tuple[int, ...]) -> None:
    def loss(factors: Any) -> Any:
        batched = jax.vmap(lambda due, x: sines(due, x, factors))
        return jnp.sum(batched(DUE, XS) if axes else sines(DUE[0], XS[0], factors))

    np.testing.assert_allclose(jax.grad(loss)(FACTORS), np.sin(1), rtol=1e-6)


def test_no_nan_comes_back_from_what_is_not_due() -> None:
    def third(x: jax.Array, due: jax.Array) -> jax.Array:
        counted = when(due, lambda c: (c[0] + 1, c[1] / c[1]), (jnp.int32(0), x))
        return counted[1]

    assert jax.grad(third)(0.0, jnp.array(False)) == 1
    batched = jax.vmap(jax.grad(third))(jnp.array([2.0, 0.0]), DUE)
    np.testing.assert_array_equal(batched, [0, 1])


@pytest.mark.parametrize("whole", ["due", "x"])
def test_a_part_of_a_shard_map(whole: str) -> None:
    mesh = jax.make_mesh((2,), ("i",), (AxisType.Auto,))
    parts = PartitionSpec("i")

    def part(due: Any, x: Any) -> Any:
        if whole == "due":
            return sines(jnp.array(True), jnp.ones(3), x[0])[None]
        return sines(due[0], jnp.ones(3), jnp.ones(3))[None]

    run = jax.shard_map(part, mesh=mesh, in_specs=parts, out_specs=parts)
    got = jax.jit(run)(DUE, XS)
    want = np.full((2, 3), np.sin(1))
    if whole == "x":
        want[1] = 1
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_each_carried_array_varies_as_it_is_made() -> None:
    """What is the same on all devices stays so beside what is not, and constants may replace it."""
    mesh = jax.make_mesh((2,), ("i",), (AxisType.Auto,))
    parts = PartitionSpec("i")

    def part(x: Any) -> Any:
        f = lambda kept: (kept[0] + 1, jnp.zeros(3))
        count, y = when(jnp.array(True), f, (jnp.int32(0), x[0]))
        return count, y[None]

    run = jax.shard_map(
        part, mesh=mesh, in_specs=parts, out_specs=(PartitionSpec(), parts)
    )
    count, y = jax.jit(run)(XS)
    assert count == 1 and not jnp.any(y)


@pytest.mark.parametrize("batched", [False, True])
def test_xla_computes_nothing_before_it_is_due(batched: bool) -> None:
    """Of a loop it takes out what a step makes of anything but its carry."""
    factor = lambda due, g, x: when(due, lambda _: jnp.linalg.eigh(g)[1], x)
    gs = jnp.stack([jnp.eye(4)] * 2)
    args = (DUE, gs, gs) if batched else (DUE[0], gs[0], gs[0])
    run = jax.jit(jax.vmap(factor) if batched else factor)
    program = run.lower(*args).compile().as_text() or ""
    start = program.index("ENTRY")
    entry = program[start : program.index("\n}", start)]
    assert "custom-call" in program and "custom-call" not in entry
