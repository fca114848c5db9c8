"""Lanczos' method on the Hessian of a loss, whose products with vectors are derivatives of gradients.

A vector is a tree like the parameters: of parameters that are sharded over a mesh, so is every vector.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, numbers, random, tree
from gradkit._core.measure.loss import one_number, parameters
from gradkit._core.numbers import Tree

Loss = Callable[[Tree], jax.Array]
Product = Callable[[Tree], Tree]  # of a symmetric matrix with a vector
PRECISE = jax.lax.Precision.HIGHEST
BROKEN = 16  # in eps: the part of a product that lies in the span is rounded to this


class Tridiagonal(NamedTuple):
    """The matrix in the basis of a Krylov space: `vectors^T H vectors`."""

    diagonal: jax.Array  # [steps]
    beside: jax.Array  # [steps], beside the diagonal; the last is the residual's
    vectors: Tree  # the basis: a leaf `[steps, *shape]` for each parameter


class Eigenpairs(NamedTuple):
    """Estimates of eigenvalues of the Hessian, the largest first, and of their eigenvectors."""

    values: jax.Array  # [count]
    vectors: Tree  # orthonormal, one leaf `[count, *shape]` for each parameter
    residuals: jax.Array  # [count], |H v - value v|: some eigenvalue is as near as this


def hessian_product(loss: Loss, params: Tree) -> Product:
    """The product of the Hessian of `loss` at `params` with a tree like these.

    It is nan where the loss is not finite: derivatives alone need not show that.
    """

    def product(v: Tree) -> Tree:
        found, changes = jax.jvp(jax.value_and_grad(loss), (params,), (v,))
        return jax.tree.map(lambda x: x + (0 * found[0]).astype(x.dtype), changes[1])

    return product


def top_eigenvalues(
    loss_at: Loss, params: Tree, count: int, steps: int, key: random.Key
) -> jax.Array:
    """The `count` largest eigenvalues of the Hessian of `loss_at` at `params`, the largest first.

    `steps` products are made, or one for each parameter if these are fewer.
    """
    check_loss("top_eigenvalues", loss_at, params, count, steps)
    return top_eigenpairs(loss_at, params, count, steps, key).values


def top_eigenpairs(
    loss: Loss, params: Tree, count: int, steps: int, key: random.Key
) -> Eigenpairs:
    """As `top_eigenvalues`, with eigenvectors and the errors of both."""
    params = numbers.wide(params)
    start = normal_like(random.typed(key), params)
    found = tridiagonal(hessian_product(loss, params), start, min(steps, size(params)))
    return largest(found, count)


def check_loss(method: str, loss: Loss, params: Tree, count: int, steps: int) -> None:
    """Check that `loss` is one number, and that `count` eigenvalues are there and can be found."""
    check.count(method, count=count, steps=steps)
    parameters(method, params)
    want = f"count must be at most the number of parameters {size(params)}"
    check.holds(method, count <= size(params), want, count, "Ask for fewer.")
    want = f"count must be at most steps = {steps}"
    check.holds(method, count <= steps, want, count, "Take more steps.")
    one_number(method, loss, numbers.wide(params))


def size(params: Tree) -> int:
    """The number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))


