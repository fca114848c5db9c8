"""Oracles of `_transform/adaptive`."""

import numpy as np
import optax
from entry import entry, golden

import gradkit as gk


@entry("scale_by_adam", b1=0.9, b2=0.99, eps=1e-3)
def adam(gs, ps, b1, b2, eps):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        yield m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)


@entry("scale_by_second_moment", fixed={"inner": optax.trace(0.9)}, b2=0.99, eps=1e-3)
def second_moment(gs, ps, b2, eps):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m = 0.9 * m + g
        v = b2 * v + (1 - b2) * g**2
        yield m / (np.sqrt(v / (1 - b2**t)) + eps)


golden("adam", lambda: gk.adamw(1e-2, b2=0.99, weight_decay=0.0))
