"""Oracles of normalizers that split along the weights, and of Gravity."""

import jax
import jax.numpy as jnp
import numpy as np
from entry import entry

import gradkit as gk


@entry(
    "normalize_by_tangent",
    fixed={"inner": gk.average_by_heavy_ball(0.9)},
    delta=1.3,
)
def tangent(gs, ps, delta):
    d = 0.0
    for g, w in zip(gs, ps):
        d = g + 0.9 * d
        yield projected(d, g, w, delta)


def projected(d, g, w, delta):
    """`d` without its part along `w`, in the first view whose gradients are orthogonal."""
    if g.ndim < 2:
        return d
    for view in (lambda x: x.T, lambda x: x.reshape(1, -1)):
        rows = view(g), view(w)
        cosines = [
            abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(*rows)
        ]
        if max(cosines) < delta / np.sqrt(rows[1].shape[1]):
            u = [x - (x @ b) / (b @ b) * b for x, b in zip(view(d), rows[1])]
            u = np.array(u)
            return u.T if len(u) > 1 else u.reshape(d.shape)
    return d


@entry("normalize_by_parallel_split", decay=0.6, max_norm=2.0, parallel=0.3)
def parallel_split(gs, ps, decay, max_norm, parallel):
    m = 0.0
    for g, w in zip(gs, ps):
        m = g - decay * m
        d = m * min(1.0, max_norm / np.linalg.norm(m))
        along = np.sum(d * w) / np.sum(w * w) * w
        yield d - along + parallel * along


@entry(
    "normalize_by_gravity",
    whole=True,
    xfail={
        "extreme_gradient": "the inverse cube of a gradient of 1e25 is 0 in float32",
        "partition_norms": "each group draws its own first velocities",
    },
    decay=0.8,
    start=0.2,
    key=7,
)
def gravity(gs, ps, decay, start, key):
    v = {}
    for i, (k, g) in enumerate(sorted(gs[0].items())):
        now = jax.random.fold_in(jax.random.key(key), i)
        v[k] = start * np.float64(jax.random.normal(now, g.shape, jnp.float32))
    for t, g in enumerate(gs):
        b = (decay * t + 1) / (t + 2)
        for k in g:
            most = 1 / np.max(np.abs(g[k]))
            zeta = g[k] / (1 + (g[k] / most) ** 2)
            v[k] = b * v[k] + (1 - b) * zeta
        yield dict(v)
