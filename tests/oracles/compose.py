"""Oracles of `_compose`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
    xfail={k: "those of its transforms" for k in ("state_bytes", "flops")},
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


@entry(
    "mix",
    args=(
        (0.5, lambda count: 1 / (1 + count.astype(float)), -0.25),
        gk.average_by_heavy_ball(0.9),
        gk.scale_by_adam(0.8, b2=0.9, eps=1e-3),
        optax.scale(3.0),
    ),
    xfail={
        "state_bytes": "that of its transforms",
        "flops": "those of its transforms",
        "composition": "optax.inject_hyperparams takes no transforms by position",
    },
)
def mix(gs, ps):
    a = m = v = 0.0
    for t, g in enumerate(gs, 1):
        a = 0.9 * a + g
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        adam = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        yield 0.5 * a + adam / t - 0.25 * 3 * g


@entry(
    "graft",
    fixed={
        "direction": gk.average_by_heavy_ball(0.9),
        "magnitude": gk.scale_by_adam(0.8, b2=0.9, eps=1e-3),
    },
)
def graft(gs, ps):
    a = m = v = 0.0
    for t, g in enumerate(gs, 1):
        a = 0.9 * a + g
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        adam = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        yield a * np.linalg.norm(adam) / np.linalg.norm(a)


RESTS = "micro-batches that end no cycle move nothing"


@entry(
    "accumulate",
    fixed={"inner": gk.average_by_heavy_ball(0.9)},
    xfail={"extreme_gradient": RESTS},
    every=2,
)
def accumulate(gs, ps, every):
    a = 0.0
    for t, g in enumerate(gs, 1):
        if t % every:
            yield 0 * g
        else:
            a = 0.9 * a + np.mean(gs[t - every : t], axis=0)
            yield a


def adam(learning_rate, b1=0.8):
    parts = gk.scale_by_adam(b1, b2=0.9, eps=1e-3), gk.scale_by_adam(eps=0.5)
    return gk.chain(*parts, gk.step_by_learning_rate(learning_rate))


@entry(
    "tune",
    args=(adam,),
    fixed={
        "learning_rate": lambda count: 1 / (1 + count.astype(float)),
        "scale_by_adam_2/b1": 0.7,
        "scale_by_adam_2/b2": 0.6,
    },
    xfail={
        "state_bytes": "that of the transform",
        "flops": "those of the transform",
        "composition": "optax.inject_hyperparams takes no arguments by any name",
    },
)
def tune(gs, ps):
    def averaged(us, b1, b2, eps):
        m = v = 0.0
        for t, u in enumerate(us, 1):
            m, v = b1 * m + (1 - b1) * u, b2 * v + (1 - b2) * u**2
            yield m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)

    once = averaged(gs, 0.8, 0.9, 1e-3)
    for t, u in enumerate(averaged(once, 0.7, 0.6, 0.5), 1):
        yield -u / t


@entry(
    "measure",
    fixed={"inner": gk.average_by_heavy_ball(0.9)},
    xfail={"needs": "the norm of parameters is in the state where they are given"},
)
def measure(gs, ps):
    a = 0.0
    for g in gs:
        a = 0.9 * a + g
        yield a


@entry("guard_by_finite", fixed={"inner": gk.average_by_heavy_ball(0.9)})
def guard_by_finite(gs, ps):
    a = 0.0
    for g in gs:
        a = 0.9 * a + g
        yield a


def loss(grads):
    """Something that varies from step to step to stand for the loss."""
    wide = jnp.result_type(float)
    each = [jnp.sum(jnp.abs(g.astype(wide))) for g in jax.tree.leaves(grads)]
    return {"value": sum(each, start=jnp.zeros([], wide))}


@entry(
    "guard_by_spike",
    whole=True,
    fixed={"inner": gk.average_by_heavy_ball(0.9)},
    extra=loss,
    window=4,
    max_deviations=0.6,
    floor=0.08,
)
def guard_by_spike(gs, ps, window, max_deviations, floor):
    a, norms, values = {k: 0.0 for k in gs[0]}, [], []
    for g in gs:
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        value = sum(np.sum(np.abs(x)) for x in g.values())
        good = True
        for x, seen in ((norm, norms), (value, values)):
            last = seen[-window:]
            if len(seen) >= max(window // 2, 1):
                center = np.median(last)
                width = 1.4826 * np.median(np.abs(last - center)) + floor * center
                good &= x <= center + max_deviations * width
            seen.append(x)
        if good:
            a = {k: 0.9 * a[k] + g[k] for k in g}
        yield a if good else {k: 0 * x for k, x in g.items()}


def unchanged(gs, ps, **hyper):
    """What an average is of is told by its own tests; updates are passed on."""
    yield from gs


AVERAGES = {
    "average_params_by_ema": {"decay": 0.9},
    "average_params_by_polynomial": {"power": 2.0, "start": 1},
    "average_params_by_window": {"length": 2, "every": 2},
}
for name, given in AVERAGES.items():
    entry(name, **given)(unchanged)
