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


@entry("scale_by_amsgrad", b1=0.9, b2=0.5, eps=1e-3)
def amsgrad(gs, ps, b1, b2, eps):
    m = v = largest = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v)
        yield m / (1 - b1**t) / (np.sqrt(largest / (1 - b2**t)) + eps)


@entry("scale_by_adabound", b1=0.9, b2=0.99, eps=1e-3, final_ratio=2.0, gamma=0.5)
def adabound(gs, ps, b1, b2, eps, final_ratio, gamma):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        size = np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(v) + eps)
        lower = final_ratio * (1 - 1 / (gamma * t + 1))
        upper = final_ratio * (1 + 1 / (gamma * t))
        yield np.minimum(np.maximum(size, lower), upper) * m


@entry("scale_by_diffgrad", b1=0.9, b2=0.99, eps=1e-3)
def diffgrad(gs, ps, b1, b2, eps):
    m = v = before = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        friction = 1 / (1 + np.exp(-np.abs(before - g)))
        yield friction * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        before = g


@entry(
    "scale_by_innaprop",
    learning_rate=0.1,
    alpha=0.5,
    beta=0.9,
    decay=0.99,
    eps=1e-3,
    weight_decay=0.1,
)
def innaprop(gs, ps, learning_rate, alpha, beta, decay, eps, weight_decay):
    lr, v, psi = learning_rate, 0.0, (1 - alpha * beta) * ps[0]
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        old, p = p, p * (1 - lr * weight_decay)
        v = decay * v + (1 - decay) * g**2
        psi = (1 - lr / beta) * psi + lr * (1 / beta - alpha) * p
        new = (1 + lr * (1 - alpha * beta) / (beta - lr)) * p - lr / (beta - lr) * psi
        new = new - lr * beta * g / (np.sqrt(v / (1 - decay**t)) + eps)
        yield (old - new) / lr


@entry("scale_by_novograd", b1=0.9, b2=0.8, eps=1e-2, weight_decay=0.1)
def novograd(gs, ps, b1, b2, eps, weight_decay):
    m, v = 0.0, np.sum(gs[0] ** 2)
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        v = b2 * v + (1 - b2) * np.sum(g**2) if t > 1 else v
        m = b1 * m + g / (np.sqrt(v) + eps) + weight_decay * p
        yield m


@entry("scale_by_adam_atan2", b1=0.9, b2=0.99, a=1.27, b=1.1)
def adam_atan2(gs, ps, b1, b2, a, b):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        yield a * np.arctan2(m / (1 - b1**t), b * np.sqrt(v / (1 - b2**t)))


def adamw_atan2():
    """The package's Adam-atan2, with its decoupled weight decay."""
    return gk.chain(
        gk.scale_by_adam_atan2(),
        gk.step_by_learning_rate(1e-2),
        gk.decay_by_weight(1e-2 * 0.1),
    )


golden("adam", lambda: gk.adamw(1e-2, b2=0.99, weight_decay=0.0))
golden("adam_atan2", adamw_atan2)
