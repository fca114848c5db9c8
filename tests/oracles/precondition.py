"""Oracles of `_transform/precondition` and its recipes, in exact float64 linear algebra."""

from typing import Any

import jax
import numpy as np
from entry import entry

SHAPES = {"tall": (7, 3), "wide": (3, 6), "conv": (2, 2, 4)}
WITH_BIAS = {**SHAPES, "bias": (4,)}


def matrix(g):
    """The leaf as a matrix: the last axis is the columns."""
    return g.reshape(-1, g.shape[-1])


def power(a, exponent, damping=0.0):
    """A power of a positive matrix, its eigenvalues raised by a share of their mean."""
    values, vectors = np.linalg.eigh(a)
    values = np.maximum(values, 0) + damping * np.mean(values)
    return (vectors * values**exponent) @ vectors.T


def limited(u, most):
    """`u`, no longer than that the mean of its singular values' eighth powers allows."""
    mean = np.mean(np.linalg.svd(u, compute_uv=False) ** 8) ** (1 / 8)
    return u * min(1, 1.01 * most / mean)


def most_of_average(b1, decay, t):
    """The largest singular value of an average over the root of the average square."""
    ages = np.arange(t)
    v, w = ((1 - b) * b**ages / (1 - b**t) for b in (b1, decay))
    return np.sqrt(np.sum(v**2 / w))


def roots_due(t, every):
    return (t - 1) % every == 0 or (t <= every and np.log2(t) % 1 == 0)


@entry(
    "precondition_by_shampoo",
    shapes=SHAPES,
    b1=0.7,
    decay=0.8,
    rows_power=0.3,
    cols_power=0.2,
    damping=0.1,
    every=3,
    max_size=6,
)
def shampoo(gs, ps, b1, decay, rows_power, cols_power, damping, every, max_size):
    sides = matrix(gs[0]).shape
    left = right = m = 0.0
    full = [n <= max_size for n in sides]
    both = rows_power + cols_power
    powers = [rows_power if full[1] else both, cols_power if full[0] else both]
    for t, g in enumerate(map(matrix, gs), 1):
        m = b1 * m + (1 - b1) * g
        left = decay * left + (1 - decay) * g @ g.T
        right = decay * right + (1 - decay) * g.T @ g
        debias = 1 - decay**t
        if roots_due(t, every):
            p, q = (
                power(a / debias, -e, damping) if is_full else np.eye(n)
                for a, e, is_full, n in zip((left, right), powers, full, sides)
            )
        trace = np.trace(left) / debias
        longest = max(n for n, is_full in zip(sides, full) if is_full)
        unit = trace if both < 0.5 else damping * trace / longest
        most = most_of_average(b1, decay, t) * unit ** (0.5 - both)
        yield limited(p @ m @ q / (1 - b1**t), most).reshape(gs[0].shape)


def soap_directions(gs, b1, b2, decay, eps, every, max_size):
    """Adam in eigenbases; `eps(t)` is added to the root at the t-th step made."""
    shape = gs[0].shape
    rows, cols = matrix(gs[0]).shape if len(shape) > 1 else (1, 1)
    turn = [len(shape) > 1 and n <= max_size for n in (rows, cols)]
    m = v = 0.0
    grams, bases = [np.zeros(()), np.zeros(())], [np.eye(rows), np.eye(cols)]
    for t, g in enumerate(gs):
        g = matrix(g) if g.ndim > 1 else g.reshape(-1, 1)
        if t > 0:
            in_basis = in_bases(g, bases, len(shape))
            m = b1 * m + (1 - b1) * in_basis
            v = b2 * v + (1 - b2) * in_basis**2
            d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps(t))
            yield in_bases(d, [q.T for q in bases], len(shape)).reshape(shape)
        else:
            yield np.zeros(shape)
        for i, outer in enumerate([g @ g.T, g.T @ g]):
            if not turn[i]:
                continue
            grams[i] = decay * grams[i] + (1 - decay) * outer
            if t == 0:
                bases[i] = np.linalg.eigh(grams[i])[1][:, ::-1]
            elif t % every == 0:
                old, moved = bases[i], grams[i] @ bases[i]
                order = np.argsort(-np.sum(old * moved, 0))
                bases[i] = np.linalg.qr(moved[:, order])[0]
                change = bases[i].T @ old
                m = change @ m if i == 0 else m @ change.T
                v = v[order] if i == 0 else v[:, order]


def in_bases(x, bases, ndim):
    return bases[0].T @ x @ bases[1] if ndim > 1 else x


SKIPS: dict[str, str] = {"extreme_gradient": "the first gradient makes no step"}
SQUARE = {"conv": (2, 2, 4), "one_side": (4, 9), "bias": (4,)}


@entry(
    "precondition_by_soap",
    shapes=SQUARE,
    xfail=SKIPS,
    b1=0.9,
    b2=0.8,
    decay=0.7,
    eps=1e-2,
    every=3,
    max_size=8,
)
def soap_direction(gs, ps, b1, b2, decay, eps, every, max_size):
    yield from soap_directions(gs, b1, b2, decay, lambda t: eps, every, max_size)


