"""Oracles of `_recipes`: each named optimizer written out whole, as its paper does."""

import numpy as np
from entry import entry, golden

import gradkit as gk


@entry("adamw", learning_rate=0.1, b1=0.9, b2=0.99, eps=1e-3, weight_decay=0.1)
def adamw(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield -learning_rate * (d + weight_decay * p)


@entry(
    "ademamix",
    learning_rate=0.1,
    b1=0.9,
    b2=0.99,
    b3=0.995,
    alpha=2.0,
    eps=1e-3,
    weight_decay=0.1,
)
def ademamix(gs, ps, learning_rate, b1, b2, b3, alpha, eps, weight_decay):
    m = s = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        s = b3 * s + (1 - b3) * g
        v = b2 * v + (1 - b2) * g**2
        d = (m / (1 - b1**t) + alpha * s) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield -learning_rate * (d + weight_decay * p)


@entry("grams", learning_rate=0.1, b1=0.9, b2=0.99, eps=1e-3, weight_decay=0.1)
def grams(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield -learning_rate * (np.sign(g) * np.abs(d) + weight_decay * p)


golden("adamw", lambda: gk.adamw(1e-2, b2=0.99, weight_decay=0.1))
golden("grams", lambda: gk.grams(1e-2, weight_decay=0.02))
