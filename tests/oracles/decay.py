"""Oracles of `_step/decay`, those besides `decay_by_weight`."""

import numpy as np
import optax
from entry import entry


@entry("decay_by_unit_norm", weight_decay=0.1)
def unit_norm(gs, ps, weight_decay):
    for u, p in zip(gs, ps):
        slope = np.zeros_like(p)
        for i in range(p.shape[-1]) if p.ndim > 1 else []:
            w = p[..., i]
            norm = np.sqrt(np.sum(w**2))
            slope[..., i] = -2 * (1 - norm) * w / norm
        yield u - weight_decay * slope


@entry(
    "decay_by_relevance", fixed={"inner": optax.sgd(0.1)}, weight_decay=0.1, scale=0.5
)
def relevance(gs, ps, weight_decay, scale):
    for g, p in zip(gs, ps):
        yield -0.1 * g - weight_decay * np.exp(-np.abs(g) / scale) * p
