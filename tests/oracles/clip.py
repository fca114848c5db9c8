"""Oracles of `_transform/clip`."""

import numpy as np
import optax
from entry import entry, golden

import gradkit as gk


def norm(tree):
    """The Euclidean norm of {name: array} as one vector."""
    return np.sqrt(sum(np.sum(g**2) for g in tree.values()))


@entry("clip_by_global_norm", whole=True, max_norm=6.5)
def global_norm(gs, ps, max_norm):
    for g in gs:
        factor = min(1.0, max_norm / norm(g))
        yield {k: factor * x for k, x in g.items()}


@entry("clip_by_component_norm", max_norm=2.0)
def component_norm(gs, ps, max_norm):
    for g in gs:
        yield g * min(1.0, max_norm / np.linalg.norm(g))


@entry("clip_by_unit_norm", max_ratio=0.9, eps=1.5)
def unit_norm(gs, ps, max_ratio, eps):
    for g, w in zip(gs, ps):
        if g.ndim < 2:
            yield g * min(
                1.0, max_ratio * max(np.linalg.norm(w), eps) / np.linalg.norm(g)
            )
            continue
        u = np.zeros_like(g)
        for j in range(g.shape[-1]):
            most = max_ratio * max(np.linalg.norm(w[..., j]), eps)
            u[..., j] = g[..., j] * min(1.0, most / np.linalg.norm(g[..., j]))
        yield u


@entry("clip_by_percentile", whole=True, percentile=30.0, history=4)
def percentile(gs, ps, percentile, history):
    norms = []
    for g in gs:
        norms = [*norms, norm(g)][-history:]
        limit = np.percentile(norms, percentile)
        factor = min(1.0, limit / norms[-1])
        yield {k: factor * x for k, x in g.items()}


@entry(
    "clip_by_zscore",
    whole=True,
    max_zscore=0.4,
    decay=0.9,
    warmup=4,
    eps=1e-2,
    max_norm=6.9,
)
def zscore(gs, ps, max_zscore, decay, warmup, eps, max_norm):
    first, mean, variance = [], 0.0, 0.0
    for g in gs:
        n = limit = norm(g)
        if len(first) < warmup:
            first.append(n)
            mean, variance = np.mean(first), np.var(first)
        else:
            z = (n - mean) / (np.sqrt(variance) + eps)
            if z > max_zscore:
                limit = mean + max_zscore * np.sqrt(variance) / (z / max_zscore)
            mean = decay * mean + (1 - decay) * limit
            variance = decay * variance + (1 - decay) * (limit - mean) ** 2
        yield {k: min(limit, max_norm, n) / n * x for k, x in g.items()}


@entry(
    "clip_by_ema_norm",
    whole=True,
    max_ratio=1.2,
    decay=0.9,
    max_norm=6.5,
    warmup=4,
)
def ema_norm(gs, ps, max_ratio, decay, max_norm, warmup):
    gamma = {k: np.inf for k in gs[0]}
    for t, g in enumerate(gs, 1):
        u = {}
        for k in g:
            if t < warmup:
                u[k] = g[k] * min(1.0, max_norm / norm(g))
                gamma[k] = min(gamma[k], np.linalg.norm(u[k]))
            else:
                u[k] = g[k] * min(1.0, max_ratio * gamma[k] / np.linalg.norm(g[k]))
                gamma[k] = decay * gamma[k] + (1 - decay) * np.linalg.norm(u[k])
        yield u


golden(
    "autoclip_p25",
    lambda: optax.chain(gk.clip_by_percentile(25.0), gk.step_by_learning_rate(0.1)),
)
golden(
    "zclip",
    lambda: optax.chain(
        gk.clip_by_zscore(1.5, warmup=15), gk.step_by_learning_rate(0.1)
    ),
)
