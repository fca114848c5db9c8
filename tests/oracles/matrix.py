"""Oracles of methods on matrices, and of the recipes that stand on them."""

import numpy as np
from entry import entry, golden

import gradkit as gk

SHAPES = {"tall": (8, 3), "wide": (3, 8), "square": (4, 4), "conv": (2, 2, 3, 4)}
WITH_BIAS = {**SHAPES, "bias": (4,)}


def polar(g, eps, consistent_rms=None):
    """Muon's five quintic steps, done on the singular values, and its scale or Moonlight's."""
    matrix = g.reshape(-1, g.shape[-1])
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.linalg.norm(matrix) + eps)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    rows, cols = matrix.shape
    scale = np.sqrt(max(1, cols / rows))
    if consistent_rms is not None:
        scale = consistent_rms * np.sqrt(max(rows, cols))
    return scale * ((u * s) @ vt).reshape(g.shape)


@entry("normalize_by_polar", shapes=SHAPES, eps=0.1)
def normalize_by_polar(gs, ps, eps, consistent_rms=None):
    for g in gs:
        yield polar(g, eps, consistent_rms)


@entry(
    "muon",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    momentum=0.9,
    eps=0.1,
    adam_lr_ratio=0.5,
    b1=0.9,
    b2=0.99,
    adam_eps=1e-3,
    weight_decay=0.1,
)
def muon(
    gs,
    ps,
    learning_rate,
    momentum,
    eps,
    adam_lr_ratio,
    b1,
    b2,
    adam_eps,
    weight_decay,
    consistent_rms=None,
):
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        if g.ndim > 1:
            rate = learning_rate
            m = momentum * m + (1 - momentum) * g
            d = polar((1 - momentum) * g + momentum * m, eps, consistent_rms)
        else:
            rate = learning_rate * adam_lr_ratio
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + adam_eps)
        yield -rate * (d + weight_decay * p)


golden("muon", lambda: gk.muon(0.02, weight_decay=0.1), transpose=True)
golden(
    "muon_rms",
    lambda: gk.muon(0.01, weight_decay=0.1, consistent_rms=0.2),
    transpose=True,
)
