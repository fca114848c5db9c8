"""No batch of matrices reaches LAPACK on a CPU, where threads that wait for its parts can hang."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import catalogue
from gradkit._core.matrix import lapack
from gradkit.testing import Subject

FACTORIZATIONS = {
    "eigh",
    "geqrf",
    "householder_product",
    "svd",
    "cholesky",
    "qr",
    "triangular_solve",
}
ROOMS = ("precondition", "subspace", "manifold")
METHODS = [m.name for m in catalogue.METHODS if m.family in ROOMS]
METHODS.remove("precondition_by_paired_factors")  # wants pairs of its own
METHODS.remove("project_by_null_space")  # wants bases, and factors nothing


def equations(jaxpr):
    """All equations, those inside loops and branches too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def batches(f, *args) -> list[tuple[str, tuple[int, ...]]]:
    """What is factored, and of what shape, where that is more than a matrix."""
    found = equations(jax.make_jaxpr(f)(*args).jaxpr)
    return [
        (e.primitive.name, e.invars[0].aval.shape)
        for e in found
        if e.primitive.name in FACTORIZATIONS and e.invars[0].aval.ndim > 2
    ]


@pytest.mark.parametrize("name", METHODS)
def test_no_batch_is_factored(name: str) -> None:
    """Neither of leaves of one shape, nor where a whole training is mapped over seeds."""
    tx = Subject(getattr(gk, name)).tx
    g = {"a": jnp.ones((2, 4, 6)), "b": jnp.ones((2, 4, 6)), "c": jnp.ones((2, 5, 5))}
    state = jax.vmap(tx.init)(g)
    assert not batches(jax.vmap(lambda g, s: tx.update(g, s, g)), g, state)


def test_batches_are_found() -> None:
    x = jnp.ones((3, 4, 4))
    assert batches(jax.jit(jnp.linalg.eigh), x) == [("eigh", (3, 4, 4))]


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6), (2, 3, 4, 6), (0, 4, 6)])
def test_one_by_one_is_all_at_once(shape: tuple[int, ...]) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    for f, due in (
        (lambda x: lapack.qr_diagonal(x.mT), qr_diagonal),
        (lapack.svd, functools.partial(jnp.linalg.svd, full_matrices=False)),
    ):
        for a, b in zip(f(x), due(x), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def qr_diagonal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    q, r = jnp.linalg.qr(x.mT)
    return q, jnp.diagonal(r, axis1=-2, axis2=-1)
