"""Arithmetic that every method stands on, where it is not that of any other library."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import eval_jaxpr

import gradkit as gk
from gradkit._core import norms, numbers, tree


def test_a_ratio_is_zero_over_zero_and_hides_no_nan() -> None:
    found = tree.ratio(jnp.array([3.0, 0.0, 1.0, jnp.nan]), jnp.array([2.0, 0, 0, 0]))
    np.testing.assert_array_equal(found, [1.5, 0.0, 0.0, 0.0])
    assert np.isnan(tree.ratio(jnp.ones(1), jnp.array([jnp.nan]))).all()


@pytest.mark.parametrize(
    "dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn]
)
def test_opaque_is_exact(dtype: Any) -> None:
    """Bit for bit, so that a zero keeps its sign."""
    x = jnp.array([-0.0, 0.0, 1.0, -jnp.inf, jnp.inf, jnp.nan, -3e38]).astype(dtype)
    for found in (numbers.opaque(x), jax.jit(numbers.opaque)(x)):
        got, want = np.asarray(found, np.float32), np.asarray(x, np.float32)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
    known = jax.jit(lambda: numbers.opaque(jnp.zeros([], dtype)))()
    assert known == 0 and not np.signbit(np.float32(known))


@pytest.mark.optimized
def test_an_angle_where_all_is_known_to_be_zero() -> None:
    """The state too: the first update, compiled with the first state."""
    tx, p = gk.scale_by_adam_atan2(), jnp.zeros(4)
    u, _ = jax.jit(lambda p: tx.update(jnp.zeros_like(p), tx.init(p), p))(p)
    np.testing.assert_array_equal(u, np.zeros(4))


def test_a_clip_factor_divides_by_no_zero() -> None:
    with jax.debug_nans(True), jax.debug_infs(True):
        found = norms.clip_factor(jnp.array([0.0, 1.0, 4.0]), 2.0)
        np.testing.assert_array_equal(found, [1.0, 1.0, 0.5])
        np.testing.assert_array_equal(norms.clip_factor(jnp.zeros(1), 0.0), [1.0])


SIZES = {"huge": 1e25, "tiny": 1e-30, "one": 1.0, "zero": 0.0, "largest": 3e38}


@pytest.mark.optimized
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("jit", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_norms_of_leaves_of_all_sizes(jit: Any, dtype: Any) -> None:
    """Side by side, with entries that are not finite, which count as zero."""
    t = {k: jnp.full((3, 3), x, dtype).at[0].set(jnp.nan) for k, x in SIZES.items()}
    exact = np.array([np.sqrt(6) * float(t[k][1, 1]) for k in sorted(t)])
    want = np.minimum(exact, np.finfo(np.float32).max)
    np.testing.assert_allclose(jit(norms.of_leaves)(t), want, rtol=1e-6)
    for k, x in zip(sorted(t), want):
        np.testing.assert_allclose(jit(norms.of_tree)({k: t[k]}), x, rtol=1e-6)
    two = [jnp.full(4, 1e-30), jnp.full(4, 3e-30)]
    np.testing.assert_allclose(jit(norms.of_tree)(two), np.sqrt(40) * 1e-30, rtol=1e-6)


@pytest.mark.optimized
def test_norms_of_constants() -> None:
    def of_constants() -> tuple[jax.Array, jax.Array]:
        t = [jnp.full(4, x) for x in SIZES.values()]
        return norms.of_leaves(t), norms.of_tree(t[1:2])

    each, tiny = jax.jit(of_constants)()
    want = np.minimum([2 * x for x in SIZES.values()], np.finfo(np.float32).max)
    np.testing.assert_allclose(each, want, rtol=1e-6)
    np.testing.assert_allclose(tiny, 2e-30, rtol=1e-6)


@pytest.mark.optimized
def test_nothing_is_summed_again_where_a_leaf_is_zero() -> None:
    """The norm of a tree is exact without what is far below it: its loop has no turn."""
    turns = lambda t: int(jax.jit(count_turns)(t))
    assert turns([jnp.ones(4), jnp.zeros(4)]) == 0
    assert turns([jnp.full(4, 1e-30), jnp.ones(4)]) == 0
    assert turns([jnp.full(4, 1e-30)]) == 1
    assert turns([jnp.full(4, 1e25)]) == 3


def count_turns(t: Any) -> jax.Array:
    """How often the scale of the loop in `tree.norm` has been lowered when it ends."""
    norm: Any = norms._of_tree
    closed = jax.make_jaxpr(norm.fun)(t)
    (loop,) = [e for e in closed.eqns if e.primitive.name == "while"]
    seen = closed.jaxpr.replace(outvars=loop.outvars[:1])
    (scale,) = eval_jaxpr(seen, closed.consts, *jax.tree.leaves(t))
    return jnp.sum(scale < jnp.array([2.0**80, 1, 2.0**-80]))


def test_norms_under_vmap_are_those_of_each() -> None:
    t = {"a": jnp.array([1e-30, 1.0, 1e25, jnp.nan])[:, None] * jnp.ones((4, 3))}
    np.testing.assert_array_equal(
        jax.vmap(norms.of_leaves)(t),
        [norms.of_leaves(jax.tree.map(lambda x, i=i: x[i], t)) for i in range(4)],
    )


def test_the_numbers_of_leaves() -> None:
    for of in (tree.entries, jax.jit(tree.entries)):
        assert [float(x) for x in of(jnp.arange(5.0))] == [0, 1, 2, 3, 4]


@pytest.mark.optimized
@pytest.mark.parametrize("make", [gk.scale_by_novograd, gk.clip_by_component_norm])
def test_leaves_of_one_shape_share_their_kernels(make: Any) -> None:
    """XLA compiles each kernel once that differs in its text alone."""
    tx = make()

    def kernels(leaves: int) -> set[str]:
        g = [jnp.ones((8, 8))] * leaves
        step = jax.jit(lambda g, s: tx.update(g, s, g))
        text = str(step.lower(g, tx.init(g)).compile().as_text())
        unnamed = re.sub(r"%[\w.-]+|param[\w.]+|, metadata={[^}]*}", "", text)
        return {x for x in unnamed.split("\n\n") if "f32[8,8]" in x.partition("\n")[0]}

    assert len(kernels(20)) == len(kernels(10))


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.99])
def test_an_average_before_another_is_computed_from_it_where_that_is_exact(b):
    """Numbers as they are, and traced; where `b` is the smaller, from the old average."""
    old, new = (jnp.asarray(np.random.default_rng(i).normal(size=9)) for i in (0, 1))
    mu, want = tree.ema(b, old, new), tree.ema(0.9, old, new)
    for got in (
        tree.ema_before(0.9, b, old, mu, new),
        jax.jit(tree.ema_before)(0.9, b, old, mu, new),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    lost = tree.ema_before(0.9, b, old + jnp.nan, mu, new)
    assert bool(jnp.all(jnp.isfinite(lost))) == (b >= 0.9)


def test_what_is_computed_after_others_is_the_same():
    x, y = {"a": jnp.arange(3.0)}, {"a": jnp.array([0.0, jnp.inf, -jnp.inf])}
    np.testing.assert_array_equal(tree.after(x, y, y)["a"], x["a"])
