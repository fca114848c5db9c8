"""Oracles of `_compose/view`."""

import jax.numpy as jnp
import numpy as np
import optax
from entry import entry

import gradkit as gk

PATTERNS = {
    "fused$": "in (qk=2 h=3 d) -> (qk h) in d",
    "grouped$": "in out=4+1+1 -> in out",
    "layers$": "layer in out -> layer in out",
    "conv$": "h w in out -> (h w) in out",
}
SHAPES = {
    "fused": (4, 12),
    "grouped": (5, 6),
    "layers": (2, 4, 3),
    "conv": (2, 1, 3, 4),
    "plain": (3, 5),
    "cube": (2, 3, 4),
    "bias": (4,),
    "scale": (),
}


def unit(g, p):
    """Each matrix, or vector, over its largest entry."""
    g = jnp.where(jnp.isfinite(g), g, 0)
    largest = jnp.max(jnp.abs(g), tuple(range(g.ndim))[-2:], keepdims=True, initial=0)
    return g / jnp.where(largest > 0, largest, 1)


UNITS = gk.chain(optax.stateless_with_tree_map(unit), gk.average_by_heavy_ball(0.9))


@entry(
    "view_by_pattern",
    whole=True,
    shapes=SHAPES,
    fixed={"inner": UNITS, "patterns": PATTERNS},
    xfail={
        "flops": "blocks have lengths of their own, and this law tries others",
        "spmd_vmap": "JAX cannot reshape what is batched on an Explicit axis into blocks",
        "tree_map_params": "the inner state is a tree of views, not of parameters",
    },
)
def view_by_pattern(gs, ps):
    norm = lambda x: x / np.max(np.abs(x))
    m = dict.fromkeys(SHAPES, 0.0)
    for g in gs:
        u = {k: norm(g[k]) for k in ("plain", "cube", "bias", "scale")}
        u["fused"] = np.hstack(
            [norm(g["fused"][:, i : i + 2]) for i in range(0, 12, 2)]
        )
        u["grouped"] = np.hstack(
            [norm(x) for x in np.split(g["grouped"], [4, 5], axis=1)]
        )
        u["layers"] = np.stack([norm(x) for x in g["layers"]])
        u["conv"] = np.stack([[norm(x) for x in row] for row in g["conv"]])
        m = {k: 0.9 * m[k] + x for k, x in u.items()}
        yield m
