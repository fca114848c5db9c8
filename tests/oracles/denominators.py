"""Oracles of methods that differ from Adam by what they divide by, and of their recipes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from entry import entry, golden

import gradkit as gk


def amsbound_directions(gs, b1, b2, eps, final_ratio, gamma):
    m = v = largest = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v)
        size = np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(largest) + eps)
        lower = final_ratio * (1 - 1 / (gamma * t + 1))
        upper = final_ratio * (1 + 1 / (gamma * t))
        yield np.minimum(np.maximum(size, lower), upper) * m


@entry("scale_by_amsbound", b1=0.9, b2=0.5, eps=1e-3, final_ratio=2.0, gamma=0.5)
def amsbound_direction(gs, ps, b1, b2, eps, final_ratio, gamma):
    return amsbound_directions(gs, b1, b2, eps, final_ratio, gamma)


@entry(
    "amsbound",
    learning_rate=0.1,
    final_ratio=2.0,
    b1=0.9,
    b2=0.5,
    gamma=0.5,
    eps=1e-3,
    weight_decay=0.1,
)
def amsbound(gs, ps, learning_rate, final_ratio, b1, b2, gamma, eps, weight_decay):
    directions = amsbound_directions(gs, b1, b2, eps, final_ratio, gamma)
    for d, p in zip(directions, ps):
        yield -learning_rate * (d + weight_decay * p)


@entry("amsgrad", learning_rate=0.1, b1=0.9, b2=0.5, eps=1e-3, weight_decay=0.1)
def amsgrad(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    m = v = largest = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v)
        d = m / (1 - b1**t) / (np.sqrt(largest) / np.sqrt(1 - b2**t) + eps)
        yield -learning_rate * (d + weight_decay * p)


@entry("adam_atan2", learning_rate=0.1, b1=0.9, b2=0.99, a=1.2, b=1.1, weight_decay=0.1)
def adam_atan2(gs, ps, learning_rate, b1, b2, a, b, weight_decay):
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        angle = np.arctan2(m / (1 - b1**t), b * np.sqrt(v / (1 - b2**t)))
        yield p * (1 - learning_rate * weight_decay) - learning_rate * a * angle - p


@entry("scale_by_adamomentum", b1=0.9, b2=0.99, eps=1e-3)
def adamomentum_direction(gs, ps, b1, b2, eps):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * m**2 + eps
        yield m / (1 - b1**t) / np.sqrt(v / (1 - b2**t))


@entry("adamomentum", learning_rate=0.1, b1=0.9, b2=0.99, eps=1e-3, weight_decay=0.1)
def adamomentum(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    directions = adamomentum_direction(gs, ps, b1, b2, eps)
    for d, p in zip(directions, ps):
        yield -learning_rate * (d + weight_decay * p)


@entry(
    "scale_by_subset_norm",
    fixed={"inner": gk.average_by_heavy_ball(0.9)},
    b2=0.9,
    eps=1e-2,
)
def subset_norm(gs, ps, b2, eps):
    size = gs[0].size
    k = max(k for k in range(1, size + 1) if size % k == 0 and k * k <= size)
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m = 0.9 * m + g
        v = b2 * v + (1 - b2) * np.sum(g.reshape(-1, k) ** 2, axis=1)
        root = np.repeat(np.sqrt(v / (1 - b2**t)), k).reshape(g.shape)
        yield m / (root + eps)


def eps_before_debiasing(step):
    """The released `eps`, which is added before debiasing."""
    return 1e-6 / jnp.sqrt(1 - 0.999 ** (jnp.asarray(step, float) + 1))


def adam_subset_norm():
    """The authors' AdamSN, which decays what the step has made of the parameters."""
    average = gk.average_by_ademamix(alpha=0.0)
    direction = gk.scale_by_subset_norm(average, eps=eps_before_debiasing)
    return gk.chain(
        direction,
        decay_of_the_new(1e-2 * 0.01, gk.step_by_learning_rate(1e-2)),
    )


def decay_of_the_new(share, inner):
    """Weight decay of what `inner` makes of the parameters, not of what they were."""

    def update(updates, state, params):
        updates, state = inner.update(updates, state, params)
        return jax.tree.map(lambda u, p: u - share * (p + u), updates, params), state

    return optax.GradientTransformation(inner.init, update)


golden("adam_subset_norm", adam_subset_norm)


def estimate(grads):
    """Something with both signs to stand for the Hessian's diagonal."""
    return {"hessian_diagonal": jax.tree.map(lambda g: g * g - 0.5, grads)}


@entry("scale_by_oasis", extra=estimate, decay=0.9, min_curvature=0.2)
def oasis(gs, ps, decay, min_curvature):
    d = gs[0] ** 2 - 0.5
    for t, g in enumerate(gs):
        d = decay * d + (1 - decay) * (g**2 - 0.5) if t else d
        yield g / np.maximum(np.abs(d), min_curvature)
