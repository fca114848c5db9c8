"""Oracles of recipes whose directions have oracles of their own, each written out whole."""

import jax
import jax.numpy as jnp
import numpy as np
from entry import entry, golden

import gradkit as gk


def orthogonal(g, w, delta):
    """Which slices of a leaf the gradient is about orthogonal to: units, one, or none."""
    if g.ndim < 2:
        return None
    for axes in (tuple(range(g.ndim - 1)), tuple(range(g.ndim))):
        dot = np.sum(g * w, axis=axes)
        cosines = dot / np.sqrt(np.sum(g**2, axis=axes) * np.sum(w**2, axis=axes))
        if np.max(np.abs(cosines)) < delta / np.sqrt(w.size / np.size(cosines)):
            return axes
    return None


def projected_step(d, g, w, learning_rate, delta, weight_decay, wd_ratio):
    """The step along `d`, projected and less decayed where `g` is orthogonal to `w`."""
    axes = orthogonal(g, w, delta)
    if axes is not None:
        along = np.sum(d * w, axes, keepdims=True) / np.sum(w * w, axes, keepdims=True)
        d, weight_decay = d - along * w, wd_ratio * weight_decay
    return w * (1 - learning_rate * weight_decay) - learning_rate * d - w


@entry(
    "adamp",
    learning_rate=0.1,
    b1=0.9,
    b2=0.99,
    eps=1e-3,
    delta=1.3,
    weight_decay=0.1,
    wd_ratio=0.3,
)
def adamp(gs, ps, learning_rate, b1, b2, eps, delta, weight_decay, wd_ratio):
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield projected_step(d, g, p, learning_rate, delta, weight_decay, wd_ratio)


@entry(
    "sgdp",
    learning_rate=0.1,
    momentum=0.9,
    delta=1.3,
    weight_decay=0.1,
    wd_ratio=0.3,
)
def sgdp(gs, ps, learning_rate, momentum, delta, weight_decay, wd_ratio):
    m = 0.0
    for g, p in zip(gs, ps):
        m = momentum * m + g
        total = weight_decay / (1 - momentum)
        yield projected_step(m, g, p, learning_rate, delta, total, wd_ratio)


def eps_before_debiasing(step):
    """The recorded `eps` of 1e-8, which is added to the root before it is debiased."""
    return 1e-8 / jnp.sqrt(1 - 0.999 ** (jnp.asarray(step, jnp.result_type(float)) + 1))


golden(
    "adamp",
    lambda: gk.adamp(1e-2, eps=eps_before_debiasing, weight_decay=0.01),
    transpose=True,
)


@entry(
    "stable_spam",
    learning_rate=0.1,
    b1=0.9,
    b2=0.99,
    norm_b1=0.7,
    norm_b2=0.9,
    spike_decay=0.8,
    every=5,
    eps=1e-2,
    weight_decay=0.1,
)
def stable_spam(
    gs,
    ps,
    learning_rate,
    b1,
    b2,
    norm_b1,
    norm_b2,
    spike_decay,
    every,
    eps,
    weight_decay,
):
    largest = norm = square = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        most = np.max(np.abs(g))
        largest = spike_decay * largest + (1 - spike_decay) * most
        limit = largest / (1 - spike_decay**t)
        g = np.where(np.abs(g) > limit, g / most * limit, g)
        n = np.linalg.norm(g)
        norm = norm_b1 * norm + (1 - norm_b1) * n
        square = norm_b2 * square + (1 - norm_b2) * n**2
        root = np.sqrt(square / (1 - norm_b2**t))
        g = g / n * (norm / (1 - norm_b1**t)) / (root + eps)
        if t % every == 1:
            m = v = k = 0
        k += 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d = m / (1 - b1**k) / (np.sqrt(v / (1 - b2**k)) + eps)
        yield -learning_rate * (d + weight_decay * p)


@entry("lars", learning_rate=0.5, trust=0.2, momentum=0.9, weight_decay=0.1)
def lars(gs, ps, learning_rate, trust, momentum, weight_decay):
    v = 0.0
    for g, w in zip(gs, ps):
        norm = np.linalg.norm(w)
        local = trust * norm / (np.linalg.norm(g) + weight_decay * norm)
        v = momentum * v + learning_rate * local * (g + weight_decay * w)
        yield -v


@entry(
    "lamb",
    learning_rate=0.1,
    b1=0.9,
    b2=0.99,
    eps=1e-3,
    weight_decay=0.1,
    min_norm=1.5,
    max_norm=4.5,
)
def lamb(gs, ps, learning_rate, b1, b2, eps, weight_decay, min_norm, max_norm):
    m = v = 0.0
    for t, (g, x) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        r = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + weight_decay * x
        phi = np.clip(np.linalg.norm(x), min_norm, max_norm)
        yield -learning_rate * phi / np.linalg.norm(r) * r


@entry(
    "gravity",
    whole=True,
    xfail={
        "extreme_gradient": "the inverse cube of a gradient of 1e25 is 0 in float32",
        "partition_norms": "each group draws its own first velocities",
    },
    learning_rate=0.1,
    decay=0.8,
    start=0.2,
    key=7,
)
def gravity(gs, ps, learning_rate, decay, start, key):
    v = {}
    for i, (k, g) in enumerate(sorted(gs[0].items())):
        now = jax.random.fold_in(jax.random.key(key), i)
        v[k] = start * np.float64(jax.random.normal(now, g.shape, jnp.float32))
    for t, g in enumerate(gs, 1):
        b = (decay * (t - 1) + 1) / (t + 1)
        for k in g:
            zeta = g[k] / (1 + (g[k] * np.max(np.abs(g[k]))) ** 2)
            v[k] = b * v[k] + (1 - b) * zeta
        yield {k: -learning_rate * x for k, x in v.items()}


