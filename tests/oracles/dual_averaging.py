"""Oracles of dual averaging: parameters as a function of where they began."""

import numpy as np
from entry import entry


def dual_averages(gs, p0, learning_rate, eps):
    s = v = 0.0
    for t, g in enumerate(gs):
        weight = (learning_rate + eps) * np.sqrt(t + 1)
        s = s + weight * g
        v = v + weight * g**2
        yield p0 - s / (np.cbrt(v) + eps)


@entry("scale_by_madgrad", learning_rate=0.1, momentum=0.9, eps=1e-2)
def madgrad_direction(gs, ps, learning_rate, momentum, eps):
    for z, p in zip(dual_averages(gs, ps[0], learning_rate, eps), ps):
        yield p - (momentum * p + (1 - momentum) * z)


@entry("madgrad", learning_rate=0.1, momentum=0.9, eps=1e-2, weight_decay=0.1)
def madgrad(gs, ps, learning_rate, momentum, eps, weight_decay):
    for z, p in zip(dual_averages(gs, ps[0], learning_rate, eps), ps):
        new = momentum * p + (1 - momentum) * z
        yield new - learning_rate * weight_decay * p - p
