"""Oracles of `_transform/sparsity`."""

import numpy as np
import optax
from entry import entry

import gradkit as gk

WAITS = {"extreme_gradient": "nothing moves until the mask is known"}


def count(density, size):
    return max(1, int(np.round(density * size)))


def chosen(scores, density):
    """{name: bool}: where the largest scores of all leaves together are."""
    everything = np.sort(np.concatenate([x.ravel() for x in scores.values()]))[::-1]
    least = everything[count(density, everything.size) - 1]
    return {k: x >= least for k, x in scores.items()}


@entry("mask_by_gradient_magnitude", density=0.6)
def gradient_magnitude(gs, ps, density):
    for g in gs:
        least = np.sort(np.abs(g).ravel())[::-1][count(density, g.size) - 1]
        yield np.where(np.abs(g) >= least, g, 0)


@entry("mask_by_fisher", whole=True, xfail=WAITS, density=0.6, samples=3)
def fisher(gs, ps, density, samples):
    mean = {k: np.mean([g[k] ** 2 for g in gs[:samples]], axis=0) for k in gs[0]}
    mask = chosen(mean, density)
    for t, g in enumerate(gs, 1):
        yield {k: (t > samples) * mask[k] * g[k] for k in g}


@entry("mask_by_disruption", whole=True, decay=0.7)
def disruption(gs, ps, decay):
    r = {k: np.zeros_like(x) for k, x in gs[0].items()}
    for g in gs:
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        r = {k: decay * r[k] + (1 - decay) * g[k] for k in g}
        yield {k: g[k] * (np.sign(g[k]) == np.sign(r[k])) / norm for k in g}


@entry(
    "mask_by_saliency",
    whole=True,
    fixed={"inner": gk.average_by_heavy_ball(0.9)},
    xfail=WAITS,
    density=0.6,
    samples=2,
)
def saliency(gs, ps, density, samples):
    mask = chosen({k: np.abs(sum(g[k] for g in gs[:samples])) for k in gs[0]}, density)
    m = {k: np.zeros_like(x) for k, x in gs[0].items()}
    for t, g in enumerate(gs, 1):
        if t > samples:
            m = {k: 0.9 * m[k] + g[k] for k in g}
        yield {k: (t > samples) * mask[k] * m[k] for k in g}


@entry("mask_by_small_weight", threshold=1.8, every=5)
def small_weight(gs, ps, threshold, every):
    mask = np.ones(gs[0].shape, bool)
    for t, (g, p) in enumerate(zip(gs, ps)):
        if t % every == 0:
            mask = mask & (np.abs(p) < threshold)
        yield mask * g


def first(scores, allowed, n):
    """Where the `n` largest scores are, of those allowed, in the shape of `scores`."""
    order = np.argsort(-np.where(allowed, scores, -1).ravel(), kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[order[: int(n)]] = True
    return mask.reshape(scores.shape)


@entry(
    "mask_by_regrowth",
    fixed={"inner": optax.sgd(0.1)},
    density=0.6,
    every=3,
    fraction=0.9,
    until=14.0,
)
def regrowth(gs, ps, density, every, fraction, until):
    k = count(density, gs[0].size)
    for t, (g, p) in enumerate(zip(gs, ps)):
        if g.ndim < 2:
            yield -0.1 * g
            continue
        if t == 0:
            mask = first(np.abs(p), np.ones(p.shape, bool), k)
        elif t % every == 0 and t < until:
            n = np.round(fraction / 2 * (1 + np.cos(np.pi * t / until)) * k)
            kept = first(np.abs(p), mask, k - n)
            mask = kept | first(np.abs(g), ~kept, n)
        yield np.where(mask, -0.1 * g, -p)


@entry("mask_by_annealing", threshold=0.7, alpha=0.6, steps=10.0)
def annealing(gs, ps, threshold, alpha, steps):
    for t, (g, p) in enumerate(zip(gs, ps)):
        cosine = (1 + np.cos(np.pi * t / steps)) / 2
        sigmoid = 1 - 1 / (1 + np.exp(-(-6 + 12 * t / steps)))
        left = alpha * max(cosine, sigmoid) if t < steps else 0
        yield np.where(np.abs(p) > threshold, g, left * g)
