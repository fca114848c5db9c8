"""Oracles of what is done to the update or the state of another transform."""

import numpy as np
from entry import entry

import gradkit as gk


@entry(
    "reset_by_period",
    fixed={"inner": gk.scale_by_adam(0.9, b2=0.99, eps=1e-3)},
    every=5,
)
def reset(gs, ps, every):
    for t, g in enumerate(gs):
        if t % every == 0:
            m = v = k = 0
        m, v, k = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2, k + 1
        yield m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.99**k)) + 1e-3)


@entry("clip_by_norm_growth", max_growth=1.01, floor=1.0)
def norm_growth(gs, ps, max_growth, floor):
    last = np.inf
    for g in gs:
        norm = np.linalg.norm(g)
        limit = max(max_growth * last, floor)
        if norm > limit:
            g = g / norm * limit
        last = np.linalg.norm(g)
        yield g


@entry("normalize_by_trust_ratio", weight_decay=0.1, min_norm=1.5, max_norm=4.5)
def trust_ratio(gs, ps, weight_decay, min_norm, max_norm):
    for d, p in zip(gs, ps):
        length = np.linalg.norm(p)
        phi = min(max(length, min_norm), max_norm)
        ratio = phi / (np.linalg.norm(d) + weight_decay * length)
        yield ratio * (d + weight_decay * p)


@entry("retract_by_hyperball")
def hyperball(gs, ps):
    radius = np.linalg.norm(ps[0])
    for u, p in zip(gs, ps):
        new = radius * (p + u) / np.linalg.norm(p + u)
        yield new - p if p.ndim > 1 else u


@entry(
    "retract_by_radial_brake",
    shapes={"kernel": (6, 4), "pair": (1, 2), "one": (1, 1, 1), "bias": (4,)},
    outward=0.5,
    inward=0.8,
)
def radial_brake(gs, ps, outward, inward):
    for u, p in zip(gs, ps):
        before, after = np.linalg.norm(p), np.linalg.norm(p + u)
        share = outward if after > before else inward
        radius = before + share * (after - before)
        yield radius * (p + u) / after - p if p.ndim > 1 else u


@entry("step_by_weight_floor", floor=0.9)
def weight_floor(gs, ps, floor):
    for d, w in zip(gs, ps):
        u = np.array(d)
        for j in range(d.shape[-1]) if d.ndim > 1 else []:
            least = floor * np.linalg.norm(w[..., j])
            u[..., j] *= max(1, least / np.linalg.norm(d[..., j]))
        yield u


@entry("decay_by_caution", weight_decay=0.1)
def cautious_decay(gs, ps, weight_decay):
    for u, x in zip(gs, ps):
        direction = -u  # what the paper subtracts
        yield u - weight_decay * (direction * x >= 0) * x
