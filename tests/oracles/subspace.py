"""Oracles of methods that act in a few dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from entry import entry

import gradkit as gk
from oracles._few_dimensions import (
    BY_ORDER,
    GRASS,
    SHAPES,
    DebiasedAdam,
    Trace,
    by_leaf,
    carried,
    columns,
    inside,
    jumps,
    keys,
    momentum_inside,
    normal,
    orthonormal,
    principal,
    recovered,
    rescaled,
    shadows,
    signed,
    svd_bases,
    tall,
    walks,
    weight_norm,
    wide,
)

TRACE = {"inner": optax.trace(0.9)}


@entry(
    "project_by_svd",
    shapes=SHAPES,
    fixed={"side": "large", **TRACE},
    rank=2,
    every=5,
    scale=0.5,
)
def project_by_svd(gs, ps, rank, every, scale):
    """On the large side; `galore` is on the small one."""
    trace = Trace()
    for t, (leaf, g) in enumerate(zip(gs, map(tall, gs))):
        if t % every == 0:
            p = principal(g, rank)
        u = scale * p @ trace(p.T @ g)
        yield (u if u.shape[1] == leaf.shape[-1] else u.T).reshape(leaf.shape)


@entry(
    "project_by_fira",
    shapes=SHAPES,
    fixed=TRACE,
    rank=2,
    every=5,
    scale=0.5,
    growth=1.01,
    eps=1e-2,
    floor=0.7,
)
def project_by_fira(gs, ps, rank, every, scale, growth, eps, floor):
    bases = svd_bases(gs, rank, every)
    yield from recovered(bases, gs, Trace(), scale, growth, eps, floor)


@entry(
    "project_by_range_finder",
    whole=True,
    shapes={"a": (12, 14), "b": (14, 12), "c": (3, 8)},
    xfail=BY_ORDER,
    fixed=TRACE,
    rank=2,
    every=5,
    scale=0.5,
    key=7,
)
def project_by_range_finder(gs, ps, rank, every, scale, key):
    leaves = len(gs[0])
    _, now = keys(key, leaves, len(gs))

    def bases(i, gs):
        for t, g in enumerate(map(wide, gs)):
            if t == 0 or (t - i * every // leaves) % every == 0:
                own = jax.random.fold_in(jax.random.fold_in(now[t], i), 0)
                q = orthonormal(g @ columns(own, g.shape[1], min(rank + 8, len(g))))
                p = signed(q @ np.linalg.svd(q.T @ g)[0][:, :rank])
            yield p, g

    yield from by_leaf(lambda i, gs: inside(bases(i, gs), gs, Trace(), scale), gs)


@entry(
    "project_by_power_iteration",
    whole=True,
    shapes=SHAPES,
    xfail=BY_ORDER,
    fixed=TRACE,
    rank=2,
    every=3,
    scale=0.5,
    key=7,
)
def project_by_power_iteration(gs, ps, rank, every, scale, key):
    starts, _ = keys(key, len(gs[0]), len(gs))

    def bases(i, gs):
        p = orthonormal(normal(starts[i], len(wide(gs[0])), rank))
        for t, g in enumerate(map(wide, gs)):
            if t % every == 0:
                p = orthonormal(g @ (g.T @ p))
            yield p, g

    yield from by_leaf(lambda i, gs: inside(bases(i, gs), gs, Trace(), scale), gs)


@entry("project_by_dct", shapes=SHAPES, fixed=TRACE, rank=2, overlap=0.8, scale=0.5)
def project_by_dct(gs, ps, rank, overlap, scale):
    first, last = 1.0, 0.0

    def bases():
        nonlocal first, last
        for g in map(wide, gs):
            m = len(g)
            c = np.cos(np.pi / m * np.outer(np.arange(m) + 0.5, np.arange(m)))
            c = c / np.linalg.norm(c, axis=0)
            renew = last <= overlap * first
            if renew:
                energy = np.sum((c.T @ g) ** 2, axis=1)
                p = c[:, np.argsort(-energy)[:rank]]
            last = np.linalg.norm(p.T @ g) / np.linalg.norm(g)
            first = last if renew else first
            yield p, g

    yield from inside(bases(), gs, Trace(), scale)


@entry(
    "project_by_random",
    whole=True,
    shapes=SHAPES,
    xfail=BY_ORDER,
    fixed={"inner": optax.scale_by_sign()},
    rank=2,
    every=5,
    scale=0.5,
    growth=1.01,
    eps=1e-2,
    floor=0.7,
    key=7,
)
def project_by_random(gs, ps, rank, every, scale, growth, eps, floor, key):
    _, now = keys(key, len(gs[0]), len(gs))

    def run(i, gs):
        bases = shadows(gs, rank, every, i, now)
        return rescaled(bases, gs, np.sign, scale, growth, eps, 0, floor)

    yield from by_leaf(run, gs)


@entry(
    "project_by_grass_walk",
    whole=True,
    shapes=SHAPES,
    fixed={"inner": gk.scale_by_adam(0.9, b2=0.99, eps=1e-3)},
    angle=0.5,
    b1=0.9,
    b2=0.99,
    key=7,
    **GRASS,
)
def project_by_grass_walk(
    gs, ps, rank, every, scale, angle, growth, eps, floor, b1, b2, key
):
    _, now = keys(key, len(gs[0]), len(gs))

    def run(i, gs):
        adam = DebiasedAdam(b1, b2, 1e-3)
        bases = carried(walks(gs, rank, every, angle, i, now), adam)
        return recovered(bases, gs, adam, scale, growth, eps, floor)

    yield from by_leaf(run, gs)


@entry(
    "project_by_grass_jump",
    whole=True,
    shapes=SHAPES,
    xfail=BY_ORDER,
    fixed={"inner": gk.scale_by_adam(0.9, b2=0.99, eps=1e-3)},
    b1=0.9,
    b2=0.99,
    key=7,
    **GRASS,
)
def project_by_grass_jump(gs, ps, rank, every, scale, growth, eps, floor, b1, b2, key):
    _, now = keys(key, len(gs[0]), len(gs))

    def run(i, gs):
        adam = DebiasedAdam(b1, b2, 1e-3)
        bases = carried(jumps(gs, rank, every, i, now), adam)
        return recovered(bases, gs, adam, scale, growth, eps, floor)

    yield from by_leaf(run, gs)


@entry("project_by_subspace_momentum", shapes=SHAPES, fixed=TRACE, rank=2, every=5)
def project_by_subspace_momentum(gs, ps, rank, every):
    yield from momentum_inside(gs, rank, every, Trace)


def hadamard(n):
    """Sylvester's matrix, orthonormal."""
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