@entry(
    "soap",
    shapes=SQUARE,
    xfail=SKIPS,
    learning_rate=0.1,
    b1=0.9,
    b2=0.8,
    decay=0.7,
    eps=1e-2,
    every=3,
    max_size=8,
    weight_decay=0.1,
)
def soap(gs, ps, learning_rate, b1, b2, decay, eps, every, max_size, weight_decay):
    floor = lambda t: eps / np.sqrt(1 - b2**t)
    directions = soap_directions(gs, b1, b2, decay, floor, every, max_size)
    for t, (d, p) in enumerate(zip(directions, ps)):
        left = 1 - learning_rate * weight_decay if t else 1
        yield (p - learning_rate * d) * left - p


PAIRS = {r"x.*": r"\g<0>", r"(.*)_a": r"\1_b"}


@entry(
    "precondition_by_paired_factors",
    whole=True,
    shapes={"low_a": (6, 2), "x": (5, 3), "low_b": (2, 4), "x_wide": (2, 4)},
    fixed={"pairs": PAIRS},
    xfail={"trees": "paths name the partners, and are others in other containers"},
    damping=0.1,
)
def paired_factors(gs, ps, damping):
    damped = lambda a: a + damping * np.eye(len(a))
    for g, p in zip(gs, ps):
        a, b = p["low_a"], p["low_b"]
        yield {
            "low_a": g["low_a"] @ np.linalg.inv(damped(b @ b.T)),
            "low_b": np.linalg.inv(damped(a.T @ a)) @ g["low_b"],
        } | {k: g[k] @ np.linalg.inv(damped(p[k].T @ p[k])) for k in ("x", "x_wide")}


def psgd_directions(
    gs,
    b1,
    fit_rate,
    fit_probability,
    decay,
    damping,
    scale,
    max_rms,
    max_entry,
    max_size,
    key,
    leaf,
    leaves,
):
    """Triangular factors fitted to gradients; of so many leaves this one is the `leaf`-th."""
    shape = gs[0].shape
    sizes = matrix(gs[0]).shape if len(shape) > 1 else (1, gs[0].size)
    sides = [i for i in (0, 1) if sizes[i] > 1] or [1]
    full = [len(sides) == 2 and n <= max_size for n in sizes]
    q = [np.eye(n) for n in sizes]
    for i in sides:
        q[i] = q[i] * scale ** (1 / len(sides))
    top, m, key = [0.0, 0.0], 0.0, jax.random.key(key)
    for t, g in enumerate(gs, 1):
        key, seed, coin = jax.random.split(key, 3)
        g = g.reshape(sizes)
        beta = min(b1, 1 - 1 / t)
        m = beta * m + (1 - beta) * g
        if np.float32(jax.random.uniform(coin, dtype=np.float32)) < fit_probability:
            noise = jax.random.normal(
                jax.random.split(seed, leaves)[leaf], shape, np.float32
            )
            v = np.asarray(noise, np.float64).reshape(sizes)
            h = g + (damping + np.finfo(np.float64).eps * np.abs(g)) * v
            a = q[0] @ h @ q[1].T
            b = np.linalg.inv(q[0]).T @ v @ np.linalg.inv(q[1])
            for i in sides:
                aa, bb = (x @ x.T if i == 0 else x.T @ x for x in (a, b))
                if not full[i]:
                    aa, bb = np.diag(np.diag(aa)), np.diag(np.diag(bb))
                largest = np.linalg.eigvalsh(aa + bb)[-1]
                top[i] = max(largest, decay * top[i] + (1 - decay) * largest)
                q[i] = q[i] - fit_rate / top[i] * np.triu(aa - bb) @ q[i]
        u = q[0].T @ q[0] @ m @ q[1].T @ q[1]
        u = u / max(1, np.sqrt(np.mean(u**2)) / max_rms)
        yield np.clip(u, -max_entry, max_entry).reshape(shape)


FITTED = {"tall": (7, 3), "conv": (2, 2, 5), "bias": (4,)}
PSGD: dict[str, Any] = dict(
    b1=0.8,
    fit_rate=0.2,
    fit_probability=0.5,
    decay=0.7,
    damping=0.1,
    scale=0.7,
    max_rms=0.5,
    max_entry=1.0,
    max_size=6,
    key=3,
)


@entry(
    "precondition_by_psgd",
    whole=True,
    shapes=FITTED,
    xfail={"partition_norms": "each group draws its own noise"},
    **PSGD,
)
def psgd_direction(gs, ps, **hyper):
    places = sorted(gs[0])
    runs = {
        k: psgd_directions([g[k] for g in gs], **hyper, leaf=i, leaves=len(places))
        for i, k in enumerate(places)
    }
    for _ in gs:
        yield {k: next(run) for k, run in runs.items()}


@entry(
    "psgd",
    whole=True,
    shapes=FITTED,
    xfail={"partition_norms": "each group draws its own noise"},
    learning_rate=0.1,
    weight_decay=0.1,
    **PSGD,
)
def psgd(gs, ps, learning_rate, weight_decay, **hyper):
    for d, p in zip(psgd_direction(gs, ps, **hyper), ps):
        yield {k: -learning_rate * (d[k] + weight_decay * p[k]) for k in p}


