"""Oracles of methods that look at the change of the gradient, and of their recipes."""

import numpy as np
from entry import entry


def adan_directions(gs, b1, b2, b3, eps):
    m = d = v = 0.0
    for t, g in enumerate(gs, 1):
        change = g - gs[t - 2] if t > 1 else 0 * g
        m = b1 * m + (1 - b1) * g
        d = b2 * d + (1 - b2) * change
        v = b3 * v + (1 - b3) * (g + b2 * change) ** 2
        top = m / (1 - b1**t) + b2 * d / (1 - b2**t)
        yield top / (np.sqrt(v / (1 - b3**t)) + eps)


@entry("scale_by_adan", b1=0.9, b2=0.8, b3=0.99, eps=1e-3)
def adan_direction(gs, ps, b1, b2, b3, eps):
    return adan_directions(gs, b1, b2, b3, eps)


@entry(
    "adan",
    learning_rate=0.1,
    b1=0.9,
    b2=0.8,
    b3=0.99,
    eps=1e-3,
    weight_decay=0.1,
)
def adan(gs, ps, learning_rate, b1, b2, b3, eps, weight_decay):
    for d, p in zip(adan_directions(gs, b1, b2, b3, eps), ps):
        yield p * (1 - learning_rate * weight_decay) - learning_rate * d - p


@entry("average_by_mars", gamma=0.5, b1=0.9)
def mars_correction(gs, ps, gamma, b1):
    before = 0.0
    for g in gs:
        yield g + gamma * b1 / (1 - b1) * (g - before)
        before = g


@entry(
    "mars",
    learning_rate=0.1,
    gamma=0.05,
    max_norm=2.0,
    b1=0.9,
    b2=0.99,
    eps=1e-3,
    weight_decay=0.1,
)
def mars(gs, ps, learning_rate, gamma, max_norm, b1, b2, eps, weight_decay):
    before = m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        c = g + gamma * b1 / (1 - b1) * (g - before)
        before, norm = g, np.linalg.norm(np.ravel(c))
        c = c * max_norm / norm if norm > max_norm else c
        m = b1 * m + (1 - b1) * c
        v = b2 * v + (1 - b2) * c**2
        d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield -learning_rate * (weight_decay * p + d)