@entry(
    "project_by_random_subspace",
    whole=True,
    shapes={"bias": (4,), "gain": (), "kernel": (6, 4)},
    fixed=TRACE,
    xfail={
        "state_bytes": "what `inner` keeps of one vector is no formula of a leaf",
        **BY_ORDER,
    },
    dimension=5,
    key=7,
)
def project_by_random_subspace(gs, ps, dimension, key):
    first, later = jax.random.split(jax.random.key(key))
    names, n, trace = sorted(gs[0]), 8, Trace()
    sizes = [gs[0][k].size for k in names]
    signs = np.float64(jax.random.rademacher(first, (dimension,), jnp.float32))
    order = np.asarray(jax.random.permutation(jax.random.fold_in(later, 3), n))
    h = hadamard(n)
    base = (h[order] @ np.eye(n, dimension)) * signs  # the order, of H diag(signs)
    p = []
    for i, size in enumerate(sizes):
        blocks = normal(jax.random.fold_in(later, i), -(-size // n), n)
        p.append(np.concatenate([h @ np.diag(b) @ base for b in blocks])[:size])
    p = np.concatenate(p) * np.sqrt(n / sum(sizes))
    for g in gs:
        flat = np.concatenate([g[k].ravel() for k in names])
        parts = np.split(p @ trace(p.T @ flat), np.cumsum(sizes)[:-1])
        yield {k: x.reshape(g[k].shape) for k, x in zip(names, parts)}


def memory(grads):
    """Two directions for each leaf, orthonormal but for scale; the second is free."""
    rows = lambda g: g.size // g.shape[-1]
    first = lambda g: jnp.full((rows(g), 1), max(rows(g), 1) ** -0.5, g.dtype)
    pair = lambda g: jnp.concatenate([first(g), 0 * first(g)], 1)
    return {"basis": jax.tree.map(pair, grads)}


@entry("project_by_null_space", shapes=SHAPES, extra=memory)
def project_by_null_space(gs, ps):
    for g in gs:
        matrix = g.reshape(-1, g.shape[-1])
        yield (matrix - matrix.mean(0)).reshape(g.shape)


@entry("project_by_weight_norm", shapes=SHAPES, fixed=TRACE, rank=2, every=5, scale=0.5)
def project_by_weight_norm(gs, ps, rank, every, scale):
    directions, lengths = Trace(), Trace()
    yield from weight_norm(gs, ps, rank, every, scale, directions, lengths)
