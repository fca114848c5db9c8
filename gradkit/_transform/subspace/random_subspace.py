"""Intrinsic dimension: all parameters in one random subspace, by the Fastfood transform."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, random, shard, tree
from gradkit._core.condition import varying_as
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Transform,
    Updates,
    transform,
)


class RandomSubspaceState(NamedTuple):
    """State of `project_by_random_subspace`."""

    signs: jax.Array  # the diagonal of random signs, 1 or -1, [dimension]
    key: jax.Array  # data of the key of all other random numbers, uint32 [2]
    inner: optax.OptState


@factory
def project_by_random_subspace(
    inner: AnyTransform, *, dimension: int = 1024, key: random.Key = 0
) -> Transform:
    r"""Project the whole gradient onto one random subspace, and let `inner` act there.

    $$u = P \, \mathrm{inner}(P^T g), \qquad
      P_b = \sqrt{n / N} \, H G_b \Pi H \, \mathrm{diag}(\mathrm{signs})$$

    for the $N$ entries of all leaves, each leaf in blocks $b$ of $n$, the least power of two
    that is at least `dimension`. $H$ is the Walsh-Hadamard matrix of signs over $\sqrt n$,
    $\Pi$ a random order, $G_b$ a diagonal of normal numbers. On average $P^T P = I$. Only
    `signs` are kept.

    Args:
        inner: any transform; is given one vector `[dimension]`.
        dimension: of the subspace that updates stay in.
        key: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `0` bytes a leaf, `4*dimension + 8` once, and the state of `inner` on a vector.
    Flops: at most `(17*dimension**0.5 + 280)*(size + 2*dimension)` a leaf.
    Paper: Li and others, "Measuring the Intrinsic Dimension of Objective Landscapes",
        arXiv:1804.08838, section 2, with the Fastfood transform of Le, Sarlos and Smola.
    Departure: the blocks share `signs` and the order; their columns are of unit length on
        average, not each.
    Limits: nothing outside the subspace is ever reached. Sharded leaves are gathered.

    >>> tx = gk.project_by_random_subspace(optax.identity(), dimension=2)
    >>> u = jax.vmap(lambda g: tx.update(g, tx.init(g))[0])(jnp.eye(6))  # P P^T
    >>> int(jnp.linalg.matrix_rank(u, rtol=1e-4))
    2
    """
    name = "project_by_random_subspace"
    if not isinstance(dimension, jax.Array):  # under optax.inject_hyperparams
        check.count(name, dimension=dimension)
    check.nonnegative(name, key=key)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> RandomSubspaceState:
        first, later = jax.random.split(random.typed(key))
        zero = jnp.zeros(int(dimension), tree.zero_per_leaf(params).dtype)
        zero = varying_as(zero, params)
        half = jnp.float32(0.5)  # the same draw in every dtype
        heads = jax.random.bernoulli(first, half, zero.shape)
        signs = jnp.where(heads, 1, -1).astype(zero.dtype)
        return RandomSubspaceState(signs, jax.random.key_data(later), inner.init(zero))

    def update(
        updates: Updates,
        state: RandomSubspaceState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, RandomSubspaceState]:
        del params
        leaves, structure = jax.tree.flatten(updates)
        d, dtype = state.signs.size, state.signs.dtype
        n = 1 << (d - 1).bit_length()
        impl = jax.random.key_impl(random.typed(key))
        later = jax.random.wrap_key_data(state.key, impl=impl)
        order = jax.random.permutation(jax.random.fold_in(later, len(leaves)), n)
        length = math.sqrt(n / max(sum(x.size for x in leaves), 1))

        def gaussian(i: int, x: jax.Array) -> jax.Array:
            blocks = -(-x.size // n)
            return random.normals(jax.random.fold_in(later, i), (blocks, n), dtype)

        def gather(i: int, x: jax.Array) -> jax.Array:
            flat = shard.whole(numbers.finite(x)).astype(dtype).ravel()
            blocks = jnp.pad(flat, (0, -x.size % n)).reshape(-1, n)
            return jnp.sum(gaussian(i, x) * hadamard(blocks), axis=0)

        def spread(i: int, x: jax.Array, mixed: jax.Array) -> jax.Array:
            flat = hadamard(gaussian(i, x) * mixed[None]).ravel()[: x.size]
            return shard.alike(length * flat.reshape(x.shape), x)

        sums = sum(map(gather, range(len(leaves)), leaves), jnp.zeros(n, dtype))
        v = length * state.signs * hadamard(sums[jnp.argsort(order)])[:d]
        direction, inner_state = inner.update(v, state.inner, None, **extra)
        (step,) = jax.tree.leaves(direction)
        mixed = hadamard(jnp.pad(state.signs * step, (0, n - d)))[order]
        u = structure.unflatten(spread(i, x, mixed) for i, x in enumerate(leaves))
        return numbers.like(u, updates), state._replace(inner=inner_state)

    return transform(init, update)


def hadamard(x: jax.Array) -> jax.Array:
    """The orthonormal Walsh-Hadamard transform of the last axis, a power of two long."""
    n = x.shape[-1]
    a = 1 << (n.bit_length() // 2)
    square = x.reshape(*x.shape[:-1], a, n // a)
    return (signs(a, x.dtype) @ square @ signs(n // a, x.dtype)).reshape(x.shape)


def signs(n: int, dtype: jnp.dtype) -> jax.Array:
    """The orthonormal Walsh-Hadamard matrix."""
    i = jnp.arange(n, dtype=jnp.uint32)
    odd = jax.lax.population_count(i[:, None] & i[None]) % 2
    return (1 - 2 * odd.astype(dtype)) / jnp.sqrt(jnp.asarray(n, dtype))
