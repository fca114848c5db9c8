"""Arithmetic that every method stands on, where it is not that of any other library."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit._core import tree


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
    for found in (tree.opaque(x), jax.jit(tree.opaque)(x)):
        got, want = np.asarray(found, np.float32), np.asarray(x, np.float32)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
    known = jax.jit(lambda: tree.opaque(jnp.zeros([], dtype)))()
    assert known == 0 and not np.signbit(np.float32(known))


@pytest.mark.optimized
def test_an_angle_where_all_is_known_to_be_zero() -> None:
    """The state too: the first update, compiled with the first state."""
    tx, p = gk.scale_by_adam_atan2(), jnp.zeros(4)
    u, _ = jax.jit(lambda p: tx.update(jnp.zeros_like(p), tx.init(p), p))(p)
    np.testing.assert_array_equal(u, np.zeros(4))


def test_a_clip_factor_divides_by_no_zero() -> None:
    with jax.debug_nans(True), jax.debug_infs(True):
        found = tree.clip_factor(jnp.array([0.0, 1.0, 4.0]), 2.0)
        np.testing.assert_array_equal(found, [1.0, 1.0, 0.5])
        np.testing.assert_array_equal(tree.clip_factor(jnp.zeros(1), 0.0), [1.0])
