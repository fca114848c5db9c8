"""Oracles of `_transform/normalize`."""

import numpy as np
import optax
from entry import entry, golden

import gradkit as gk


@entry("normalize_by_block")
def block(gs, ps):
    for g in gs:
        yield g / np.linalg.norm(g)


@entry(
    "normalize_by_orthograd",  # of one entry it leaves nothing: see test_family_laws
    shapes={"kernel": (6, 4), "wide": (3, 5), "bias": (4,)},
)
def orthograd(gs, ps):
    for g, w in zip(gs, ps):
        o = g - np.sum(w * g) / (np.sum(w * w) + 1e-30) * w
        yield o * np.linalg.norm(g) / (np.linalg.norm(o) + 1e-30)


@entry(
    "normalize_by_dual_norm",
    whole=True,
    shapes={
        "kernel": (6, 4),
        "conv": (2, 2, 5),
        "embedding": (5, 3),
        "bias": (4,),
        "s": (),
    },
)
def dual_norm(gs, ps):
    for g in gs:
        norms = np.linalg.norm(g["embedding"], axis=1, keepdims=True)
        yield {
            "kernel": np.sqrt(4 / 6) * newton_schulz(g["kernel"]),
            "conv": np.sqrt(5 / 4)
            * newton_schulz(g["conv"].reshape(4, 5)).reshape(2, 2, 5),
            "embedding": np.sqrt(3) * g["embedding"] / norms,
            "bias": np.sign(g["bias"]),
            "s": np.sign(g["s"]),
        }


def newton_schulz(g):
    """About `U V^T` of `g`: five steps of the quintic on its singular values."""
    left, values, right = np.linalg.svd(g, full_matrices=False)
    x = values / np.linalg.norm(g)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return left @ np.diag(x) @ right


golden(
    "orthograd_sgd",
    lambda: optax.chain(gk.normalize_by_orthograd(), gk.step_by_learning_rate(0.01)),
)
