"""Functions of one entry that XLA computes without a call for each: as exact as those of NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit._core.derivative import angle, cube_root


def sizes(dtype, seed):
    """Positive numbers of all sizes."""
    rng = np.random.default_rng(seed)
    return (10.0 ** rng.uniform(-30, 30, 10_000)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_angle_is_that_of_atan2(dtype):
    x, y = sizes(dtype, 0), sizes(dtype, 1)
    y[::2] = x[::2] * np.random.default_rng(2).uniform(0.1, 10, len(x) // 2)
    y[::3] *= -1
    want = np.arctan2(y.astype(np.float64), x)
    rtol = 1e-14 if dtype == np.float64 else 5e-7  # of the polynomial
    with jax.enable_x64(dtype == np.float64):
        got = jax.jit(angle)(y, x)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-37)
        ends = angle(jnp.array([0, 1, -1, 0], dtype), jnp.array([0, 0, 0, 1], dtype))
    np.testing.assert_allclose(ends, [0, np.pi / 2, -np.pi / 2, 0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_cube_root_is_that_of_numpy(dtype):
    x = sizes(dtype, 0)
    with jax.enable_x64(dtype == np.float64):
        got = jax.jit(cube_root)(x)
        assert got.dtype == dtype and cube_root(jnp.zeros([], dtype)) == 0
    want = np.cbrt(x.astype(np.float64))
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps)


def test_slopes_are_those_of_the_functions_and_0_at_0():
    slope = jax.grad(angle, (0, 1))
    np.testing.assert_allclose(slope(3.0, 4.0), (4 / 25, -3 / 25), rtol=1e-6)
    np.testing.assert_array_equal(slope(0.0, 0.0), (0, 0))
    np.testing.assert_allclose(jax.grad(cube_root)(8.0), 1 / 12, rtol=1e-6)
    assert jax.grad(cube_root)(0.0) == 0
