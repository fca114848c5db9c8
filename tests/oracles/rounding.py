"""Oracles of parameters in bfloat16: every one yields the difference to where it lands."""

import jax
import numpy as np
from entry import entry

XFAIL = {
    "fixed_point": "float32 leads to a number of bfloat16 where bfloat16 does not",
    "extreme_gradient": "an update of 1e-30 moves no parameter of size 1",
}
DRAWN = XFAIL | {"partition_norms": "groups draw apart, whatever norm they are given"}


def unit(x):
    """How far apart numbers of 8 significant bits are around `x`."""
    return 2.0 ** (np.frexp(x)[1] - 8)


def bfloat16(x):
    return np.round(x / unit(x)) * unit(x)


@entry("round_by_kahan", narrow=True, xfail=XFAIL)
def kahan(gs, ps):
    lost = 0 * gs[0]
    for u, p in zip(gs, map(bfloat16, ps)):
        want = p + (u + lost)
        got = bfloat16(want)
        lost = bfloat16(want - got)
        yield got - p


@entry("round_by_error_correction", narrow=True, xfail=XFAIL)
def error_correction(gs, ps):
    code = 0 * gs[0]
    for u, p in zip(gs, map(bfloat16, ps)):
        want = p + code / 127 * unit(p) / 2 + u
        got = bfloat16(want)
        code = np.round((want - got) / (unit(got) / 2) * 127)
        yield got - p


@entry("round_by_master", narrow=True, xfail=XFAIL)
def master(gs, ps):
    m = bfloat16(ps[0])
    for u, p in zip(gs, map(bfloat16, ps)):
        m = np.float32(m + u).astype(float)
        yield bfloat16(m) - p


@entry("round_by_stochastic", narrow=True, whole=True, xfail=DRAWN)
def stochastic(gs, ps):
    key = jax.random.key(0)
    for g, p in zip(gs, ps):
        key, *keys = jax.random.split(key, len(g) + 1)
        moved = {}
        for name, draw in zip(sorted(g), keys):
            start = bfloat16(p[name])
            x = start + g[name]
            bits = np.asarray(jax.random.bits(draw, x.shape, np.uint32))
            below = np.floor(x / unit(x))
            up = (bits // 2**8) / 2**24 < x / unit(x) - below
            moved[name] = (below + up) * unit(x) - start
        yield moved