def norm_of(tree):
    """The Euclidean norm of {name: array} as one vector."""
    return np.sqrt(sum(np.sum(x**2) for x in tree.values()))


def adamw(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    """AdamW over {name: array} at every step."""
    m = v = {k: 0.0 for k in ps[0]}
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = {k: b1 * m[k] + (1 - b1) * g[k] for k in m}
        v = {k: b2 * v[k] + (1 - b2) * g[k] ** 2 for k in v}
        root = {k: np.sqrt(v[k] / (1 - b2**t)) + eps for k in v}
        d = {k: m[k] / (1 - b1**t) / root[k] + weight_decay * p[k] for k in m}
        yield {k: -learning_rate * d[k] for k in d}


@entry(
    "adagc",
    whole=True,
    learning_rate=0.1,
    b1=0.9,
    b2=0.99,
    eps=1e-3,
    weight_decay=0.1,
    max_ratio=1.2,
    decay=0.9,
    max_norm=6.5,
    warmup=4,
)
def adagc(gs, ps, max_ratio, decay, max_norm, warmup, **adam):
    gamma, clipped = {k: np.inf for k in gs[0]}, []
    for t, g in enumerate(gs, 1):
        if t < warmup:
            h = {k: min(1.0, max_norm / norm_of(g)) for k in g}
        else:
            h = {k: min(1.0, max_ratio * gamma[k] / np.linalg.norm(g[k])) for k in g}
        clipped.append({k: h[k] * g[k] for k in g})
        for k, x in clipped[-1].items():
            n = np.linalg.norm(x)
            average = decay * gamma[k] + (1 - decay) * n
            gamma[k] = min(gamma[k], n) if t < warmup else average
    return adamw(clipped, ps, **adam)


@entry(
    "zclip_adamw",
    whole=True,
    learning_rate=0.1,
    b1=0.9,
    b2=0.99,
    eps=1e-3,
    weight_decay=0.1,
    max_zscore=0.4,
    decay=0.9,
    warmup=4,
    norm_eps=1e-2,
    max_norm=6.9,
)
def zclip_adamw(gs, ps, max_zscore, decay, warmup, norm_eps, max_norm, **adam):
    first, clipped = [], []
    for g in gs:
        n = limit = norm_of(g)
        if len(first) < warmup:
            first.append(n)
            mean, variance = np.mean(first), np.var(first)
        else:
            z = (n - mean) / (np.sqrt(variance) + norm_eps)
            if z > max_zscore:
                limit = mean + max_zscore * np.sqrt(variance) / (z / max_zscore)
            mean = decay * mean + (1 - decay) * limit
            variance = decay * variance + (1 - decay) * (limit - mean) ** 2
        clipped.append({k: x * min(limit, max_norm, n) / n for k, x in g.items()})
    return adamw(clipped, ps, **adam)


@entry("random_scaled_sgdm", learning_rate=0.1, momentum=0.9, weight_decay=0.1, key=7)
def random_scaled_sgdm(gs, ps, learning_rate, momentum, weight_decay, key):
    m, key = 0.0, jax.random.key(key)
    for g, p in zip(gs, ps):
        key, now = jax.random.split(key)
        length = np.float64(jax.random.exponential(now, dtype=jnp.float32))
        m = momentum * m + (1 - momentum) * g
        yield -learning_rate * (length * m + weight_decay * p)


@entry("opt_amsgrad", learning_rate=0.1, b1=0.9, b2=0.5, eps=1e-3, weight_decay=0.1)
def opt_amsgrad(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    m = v = largest = guess = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v)
        d = m / (1 - b1**t) / (np.sqrt(largest / (1 - b2**t)) + eps)
        # the guess taken in advance is taken back, the step made, the next guess taken
        yield -learning_rate * (d - guess + d + weight_decay * p)
        guess = d


@entry("lawn", learning_rate=0.1, b1=0.9, b2=0.99, eps=1e-3, free_steps=3)
def lawn(gs, ps, learning_rate, b1, b2, eps, free_steps):
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        u = -learning_rate * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        if t <= free_steps + 1:
            radius = np.linalg.norm(p)
        if t > free_steps and p.ndim > 1:
            new = p + u - np.sum(u * p) / np.sum(p * p) * p
            u = radius * new / np.linalg.norm(new) - p
        yield u


@entry("hspg", learning_rate=0.5, penalty=0.6, eps=0.6, warmup=3)
def hspg(gs, ps, learning_rate, penalty, eps, warmup):
    for t, (g, p) in enumerate(zip(gs, ps)):
        new = p - learning_rate * g
        for i in range(p.shape[-1]) if p.ndim > 1 else []:
            x, trial = p[..., i], new[..., i]
            trial -= learning_rate * penalty * x / np.linalg.norm(x)
            if t >= warmup and np.sum(trial * x) < eps * np.sum(x * x):
                trial[...] = 0
        yield new - p


@entry(
    "adamw_subset_norm", learning_rate=0.1, b1=0.9, b2=0.9, eps=1e-2, weight_decay=0.1
)
def adamw_subset_norm(gs, ps, learning_rate, b1, b2, eps, weight_decay):
    size = gs[0].size
    k = max(k for k in range(1, size + 1) if size % k == 0 and k * k <= size)
    m = v = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * np.sum(g.reshape(-1, k) ** 2, axis=1)
        root = np.repeat(np.sqrt(v / (1 - b2**t)), k).reshape(g.shape)
        yield -learning_rate * (m / (1 - b1**t) / (root + eps) + weight_decay * p)
