"""Oracles of `_transform/momentum`."""

import numpy as np
import optax
from entry import entry


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
