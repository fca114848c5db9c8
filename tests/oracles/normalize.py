"""Oracles of `_transform/normalize`."""

import numpy as np
import optax
from entry import entry, golden

import gradkit as gk


@entry("normalize_by_block")
def block(gs, ps):
    for g in gs:
        yield g / np.linalg.norm(g)


@entry("normalize_by_orthograd")
def orthograd(gs, ps):
    for g, w in zip(gs, ps):
        if g.size == 1:  # nothing is orthogonal
            yield np.zeros_like(g)
            continue
        o = g - np.sum(w * g) / (np.sum(w * w) + 1e-30) * w
        yield o * np.linalg.norm(g) / (np.linalg.norm(o) + 1e-30)


golden(
    "orthograd_sgd",
    lambda: optax.chain(gk.normalize_by_orthograd(), gk.step_by_learning_rate(0.01)),
)
