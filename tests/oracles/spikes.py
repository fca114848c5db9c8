"""Oracles of clips by the size of entries and slices, by a median, and by Adam on norms."""

import numpy as np
from entry import entry


@entry("clip_by_spike", decay=0.8)
def spike(gs, ps, decay):
    average = 0.0
    for t, g in enumerate(gs, 1):
        largest = np.max(np.abs(g))
        average = decay * average + (1 - decay) * largest
        limit = average / (1 - decay**t)
        yield np.where(np.abs(g) > limit, g / largest * limit, g)


@entry("clip_by_slice_norm", max_norm=1.2, axes=(-2,))
def slice_norm(gs, ps, max_norm, axes):
    for g in gs:
        columns = g if g.ndim == 2 else np.reshape(g, (1, -1))  # else entry by entry
        u = np.zeros_like(columns)
        for j in range(columns.shape[1]):
            norm = np.linalg.norm(columns[:, j])
            u[:, j] = columns[:, j] * min(1.0, max_norm / norm)
        yield u.reshape(g.shape)


@entry(
    "clip_by_median",
    whole=True,
    xfail={
        "partition_norms": "clipped is the distance to a memory that each group has"
    },
    max_norm=2.0,
)
def median(gs, ps, max_norm):
    m = {k: np.zeros_like(g) for k, g in gs[0].items()}
    for g in gs:
        away = {k: g[k] - m[k] for k in g}
        norm = np.sqrt(sum(np.sum(x**2) for x in away.values()))
        m = {k: m[k] + min(1.0, max_norm / norm) * away[k] for k in g}
        yield m


@entry("scale_by_gradient_norm", b1=0.7, b2=0.9, eps=1e-2)
def gradient_norm(gs, ps, b1, b2, eps):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        n = np.linalg.norm(g)
        m = b1 * m + (1 - b1) * n
        v = b2 * v + (1 - b2) * n**2
        yield g / n * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


@entry("normalize_by_norm_power", whole=True, power=0.6)
def norm_power(gs, ps, power):
    for g in gs:
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        yield {k: x / norm**power for k, x in g.items()}