@entry(
    "precondition_by_one_sided_shampoo",
    shapes=SHAPES,
    b1=0.7,
    decay=0.8,
    damping=0.1,
    every=3,
    max_size=3,
)
def one_sided_shampoo(gs, ps, b1, decay, damping, every, max_size):
    a, m, p = 0.0, 0.0, np.eye(1)
    for t, leaf in enumerate(gs, 1):
        g = matrix(leaf)
        tall = g.shape[0] > g.shape[1]
        g = g.T if tall else g
        m = b1 * m + (1 - b1) * g
        a = decay * a + (1 - decay) * g @ g.T
        if roots_due(t, every):
            p = power(a / (1 - decay**t), -0.5, damping)
        u = m / (1 - b1**t)
        if len(g) <= max_size:
            u = limited(p @ u, most_of_average(b1, decay, t))
        yield (u.T if tall else u).reshape(leaf.shape)


@entry(
    "precondition_by_kl_shampoo",
    shapes={"conv": (2, 2, 4), "long": (14, 14), "longer": (15, 14)},
    xfail=SKIPS,
    b1=0.7,
    decay=0.8,
    eps=0.1,
    start=0.2,
    every=3,
    max_norm=0.5,
    max_size=14,
)
def kl_shampoo(gs, ps, b1, decay, eps, start, every, max_norm, max_size):
    m, s, q, values, shape = 0.0, [0.0, 0.0], [], [], gs[0].shape
    most = max_norm * max(matrix(gs[0]).shape) ** 0.5
    for t, g in enumerate(map(matrix, gs)):
        if t == 0:
            yield np.zeros(shape)
            seen = [g @ g.T / g.shape[1], g.T @ g / g.shape[0]]
        else:
            m = b1 * m + (1 - b1) * g
            d = q[0].T @ m @ q[1] / (np.sqrt(np.outer(*values)) + eps)
            yield (q[0] @ limited(d, most) @ q[1].T).reshape(shape)
            white = [q[i] / np.sqrt(values[i]) for i in (0, 1)]
            x, y = g @ white[1], g.T @ white[0]
            seen = [x @ x.T / g.shape[1], y @ y.T / g.shape[0]]
        s = [decay * old + (1 - decay) * new for old, new in zip(s, seen)]
        if t == 0:
            q = [np.linalg.eigh(a)[1][:, ::-1] for a in s]
            values = [np.full(len(a), start if len(a) <= max_size else 1.0) for a in s]
            continue
        for i in (0, 1):
            if len(s[i]) > max_size:
                continue
            now = np.diag(q[i].T @ seen[i] @ q[i])
            floor = max(10, len(now)) ** -2.0
            values[i] = np.maximum(decay * values[i] + (1 - decay) * now, floor)
        if t % every == 0:
            q = [np.linalg.qr(a @ b)[0] for a, b in zip(s, q)]


@entry(
    "shampoo",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    b1=0.7,
    decay=0.8,
    damping=0.1,
    every=3,
    max_size=6,
    adam_lr_ratio=0.5,
    b2=0.9,
    eps=1e-2,
    weight_decay=0.1,
)
def shampoo_recipe(
    gs,
    ps,
    learning_rate,
    b1,
    decay,
    damping,
    every,
    max_size,
    adam_lr_ratio,
    b2,
    eps,
    weight_decay,
):
    def adam():
        m = v = 0.0
        for t, g in enumerate(gs, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            d = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            yield adam_lr_ratio * d

    matrices = shampoo(gs, ps, b1, decay, 0.25, 0.25, damping, every, max_size)
    for d, p in zip(matrices if gs[0].ndim > 1 else adam(), ps):
        yield -learning_rate * (d + weight_decay * p)


@entry(
    "precondition_by_inverse_free_kfac",
    shapes=SHAPES,
    damping=0.1,
    decay=0.7,
    fit_rate=0.2,
    every=3,
    max_size=6,
)
def inverse_free_kfac(gs, ps, damping, decay, fit_rate, every, max_size):
    rows, cols = matrix(gs[0]).shape
    a, b, ma, mb = np.eye(rows), np.eye(cols), 0.0, 0.0
    for t, g in enumerate(map(matrix, gs)):
        if t % every == 0:
            h = a.T @ g @ b
            na = damping * np.sum(b**2) / cols * a.T @ a + h @ h.T / cols - np.eye(rows)
            nb = damping * np.sum(a**2) / rows * b.T @ b + h.T @ h / rows - np.eye(cols)
            ma, mb = decay * ma + na / 2, decay * mb + nb / 2
            if rows <= max_size:
                a = a - fit_rate / max(1, np.linalg.norm(ma)) * a @ ma
            if cols <= max_size:
                b = b - fit_rate / max(1, np.linalg.norm(mb)) * b @ mb
        yield (a @ a.T @ g @ b @ b.T).reshape(gs[0].shape)
