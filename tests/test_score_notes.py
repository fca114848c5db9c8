"""Attention scores that are divided by the root of a width, which no optimizer sees to."""

import jax
import jax.numpy as jnp
import pytest
from inferred import infer, shape

from gradkit._lab import models


def attention(score, **sizes):
    def init(width):
        return {k: shape(3, width) for k in ("query", "key")}

    def apply(p, x):
        q, k = ((x @ p[n]).reshape(2, 5, 2, -1) for n in ("query", "key"))
        return jax.nn.softmax(score(q, k))

    return infer(init, apply, shape(2, 5, 3), **sizes).notes


BY_ROOT = {
    "after": lambda q, k: jnp.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5,
    "number first": lambda q, k: (
        q.shape[-1] ** -0.5 * jnp.einsum("bihd,bjhd->bhij", q, k)
    ),
    "divided": lambda q, k: jnp.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5,
    "before": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", q / jnp.sqrt(q.shape[-1]).astype(q.dtype), k
    ),
    "reciprocal": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", q * jax.lax.rsqrt(float(q.shape[-1])), k
    ),
    "rotated": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", models.rotate(q * q.shape[-1] ** -0.5), models.rotate(k)
    ),
    "half each": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", q * q.shape[-1] ** -0.25, k * k.shape[-1] ** -0.25
    ),
    "turned": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", (q * q.shape[-1] ** -0.5) @ jnp.eye(q.shape[-1]), k
    ),
    "carried": lambda q, k: jax.lax.while_loop(
        lambda c: c[0].sum() < 3,
        lambda c: (jnp.einsum("bihd,bjhd->bhij", q, k) * c[1], c[1]),
        (jnp.zeros((2, 2, 5, 5)), q.shape[-1] ** -0.5),
    )[0],
    "library": lambda q, k: jax.nn.dot_product_attention(q, k, k),
    "masked": lambda q, k: jnp.where(
        jnp.tri(5) > 0, jnp.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5, -1e9
    ),
}
OTHERWISE = {
    "by the width": lambda q, k: jnp.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1],
    "with a constant": lambda q, k: (
        jnp.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1]
        + (q @ jnp.ones(q.shape[-1]) * q.shape[-1] ** -0.5).sum()
    ),
    "of two scales": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", q * q.shape[-1] ** -0.5 + q * (2 * q.shape[-1] ** -0.5), k
    ),
    "base root": lambda q, k: (
        jnp.einsum("bihd,bjhd->bhij", q, k) * (4**0.5 / q.shape[-1])
    ),
    "library": lambda q, k: jax.nn.dot_product_attention(
        q, k, k, scale=1 / q.shape[-1]
    ),
}


@pytest.mark.parametrize("name", BY_ROOT)
def test_scores_divided_by_the_root_of_a_width_are_noted(name):
    (note,) = attention(BY_ROOT[name])
    assert "key, query" in note and "4 then 16" in note and "by its root" in note


LINEAR = {
    "add": lambda q: q + q,
    "concatenate": lambda q: jnp.concatenate([q, q], 1),
    "dynamic_slice": lambda q: jax.lax.dynamic_slice_in_dim(q, 1, 3, 1),
    "neg": jnp.negative,
    "pad": lambda q: jnp.pad(q, ((0, 0), (0, 1), (0, 0), (0, 0))),
    "rev": lambda q: jax.lax.rev(q, (1,)),
    "select_n": lambda q: jnp.where(jnp.arange(5)[None, :, None, None] > 2, q, -q),
    "slice": lambda q: jax.lax.slice_in_dim(q, 0, 3, axis=1),
    "split": lambda q: jnp.split(q, [2], 1)[0],
    "sub": lambda q: q - jax.lax.rev(q, (1,)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_scale_is_kept_by_what_is_linear(name):
    def scores(q, k):
        scaled = LINEAR[name](q * q.shape[-1] ** -0.5)
        return jnp.einsum("bihd,bjhd->bhij", scaled, k)

    assert "by its root" in attention(scores)[0]


def test_a_scale_may_be_computed():
    def scores(q, k):
        n, power = jnp.asarray(float(q.shape[-1])), jnp.asarray(-0.5)
        half = jax.lax.pow(n, power) / n * (n + n) / 4  # half of one over the root
        return jnp.einsum("bihd,bjhd->bhij", q, k) * (half - -half)

    assert "by its root" in attention(scores)[0]


def test_each_product_has_its_own_scale():
    def scores(q, k):
        both = jnp.einsum("bihd,bjhd->bhij", q, k), jnp.einsum("bihd,bjhd->bhij", k, k)
        return both[0] / q.shape[-1] + both[1] * q.shape[-1] ** -0.5

    (note,) = attention(scores)
    assert note.startswith("scores of key sum over a width, 4 then 16")


def test_scores_are_compared_with_delta_where_the_target_is_the_base():
    assert "by its root" in attention(BY_ROOT["after"], target=8, delta=32)[0]
    assert "4 then 16" in attention(BY_ROOT["after"], delta=16)[0]


def test_what_is_said_of_two_products_alike_is_said_once():
    (note,) = attention(lambda q, k: BY_ROOT["after"](q, k) + BY_ROOT["after"](q, k))
    assert "by its root" in note


@pytest.mark.parametrize("name", OTHERWISE)
def test_scores_divided_by_the_width_are_not(name):
    assert not any("scores" in note for note in attention(OTHERWISE[name]))
