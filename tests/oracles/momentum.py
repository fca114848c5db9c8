"""Oracles of `_transform/momentum`."""

import numpy as np
import optax
from entry import entry, golden

import gradkit as gk


@entry("average_by_ademamix", b1=0.9, b3=0.99, alpha=2.0)
def ademamix(gs, ps, b1, b3, alpha):
    fast = slow = 0.0
    for t, g in enumerate(gs, 1):
        fast = b1 * fast + (1 - b1) * g
        slow = b3 * slow + (1 - b3) * g
        yield fast / (1 - b1**t) + alpha * slow


@entry("direct_by_grams", fixed={"inner": optax.trace(0.9)})
def grams(gs, ps):
    m = 0.0
    for g in gs:
        m = 0.9 * m + g
        yield np.sign(g) * np.abs(m)


@entry("average_by_heavy_ball", decay=0.9)
def heavy_ball(gs, ps, decay):
    m = 0.0
    for g in gs:
        m = g + decay * m
        yield m


@entry("average_by_nesterov", decay=0.9)
def nesterov(gs, ps, decay):
    m = 0.0
    for g in gs:
        m = g + decay * m
        yield g + decay * m


@entry("average_by_lion", b1=0.9, b2=0.8)
def lion(gs, ps, b1, b2):
    m = 0.0
    for g in gs:
        yield np.sign(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g


@entry("direct_by_caution", fixed={"inner": optax.trace(0.9)}, eps=1.0)
def caution(gs, ps, eps):
    m = 0.0
    for g in gs:
        m = 0.9 * m + g
        kept = m * g > 0
        yield m * kept * np.size(g) / (np.sum(kept) + eps)


def cautious_lion():
    """The authors' C-Lion, with its decoupled weight decay."""
    return gk.chain(
        gk.direct_by_caution(gk.average_by_lion()),
        gk.step_by_learning_rate(1e-3),
        gk.decay_by_weight(1e-3 * 0.1),
    )


golden("cautious_lion", cautious_lion)
