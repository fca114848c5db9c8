"""Oracles of methods on matrices, and of the recipes that stand on them."""

import numpy as np
import optax
from entry import entry, golden

import gradkit as gk

SHAPES = {"tall": (8, 3), "wide": (3, 8), "square": (4, 4), "conv": (2, 2, 3, 4)}
WITH_BIAS = {**SHAPES, "bias": (4,)}


def polar(g, eps):
    """Muon's five quintic steps, done on the singular values, and its scale."""
    matrix = g.reshape(-1, g.shape[-1])
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.linalg.norm(matrix) + eps)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    rows, cols = matrix.shape
    return np.sqrt(max(1, cols / rows)) * ((u * s) @ vt).reshape(g.shape)


def wide(g):
    """The leaf as a matrix with no more rows than columns."""
    matrix = g.reshape(-1, g.shape[-1])
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def unwide(matrix, g):
    """The way back from `wide`."""
    *rows, cols = g.shape
    return (matrix.T if np.prod(rows) > cols else matrix).reshape(g.shape)


def subspaces(gs, rank, every):
    """For every gradient, the basis at that step and the gradient as a wide matrix."""
    for t, g in enumerate(map(wide, gs), 1):
        if (t - 1) % every == 0:
            p = np.linalg.svd(g)[0][:, :rank]
            p = p * np.sign(p[np.abs(p).argmax(0), np.arange(p.shape[1])])
        yield p, g


class Trace:
    """`optax.trace(0.9)`."""

    m = 0.0

    def __call__(self, g):
        self.m = 0.9 * self.m + g
        return self.m


class Adam:
    """The Adam of GaLore's release: eps is added before debiasing."""

    def __init__(self, b1, b2, eps):
        self.b1, self.b2, self.eps = b1, b2, eps
        self.t, self.m, self.v = 0, 0.0, 0.0

    def __call__(self, g):
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        debias = np.sqrt(1 - self.b2**self.t) / (1 - self.b1**self.t)
        return debias * self.m / (np.sqrt(self.v) + self.eps)


def galore_directions(inner, gs, rank, every, scale):
    for (p, g), leaf in zip(subspaces(gs, rank, every), gs):
        yield unwide(scale * p @ inner(p.T @ g), leaf)


def fira_directions(inner, gs, rank, every, scale, growth, eps):
    last = None
    for (p, g), leaf in zip(subspaces(gs, rank, every), gs):
        r = p.T @ g
        n = inner(r)
        k = np.linalg.norm(n, axis=0) / (np.linalg.norm(r, axis=0) + eps)
        s = k * (g - p @ r)
        if last is not None:
            s = s * growth / max(np.linalg.norm(s) / last, growth)
        last = np.linalg.norm(s)
        yield unwide(scale * (p @ n + s), leaf)


@entry("normalize_by_polar", shapes=SHAPES, eps=0.1)
def normalize_by_polar(gs, ps, eps):
    for g in gs:
        yield polar(g, eps)


@entry(
    "project_by_svd",
    shapes=SHAPES,
    fixed={"inner": optax.trace(0.9)},
    rank=2,
    every=5,
    scale=0.5,
)
def project_by_svd(gs, ps, rank, every, scale):
    yield from galore_directions(Trace(), gs, rank, every, scale)


@entry(
    "project_by_fira",
    shapes=SHAPES,
    fixed={"inner": optax.trace(0.9)},
    rank=2,
    every=5,
    scale=0.5,
    growth=1.01,
    eps=1e-2,
)
def project_by_fira(gs, ps, rank, every, scale, growth, eps):
    yield from fira_directions(Trace(), gs, rank, every, scale, growth, eps)


@entry(
    "muon",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    momentum=0.9,
    eps=0.1,
    adam_ratio=0.5,
    b1=0.9,
    b2=0.99,
    adam_eps=1e-3,
    weight_decay=0.1,
)
def muon(
    gs, ps, learning_rate, momentum, eps, adam_ratio, b1, b2, adam_eps, weight_decay
):
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        if g.ndim > 1:
            rate = learning_rate
            m = momentum * m + (1 - momentum) * g
            d = polar((1 - momentum) * g + momentum * m, eps)
        else:
            rate = learning_rate * adam_ratio
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + adam_eps)
        yield -rate * (d + weight_decay * p)


@entry(
    "galore",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    scale=0.5,
    b1=0.9,
    b2=0.99,
    eps=1e-2,
    weight_decay=0.1,
)
def galore(gs, ps, learning_rate, rank, every, scale, b1, b2, eps, weight_decay):
    adam = Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        directions = galore_directions(adam, gs, rank, every, scale)
    else:
        directions = map(adam, gs)
    for d, p in zip(directions, ps):
        yield -learning_rate * (d + weight_decay * p)


@entry(
    "fira",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    scale=0.5,
    growth=1.01,
    b1=0.9,
    b2=0.99,
    eps=1e-2,
    column_eps=1e-2,
    weight_decay=0.1,
)
def fira(
    gs,
    ps,
    learning_rate,
    rank,
    every,
    scale,
    growth,
    b1,
    b2,
    eps,
    column_eps,
    weight_decay,
):
    adam = Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        directions = fira_directions(adam, gs, rank, every, scale, growth, column_eps)
    else:
        directions = map(adam, gs)
    for d, p in zip(directions, ps):
        yield -learning_rate * (d + weight_decay * p)


golden("muon", lambda: gk.muon(0.02, weight_decay=0.1), transpose=True)
golden(
    "galore_adamw",  # its release decays what the update left: (p + u) (1 - lr wd)
    lambda: optax.chain(
        gk.galore(1e-2, rank=3, every=1000, b2=0.99),
        optax.scale(1 - 1e-2 * 0.02),
        gk.decay_by_weight(1e-2 * 0.02),
    ),
    transpose=True,
)
