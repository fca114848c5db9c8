"""Oracles of `_compose`."""

import numpy as np
from entry import entry

import gradkit as gk

RULES = {
    "kernel|wide": gk.average_by_heavy_ball(0.9),
    "bias|scale": gk.step_by_learning_rate(2.0),
}


@entry(
    "route",
    whole=True,
    fixed={"rules": RULES},
    excused={k: "those of its transforms" for k in ("state_bytes", "flops")},
)
def route(gs, ps):
    m = {"kernel": 0.0, "wide": 0.0}
    for g in gs:
        m = {k: 0.9 * m[k] + g[k] for k in m}
        yield {k: m[k] if k in m else -2 * x for k, x in g.items()}


GROUPS = {rule: gk.clip_by_global_norm(2.0) for rule in RULES}


@entry(
    "share_norm",
    whole=True,
    fixed={"inner": gk.route(GROUPS)},
)
def share_norm(gs, ps):
    for g in gs:
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        yield {k: x * min(1.0, 2.0 / norm) for k, x in g.items()}
