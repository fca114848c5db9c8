"""Oracles of recipes that act in a few dimensions, on each matrix, and plainly on other leaves."""

import numpy as np
import optax
from entry import entry, golden

import gradkit as gk
from oracles._few_dimensions import (
    BY_ORDER,
    GRASS,
    LIMITS,
    SHAPES,
    Adam,
    DebiasedAdam,
    carried,
    inside,
    jumps,
    keys,
    momentum_inside,
    recovered,
    rescaled,
    shadows,
    svd_bases,
    walks,
    weight_norm,
)

WITH_BIAS = {"bias": (4,), **SHAPES}
ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-2, "weight_decay": 0.1}


def recipe(run, gs, ps, adams, learning_rate, weight_decay):
    """`run(i, gs, adam)` for matrices, counted from 0; Adam for the rest."""
    names = sorted(gs[0])
    matrices = [k for k in names if gs[0][k].ndim > 1]
    runs = {}
    for k in names:
        own, adam = [g[k] for g in gs], adams()
        is_matrix = k in matrices
        ds = run(matrices.index(k), own, adam) if is_matrix else map(adam, own)
        runs[k] = [-learning_rate * (d + weight_decay * p[k]) for d, p in zip(ds, ps)]
    for t in range(len(gs)):
        yield {k: runs[k][t] for k in names}


@entry(
    "galore",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    scale=0.5,
    **ADAM,
)
def galore(gs, ps, learning_rate, rank, every, scale, b1, b2, eps, weight_decay):
    adam = Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        directions = inside(svd_bases(gs, rank, every), gs, adam, scale)
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
    floor=0.7,
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
    floor,
    b1,
    b2,
    eps,
    column_eps,
    weight_decay,
):
    limits = scale, growth, column_eps, floor
    adam = Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        bases = svd_bases(gs, rank, every)
        directions = recovered(bases, gs, adam.biased, *limits)
    else:
        directions = map(adam.biased, gs)
    for d, p in zip(directions, ps):
        yield -learning_rate * (adam.debias() * d + weight_decay * p)


golden(
    "galore_adamw",  # its release decays what the update left: (p + u) (1 - lr wd)
    lambda: optax.chain(
        gk.galore(1e-2, rank=3, every=1000, b2=0.99),
        optax.scale(1 - 1e-2 * 0.02),
        gk.decay_by_weight(1e-2 * 0.02),
    ),
    transpose=True,
)


def apollo_steps(
    gs, ps, learning_rate, rank, every, scale, growth, floor, b1, b2, eps,
    shadow_eps, weight_decay, key, axis,
):  # fmt: skip
    """APOLLO's release: Adam debiased last."""
    _, now = keys(key, sum(g.ndim > 1 for g in gs[0].values()), len(gs))

    def run(i, gs, adam):
        bases = shadows(gs, rank, every, i, now)
        limits = scale, growth, shadow_eps, axis, floor
        for d in rescaled(bases, gs, adam.biased, *limits):
            yield adam.debias() * d

    adams = lambda: Adam(b1, b2, eps)
    yield from recipe(run, gs, ps, adams, learning_rate, weight_decay)


APOLLO = {"shadow_eps": 1e-2, "key": 7, **LIMITS, **ADAM}


@entry(
    "apollo",
    whole=True,
    shapes=WITH_BIAS,
    xfail=BY_ORDER,
    learning_rate=0.1,
    rank=2,
    every=5,
    **APOLLO,
)
def apollo(gs, ps, **hyper):
    yield from apollo_steps(gs, ps, axis=0, **hyper)


@entry(
    "apollo_mini",
    whole=True,
    shapes=WITH_BIAS,
    xfail=BY_ORDER,
    learning_rate=0.1,
    every=5,
    **APOLLO,
)
def apollo_mini(gs, ps, **hyper):
    yield from apollo_steps(gs, ps, rank=1, axis=None, **hyper)


GRASS_RECIPE = {"learning_rate": 0.1, "column_eps": 1e-2, "key": 7, **ADAM}
GRASS_RECIPE |= {k: v for k, v in GRASS.items() if k != "eps"}


def grass_steps(
    gs, ps, find, learning_rate, rank, every, scale, growth, floor, b1, b2, eps,
    column_eps, weight_decay, key,
):  # fmt: skip
    """Adam on one of the Grassmann subspaces."""
    _, now = keys(key, sum(g.ndim > 1 for g in gs[0].values()), len(gs))

    def run(i, gs, adam):
        bases = carried(find(gs, rank, every, i, now), adam)
        return recovered(bases, gs, adam, scale, growth, column_eps, floor)

    adams = lambda: DebiasedAdam(b1, b2, eps)
    yield from recipe(run, gs, ps, adams, learning_rate, weight_decay)


@entry(
    "grass_walk",
    whole=True,
    shapes=WITH_BIAS,
    angle=0.5,
    **GRASS_RECIPE,
)
def grass_walk(gs, ps, angle, **hyper):
    find = lambda gs, rank, every, i, now: walks(gs, rank, every, angle, i, now)
    yield from grass_steps(gs, ps, find, **hyper)


@entry("grass_jump", whole=True, shapes=WITH_BIAS, xfail=BY_ORDER, **GRASS_RECIPE)
def grass_jump(gs, ps, **hyper):
    yield from grass_steps(gs, ps, jumps, **hyper)


class Average:
    """An average that is not debiased."""

    def __init__(self, decay):
        self.decay, self.m = decay, 0.0

    def __call__(self, g):
        self.m = self.decay * self.m + (1 - self.decay) * g
        return self.m


@entry(
    "snsm",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    **ADAM,
)
def snsm(gs, ps, learning_rate, rank, every, b1, b2, eps, weight_decay):
    average = lambda: Average(b1)
    if gs[0].ndim > 1:
        numerators = momentum_inside(gs, rank, every, average)
    else:
        numerators = map(average(), gs)
    size = gs[0].size
    k = max(k for k in range(1, size + 1) if size % k == 0 and k * k <= size)
    v = 0.0
    for t, (d, g, p) in enumerate(zip(numerators, gs, ps), 1):
        v = b2 * v + (1 - b2) * np.sum(g.reshape(-1, k) ** 2, axis=1)
        root = np.repeat(np.sqrt(v) + eps, k).reshape(g.shape)
        debias = np.sqrt(1 - b2**t) / (1 - b1**t)
        yield -learning_rate * (debias * d / root + weight_decay * p)


@entry(
    "lorp",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    scale=0.5,
    **ADAM,
)
def lorp(gs, ps, learning_rate, rank, every, scale, b1, b2, eps, weight_decay):
    adam, lengths = Adam(b1, b2, eps), Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        directions = weight_norm(gs, ps, rank, every, scale, adam, lengths)
    else:
        directions = map(adam, gs)
    for d, p in zip(directions, ps):
        yield -learning_rate * (d + weight_decay * p)
