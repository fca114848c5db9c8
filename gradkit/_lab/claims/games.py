"""Two players whose gradients run around the equilibrium instead of towards it."""

from typing import Any

import jax.numpy as jnp
import optax

from gradkit._lab.claims.run import descend


def play(tx: optax.GradientTransformation, steps: int) -> Any:
    """Final distance from the equilibrium of `min over x, max over y of x * y`; 1 at the start."""

    def slope(p: Any, _: Any) -> Any:
        return jnp.stack([p[1], -p[0]])

    p, _ = descend(tx, slope, jnp.array([0.6, 0.8]), jnp.arange(steps))
    return jnp.linalg.norm(p)
