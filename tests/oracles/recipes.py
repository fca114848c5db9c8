"""Oracles of `_recipes`: each named optimizer written out whole, as its paper does."""

import jax.numpy as jnp
import numpy as np
import optax
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


@entry("sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.1)
def sgd(gs, ps, learning_rate, momentum, weight_decay):
    m = 0.0
    for g, p in zip(gs, ps):
        m = g + momentum * m
        yield -learning_rate * (m + weight_decay * p)


@entry("lion", learning_rate=0.1, b1=0.9, b2=0.8, weight_decay=0.1)
def lion(gs, ps, learning_rate, b1, b2, weight_decay):
    m = 0.0
    for g, p in zip(gs, ps):
        d = np.sign(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g
        yield -learning_rate * (d + weight_decay * p)


@entry(
    "adabound",
    learning_rate=0.1,
    final_ratio=2.0,
    b1=0.9,
    b2=0.99,
    gamma=0.5,
    eps=1e-3,
    weight_decay=0.1,
)
def adabound(gs, ps, learning_rate, final_ratio, b1, b2, gamma, eps, weight_decay):
    m, v, final = 0.0, 0.0, final_ratio * learning_rate
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        rate = learning_rate * np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(v) + eps)
        lower, upper = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
        yield -np.clip(rate, lower, upper) * m - learning_rate * weight_decay * p


@entry("diffgrad", learning_rate=0.1, b1=0.9, b2=0.99, eps=1e-3, weight_decay=0.1)
def diffgrad(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    m = v = before = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        friction = 1 / (1 + np.exp(-np.abs(before - g)))
        before = g
        d = friction * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield -learning_rate * (d + weight_decay * p)


@entry(
    "innaprop",
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
        yield new - lr * beta * g / (np.sqrt(v / (1 - decay**t)) + eps) - old


@entry("novograd", learning_rate=0.1, b1=0.9, b2=0.8, eps=1e-2, weight_decay=0.1)
def novograd(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    m, v = 0.0, np.sum(gs[0] ** 2)
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        v = b2 * v + (1 - b2) * np.sum(g**2) if t > 1 else v
        m = b1 * m + g / (np.sqrt(v) + eps) + weight_decay * p
        yield -learning_rate * m


def warmed_ademamix(alpha_steps, b3, weight_decay):
    """The recipe under the paper's two warm-ups."""

    def alpha(step):
        t = jnp.asarray(step, jnp.result_type(float)) + 1
        return 5.0 * jnp.minimum(t / alpha_steps, 1)

    return gk.ademamix(1e-2, b2=0.99, b3=b3, alpha=alpha, weight_decay=weight_decay)


def ademamix_coupled():
    """Recorded with weight decay added to the gradient."""
    b3 = gk.schedule_by_half_life(0.9, end=0.999, steps=30)
    return gk.chain(optax.add_decayed_weights(0.05), warmed_ademamix(30, b3, 0.0))


def ademamix_official():
    """The authors' code, which adds 1e-8 to both ends of `b3` while it rises."""
    rise = gk.schedule_by_half_life(0.9 + 1e-8, end=0.999 + 1e-8, steps=30)

    def b3(step):
        return jnp.where(step + 1 < 30, rise(step), 0.999)

    return warmed_ademamix(20, b3, 0.05)


golden("adamw", lambda: gk.adamw(1e-2, b2=0.99, weight_decay=0.1))
golden("grams", lambda: gk.grams(1e-2, weight_decay=0.02))
golden("ademamix", ademamix_coupled)
golden("ademamix_official", ademamix_official)
golden("adabound", lambda: gk.adabound(1e-2, final_ratio=10.0))
golden("innaprop", lambda: gk.innaprop(1e-2, decay=0.99, weight_decay=0.05))
golden("novograd", lambda: gk.novograd(1e-2, weight_decay=0.01))
