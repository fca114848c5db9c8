"""Oracles of states in few bits: Adam's averages go through the codec after every update."""

import jax
import numpy as np
from entry import entry

import gradkit as gk

INNER = {"inner": gk.scale_by_adam(0.9, b2=0.99, eps=1e-3)}
XFAIL = {
    "state_bytes": "a part of that of `inner`, which has as many arrays as it likes"
}


def adam(gs, keep):
    """Adam, whose averages are kept by `keep`, with thresholds of the count."""
    m = v = 0 * gs[0]
    for t, g in enumerate(gs, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        yield m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
        u = thresholds(t, m.shape)
        m, v = keep(m, u), keep(v, u)


def thresholds(t, shape):
    """A hash of the index, turned by `t` golden angles: whole numbers below 2^32."""
    mixed = np.zeros(shape, np.uint64)
    for i in np.indices(shape, np.uint64):
        mixed = (mixed ^ i) * 0x9E3779B1 % 2**32
    mixed = (mixed ^ mixed >> 15) * 0x85EBCA6B % 2**32
    return ((mixed ^ mixed >> 13) + t * 0x9E3779B1) % 2**32


def between(u):
    """As numbers from a ten thousandth to one less that."""
    return 1e-4 + (1 - 2e-4) * (u // 2**8) / 2**24


def in_rows(x, u, block, coded):
    """`coded`, of each part of the last axes that have so many entries together."""
    if x.size < block:
        return x
    length = 1
    for n in reversed(x.shape):
        length *= n
        if length >= block:
            break
    width = -(-length // -(-length // block))
    kept = [
        coded(row[i : i + width], at[i : i + width])
        for row, at in zip(x.reshape(-1, length), u.reshape(-1, length))
        for i in range(0, length, width)
    ]
    return np.concatenate(kept).reshape(x.shape)


def neighbour(x, u, table):
    """The value of a sorted table above or below `x`, that above if `x` is past `u` of the way."""
    i = np.clip(np.searchsorted(table, x, "right") - 1, 0, len(table) - 2)
    low, high = table[i], table[i + 1]
    return np.where((x - low) / (high - low) > between(u), high, low)


@entry("store_by_int8", fixed=INNER, xfail=XFAIL, block=4)
def int8(gs, ps, block):
    roots = np.arange(-127, 128) / 127
    floating = 2.0 ** np.arange(-16, 0)[:, None] * (1 + np.arange(16) / 16)
    floating = np.append(floating.ravel(), 1)[-255:]

    def coded(x, u):
        a = max(abs(x))
        if min(x) < 0:
            return np.sign(x) * a * neighbour(abs(x) / a, u, roots[127:] ** 2)
        return a * neighbour(x / a, u, floating)

    yield from adam(gs, lambda x, u: in_rows(x, u, block, coded))


@entry("store_by_int4", fixed=INNER, xfail=XFAIL, block=4)
def int4(gs, ps, block):
    """Algorithm 1 with B128/DE and Rank-1/Linear; the tables are those of the authors' code."""
    positive = [10.0 ** (i - 2) * x for i in range(3) for x in means(2**i)]
    dynamic = np.sort([*positive, *(-x for x in positive), 0, 1])
    linear = np.linspace(0, 1, 17)[1:]

    def keep(x, u):
        table = dynamic if np.min(x) < 0 else linear
        if table is linear and x.ndim > 1 and x.size >= block:
            a = np.minimum(x.max(1, keepdims=True), x.max(0, keepdims=True))
            return a * neighbour(x / a, u, linear)

        def coded(x, u):
            return max(abs(x)) * neighbour(x / max(abs(x)), u, table)

        return in_rows(x, u, block, coded)

    yield from adam(gs, keep)


def means(n):
    """Of the ends of each of `n` parts of 0.1 to 1."""
    ends = np.linspace(0.1, 1, n + 1)
    return (ends[1:] + ends[:-1]) / 2


@entry("store_by_fp8", fixed=INNER, xfail=XFAIL, block=4)
def fp8(gs, ps, block):
    def coded(x, u):
        a = max(abs(x)) / 448
        y = np.sign(x) * np.maximum(abs(x) / a, 2.0**-9)
        unit = 2.0 ** np.maximum(np.frexp(y)[1] - 4, -9)
        low = np.floor(y / unit)
        return a * (low + (y / unit - low > between(u))) * unit

    yield from adam(gs, lambda x, u: in_rows(x, u, block, coded))


@entry("store_by_bfloat16_plus8", fixed=INNER, xfail=XFAIL, min_size=4)
def bfloat16_plus8(gs, ps, min_size):
    def keep(x, u):
        if x.size < min_size:
            return x
        unit = 2.0 ** (np.frexp(x)[1] - 8)
        q = np.round(x / unit) * unit
        half = 2.0 ** (np.frexp(q)[1] - 9)
        return q + np.round((x - q) / half * 127) / 127 * half

    yield from adam(gs, keep)


@entry(
    "store_by_bfloat16",
    whole=True,
    min_size=4,
    fixed=INNER,
    xfail=XFAIL,
)
def bfloat16(gs, ps, min_size):
    """Leaves of Adam's state in their order: a count, then the two averages, by name."""
    key, names = jax.random.key(0), sorted(gs[0])
    m, v = ({k: 0 * gs[0][k] for k in names} for _ in range(2))

    def keep(x, draw):
        if x.size < min_size:
            return x
        unit = 2.0 ** (np.frexp(x)[1] - 8)
        bits = np.asarray(jax.random.bits(draw, x.shape, np.uint32))
        below = np.floor(x / unit)
        return (below + ((bits // 2**8) / 2**24 < x / unit - below)) * unit

    for t, g in enumerate(gs, 1):
        m = {k: 0.9 * m[k] + 0.1 * g[k] for k in names}
        v = {k: 0.99 * v[k] + 0.01 * g[k] ** 2 for k in names}
        yield {
            k: m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.99**t)) + 1e-3)
            for k in names
        }
        key, _, *draws = jax.random.split(key, 2 * len(names) + 2)
        m = {k: keep(m[k], draw) for k, draw in zip(names, draws)}
        v = {k: keep(v[k], draw) for k, draw in zip(names, draws[len(names) :])}