def normal_like(key: jax.Array, params: Tree) -> Tree:
    """Standard normal numbers for every parameter, in at least float32."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [random.normals(k, x.shape, x.dtype) for k, x in zip(keys, leaves)]
    return structure.unflatten(drawn)


def tridiagonal(product: Product, start: Tree, steps: int) -> Tridiagonal:
    """Lanczos' matrix of a symmetric `product` from a vector `start`, in so many steps.

    Each new vector is orthogonalized twice against all before it: in float32, eigenvalues else
    appear more than once. Where the space ends before, as at a Hessian of low rank, `beside` is 0
    and another vector begins a new one.
    """
    kind = tree.zero_per_leaf(start).dtype
    empty = jnp.zeros([steps], bool)
    basis = jax.tree.map(
        lambda x: jnp.where(empty.reshape(-1, *[1] * x.ndim), x[None], 0), start
    )

    def step(carry: Any, i: jax.Array) -> Any:
        basis, v, scale = carry
        basis = jax.tree.map(lambda b, x: b.at[i].set(x), basis, v)
        w = product(v)
        diagonal = tree.dot(v, w)
        w = orthogonal_to(basis, w)
        beside = norm(w)
        scale = jnp.maximum(scale, jnp.maximum(jnp.abs(diagonal), beside))
        goes_on = beside > BROKEN * jnp.finfo(kind).eps * scale
        another = lambda: orthogonal_to(basis, _patternless(i, v))
        new = unit(jax.lax.cond(goes_on, lambda: w, another))
        return (basis, new, scale), (diagonal, jnp.where(goes_on, beside, 0))

    carry = basis, unit(start), jnp.zeros([], kind)
    (basis, _, _), (diagonal, beside) = jax.lax.scan(step, carry, jnp.arange(steps))
    return Tridiagonal(diagonal, beside, basis)


def tridiagonals(
    product: Product, params: Tree, steps: int, key: jax.Array, count: int
) -> Tridiagonal:
    """Lanczos' matrices from `count` random vectors like `params`, each uniform on the sphere.

    `diagonal` and `beside` are `[count, steps]`. `vectors` are those of the last.
    """

    def probe(last: Tree, key: jax.Array) -> Any:
        found = tridiagonal(product, normal_like(key, params), steps)
        return found.vectors, (found.diagonal, found.beside)

    basis = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (steps, *x.shape)), params)
    keys = jax.random.split(key, count)
    vectors, (diagonal, beside) = jax.lax.scan(probe, basis, keys)
    return Tridiagonal(diagonal, beside, vectors)


def orthogonal_to(basis: Tree, w: Tree) -> Tree:
    """`w` without its part in the span of the orthonormal `basis`; twice, as rounding leaves some."""
    for _ in range(2):
        part = combined(basis, coefficients(basis, w)[None])
        w = jax.tree.map(lambda x, y: x - y[0], w, part)
    return w


def coefficients(basis: Tree, w: Tree) -> jax.Array:
    """The inner products `[vectors]` of the trees that `basis` stacks with `w`."""
    products = jax.tree.map(
        lambda b, x: jnp.sum(b * x[None], axis=tuple(range(1, b.ndim))), basis, w
    )
    kind = tree.zero_per_leaf(w).dtype
    return jnp.sum(jnp.stack([x.astype(kind) for x in jax.tree.leaves(products)]), 0)


def combined(basis: Tree, weights: jax.Array) -> Tree:
    """The combinations `weights @ basis`, stacked along the first axis of every leaf."""
    return jax.tree.map(
        lambda b: jnp.tensordot(weights.astype(b.dtype), b, 1, precision=PRECISE), basis
    )


def eigensystem(diagonal: jax.Array, beside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The eigenvalues of Lanczos' matrix, the smallest first, and its eigenvectors as columns."""
    over = jnp.diag(beside[:-1], 1)
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + over + over.T)
    return values, vectors + 0 * values[None]  # of nan, which LAPACK's need not be


def largest(found: Tridiagonal, count: int) -> Eigenpairs:
    """The eigenpairs of the `count` largest eigenvalues in the space that was searched."""
    values, y = eigensystem(found.diagonal, found.beside)
    values, y = values[: -count - 1 : -1], y[:, : -count - 1 : -1]
    return Eigenpairs(
        values, combined(found.vectors, y.T), jnp.abs(found.beside[-1] * y[-1])
    )


def norm(v: Tree) -> jax.Array:
    """The norm of a tree, without overflow or underflow; leaves are not joined, as shards may be."""
    kind = tree.zero_per_leaf(v).dtype
    most = [jnp.max(jnp.abs(x), initial=0).astype(kind) for x in jax.tree.leaves(v)]
    scale = numbers.divisible(jnp.max(jnp.stack(most)))
    unit = jax.tree.map(lambda x: x / scale.astype(x.dtype), v)
    return scale * jnp.sqrt(tree.dot(unit, unit))


def unit(v: Tree) -> Tree:
    """`v` at norm 1; zeros if it is zero."""
    return tree.scale(numbers.inverse(norm(v)), v)


def _patternless(i: jax.Array, v: Tree) -> Tree:
    """Numbers in [-1, 1) like `v`, others for every `i`: hashes of the places of entries."""
    leaves, structure = jax.tree.flatten(v)
    drawn = []
    for n, x in enumerate(leaves):
        strides = np.cumprod([1, *x.shape[:0:-1]])[::-1]
        mixed = jnp.full(x.shape, i * len(leaves) + n).astype(jnp.uint32)
        mixed = mixed * np.uint32(0x85EBCA6B)
        for axis, stride in enumerate(strides[: x.ndim]):
            places = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
            mixed += places * np.uint32(stride % 2**32) * np.uint32(0x9E3779B9)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            mixed = (mixed ^ mixed >> np.uint32(shift)) * np.uint32(factor)
        signed = jax.lax.bitcast_convert_type(mixed, jnp.int32)
        drawn.append(signed.astype(x.dtype) / 2.0**31)
    return structure.unflatten(drawn)
