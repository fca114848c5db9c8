"""Oracles of methods that follow, or stand in for, Muon's polar factor."""

import jax
import numpy as np
from entry import entry

from oracles.matrix import SHAPES, WITH_BIAS, polar


def mean_square(o):
    """Of every neuron, an entry of the last axis."""
    return np.mean(o**2, axis=tuple(range(o.ndim - 1)))


def neuron_norm(directions, decay, eps):
    v = 0.0
    for o in directions:
        v = decay * v + (1 - decay) * mean_square(o)
        even = o / (np.sqrt(v) + eps)
        yield np.linalg.norm(o) / np.linalg.norm(even) * even


def adam(gs, b1, b2, eps):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        yield m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)


def dion_directions(gs, q, decay, eps, consistent_rms=None):
    """The release, on matrices `[out, in]`, which are ours transposed."""
    m = 0.0
    for g in gs:
        m = m + g.reshape(-1, g.shape[-1]).T
        p = np.linalg.qr(m @ q)[0]
        r = m.T @ p
        m = m - (1 - decay) * p @ r.T
        q = r / (np.linalg.norm(r, axis=0) + eps)
        rows, cols = m.shape
        scale = np.sqrt(rows / cols)
        if consistent_rms is not None:
            scale = consistent_rms * np.sqrt(rows * cols / q.shape[1])
        yield (scale * p @ q.T).T.reshape(g.shape)


def first_bases(shapes, rank, key):
    """A random start for each leaf: columns of norm one."""
    for shape in shapes:
        rows, cols = int(np.prod(shape[:-1])), shape[-1]
        side = (rows, min(rank, rows, cols))
        q = np.float64(jax.random.normal(jax.random.key(key), side, np.float32))
        yield q / np.linalg.norm(q, axis=0)


@entry("scale_by_neuron_norm", shapes=SHAPES, decay=0.9, eps=0.1)
def scale_by_neuron_norm(gs, ps, decay, eps):
    yield from neuron_norm(gs, decay, eps)


@entry(
    "project_by_dion",
    whole=True,
    shapes=SHAPES,
    rank=2,
    decay=0.9,
    eps=0.1,
    key=3,
)
def project_by_dion(gs, ps, rank, decay, eps, key, consistent_rms=None):
    names = sorted(SHAPES)
    starts = first_bases([SHAPES[k] for k in names], rank, key)
    runs = {
        k: dion_directions([g[k] for g in gs], q, decay, eps, consistent_rms)
        for k, q in zip(names, starts)
    }
    for _ in gs:
        yield {k: next(run) for k, run in runs.items()}


@entry(
    "normuon",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    momentum=0.9,
    eps=0.1,
    neuron_decay=0.8,
    neuron_eps=0.1,
    adam_lr_ratio=0.5,
    b1=0.9,
    b2=0.99,
    adam_eps=1e-3,
    weight_decay=0.1,
)
def normuon(
    gs,
    ps,
    learning_rate,
    momentum,
    eps,
    neuron_decay,
    neuron_eps,
    adam_lr_ratio,
    b1,
    b2,
    adam_eps,
    weight_decay,
    consistent_rms=None,
):
    if gs[0].ndim > 1:
        rate = learning_rate
        polars = muon(gs, momentum, eps, consistent_rms)
        directions = neuron_norm(polars, neuron_decay, neuron_eps)
    else:
        rate = learning_rate * adam_lr_ratio
        directions = adam(gs, b1, b2, adam_eps)
    for d, p in zip(directions, ps):
        yield -rate * (d + weight_decay * p)


def muon(gs, momentum, eps, consistent_rms):
    m = 0.0
    for g in gs:
        m = momentum * m + (1 - momentum) * g
        yield polar((1 - momentum) * g + momentum * m, eps, consistent_rms)


@entry(
    "dion",
    whole=True,
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    momentum=0.9,
    eps=0.1,
    adam_lr_ratio=0.5,
    b1=0.9,
    b2=0.99,
    adam_eps=1e-3,
    weight_decay=0.1,
    key=3,
)
def dion(
    gs,
    ps,
    learning_rate,
    rank,
    momentum,
    eps,
    adam_lr_ratio,
    b1,
    b2,
    adam_eps,
    weight_decay,
    key,
    consistent_rms=None,
):
    matrices = project_by_dion(gs, ps, rank, momentum, eps, key, consistent_rms)
    vectors = adam([g["bias"] for g in gs], b1, b2, adam_eps)
    slow = learning_rate * adam_lr_ratio
    for p, u, d in zip(ps, matrices, vectors):
        step = {k: -learning_rate * (u[k] + weight_decay * p[k]) for k in u}
        yield {**step, "bias": -slow * (d + weight_decay * p["bias"])}
