"""Oracles of `_step`."""

import jax
import numpy as np
from entry import SHAPES, entry

import gradkit as gk


@entry("step_by_learning_rate", learning_rate=0.1)
def learning_rate(gs, ps, learning_rate):
    for g in gs:
        yield -learning_rate * g


@entry("decay_by_weight", weight_decay=0.1)
def weight(gs, ps, weight_decay):
    for u, p in zip(gs, ps):
        yield u - weight_decay * p


NARROW = {"kernel": (2, 4), "wide": (3, 1), "bias": (2,), "scale": ()}
GREW = gk.infer_parametrization(
    *[
        {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in shapes.items()}
        for shapes in (NARROW, SHAPES)
    ]
)


@entry(
    "transfer_by_mup",
    whole=True,
    fixed={"parametrization": GREW},
    excused={"trees": "a parametrization names the leaves of one model"},
    degree=1.0,
)
def mup(gs, ps, degree):
    # kernel (6, 4): inputs x 3, an output matrix; wide (3, 5): outputs x 5; bias (4,): x 2
    factor = {"kernel": 3**degree, "wide": 5**degree, "bias": 2**degree, "scale": 1}
    for g in gs:
        yield {k: factor[k] * x for k, x in g.items()}
