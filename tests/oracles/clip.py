"""Oracles of `_transform/clip`."""

import numpy as np
from entry import entry


def norm(tree):
    """The Euclidean norm of {name: array} as one vector."""
    return np.sqrt(sum(np.sum(g**2) for g in tree.values()))


@entry("clip_by_global_norm", whole=True, max_norm=6.5)
def global_norm(gs, ps, max_norm):
    for g in gs:
        factor = min(1.0, max_norm / norm(g))
        yield {k: factor * x for k, x in g.items()}
