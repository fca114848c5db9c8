"""An upper bound on the spectral norm of a dense layer or a convolution, by Gram matrices."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, numbers
from gradkit._core.derivative import root
from gradkit._core.matrix.linalg import PRECISE
from gradkit._core.measure import figure

NAME = "measure_by_gram_norm"
ROUNDINGS = 8  # in eps times the root of the smaller side


class GramNorm(NamedTuple):
    """Upper bounds of the largest singular value of a layer."""

    bound: jax.Array  # [], after the last step
    bounds: jax.Array  # [steps + 1], before the first and after each, falling
    by_frequency: jax.Array  # [*frequencies], of a convolution; [] of a dense layer

    def plot(self, axes: Any = None) -> Any:
        """`plot_gram_norm` of this result."""
        return plot_gram_norm(self, axes)


def measure_by_gram_norm(
    weight: jax.Array, input_shape: Sequence[int] = (), steps: int = 6
) -> GramNorm:
    r"""Bound the largest singular value of a layer from above, differentiably.

    $$G_0 = W, \qquad G_{t+1} = G_t^* G_t, \qquad
      \sigma_1(W) \le \lVert G_t \rVert_F^{2^{-t}} \longrightarrow \sigma_1(W)$$

    with $t$ up to `steps`; every $G_t$ is divided by its norm, whose logarithm is kept. A
    circular convolution is a matrix $W_f$ of channels at every frequency $f$ of its input, of
    which the largest bound is that of the layer. The bound is at most
    $r^{1 / 2^{t+1}}$ times too large, $r$ the smaller side of $W$, and mostly much closer.

    Args:
        weight: `[in, out]` of a dense layer, or the kernel `[*window, in, out]` of a convolution,
            as Flax has them.
        input_shape: the sizes of the convolution's input along the axes of the window, each at
            least the window's; `()` of a dense layer.
        steps: products of matrices.

    Paper: Delattre, Barthélemy, Araujo and Allauzen, "Efficient Bound of Lipschitz Constant for
        Convolutional Layers by Gram Iteration", arXiv:2305.16173.
    Departure: the first product is $W W^*$ where that is smaller, with the same singular values.
        Only half of the frequencies of a real kernel are computed, as the others are conjugates. Scales are
        constants to the derivative, which does not depend on them; the bound is raised by 8
        eps times the root of the smaller side, so that rounding does not bring it below the norm.
    Limits: one group, no stride, no dilation; circular padding. Zero padding to
        any size is a part of the circular convolution of an input `window - 1` larger along each axis:
        give that as `input_shape`. Leaves of stacked layers: `jax.vmap` over them. Where several
        singular values are equal the derivative is of all of them. Of zeros, bound and
        derivative are 0; of what is not finite, nan.

    >>> w = jnp.diag(jnp.array([3.0, 1.0, 1.0]))
    >>> print(*(f"{x:.3f}" for x in gk.measure_by_gram_norm(w, steps=3).bounds))
    3.317 3.018 3.000 3.000
    """
    _check(weight, input_shape)
    check.count(NAME, steps=steps)

    return _run(weight, tuple(input_shape), steps)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _run(weight: jax.Array, input_shape: tuple[int, ...], steps: int) -> GramNorm:
    g = weight.astype(numbers.wide_dtype(weight))
    if input_shape:
        window = tuple(range(len(input_shape)))
        g = jnp.fft.rfftn(g, input_shape, window)
    if g.shape[-2] < g.shape[-1]:
        g = g.mT  # of which the Gram matrix is the smaller one
    kind = jnp.finfo(g.dtype)
    raised = 1 + ROUNDINGS * float(kind.eps) * g.shape[-1] ** 0.5
    whole = jax.lax.stop_gradient(_size(g))
    g = _over(g, whole)

    def bound(g: jax.Array, logarithm: jax.Array, t: Any) -> jax.Array:
        norm = _power(_squares(g), 0.5 ** (t + 1))
        return (raised * whole * jnp.exp(logarithm) * norm)[..., 0, 0]

    def step(carry: Any, t: jax.Array) -> Any:
        g, logarithm = carry
        g = jnp.matmul(g.mT.conj(), g, precision=PRECISE)
        size = jax.lax.stop_gradient(_size(g))
        logarithm += 0.5**t * jnp.log(jnp.where(size > 0, size, 1))
        g = _over(g, size)
        return (g, logarithm), bound(g, logarithm, t)

    t = jnp.arange(steps + 1, dtype=kind.dtype)
    zero = jnp.zeros_like(whole)
    carry, first = step((g, zero), t[1])  # here g becomes square
    others = jax.lax.scan(step, carry, t[2:])[1]
    bounds = jnp.concatenate([jnp.stack([bound(g, zero, t[0]), first]), others])
    largest = jnp.max(bounds.reshape(steps + 1, -1), 1)
    return GramNorm(largest[-1], largest, bounds[-1])


def _check(weight: Any, input_shape: Sequence[int]) -> None:
    """The weight has the axes that its input asks for."""
    is_real = numbers.is_real(weight)
    want, got = "weight must be a real floating array", getattr(weight, "dtype", weight)
    check.holds(NAME, is_real, want, got, "Pass the kernel of a layer.")
    axes = len(input_shape)
    want = f"weight must have {axes} axes of the window, then in and out"
    remedy = "Give input_shape one size for each axis of the window, () of a matrix."
    check.holds(NAME, weight.ndim == axes + 2, want, f"shape {weight.shape}", remedy)
    want = "weight must have one entry or more"
    check.holds(NAME, weight.size > 0, want, f"shape {weight.shape}", "Pass another.")
    fits = all(n >= k for n, k in zip(input_shape, weight.shape))
    want = f"input_shape must be at least the window {weight.shape[:axes]}"
    check.holds(NAME, fits, want, tuple(input_shape), "Bound a smaller window.")


def _squares(g: jax.Array) -> jax.Array:
    """Sums of squares of matrices, with `keepdims`."""
    squares = jnp.square(g.real) + jnp.square(g.imag)
    return jnp.sum(squares, (-2, -1), keepdims=True)


def _size(g: jax.Array) -> jax.Array:
    """Frobenius norms, with `keepdims`, without overflow."""
    parts = jnp.maximum(jnp.abs(g.real), jnp.abs(g.imag))
    most = jnp.max(parts, (-2, -1), keepdims=True)
    return most * root(_squares(_over(g, most)))


def _over(g: jax.Array, size: jax.Array) -> jax.Array:
    """`g / size`, or `g` where that is 0."""
    return g / jnp.where(size > 0, size, 1).astype(g.dtype)


def _power(x: jax.Array, power: jax.Array) -> jax.Array:
    """`x` to a positive power, with derivative 0 at 0."""
    return jnp.where(x > 0, jnp.where(x > 0, x, 1) ** power, x)


def plot_gram_norm(result: GramNorm, axes: Any = None) -> Any:
    """Draw how the bound falls from the Frobenius norm with the steps.

    Args:
        result: of `measure_by_gram_norm`, with numbers that are known.
        axes: of matplotlib; those of a new figure if None.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_gram_norm", axes)
    bounds = np.asarray(result.bounds)
    axes.plot(np.arange(len(bounds)), bounds, "o-", color="C0")
    axes.axhline(bounds[-1], color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="Gram matrices", ylabel="upper bound of the spectral norm")
    title = f"{float(result.bound):.4g} after {len(bounds) - 1}"
    axes.set_title(title if np.isfinite(bounds[-1]) else "not finite")
    axes.locator_params(axis="x", integer=True)
    return axes
