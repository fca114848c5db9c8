"""Law 15."""

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.testing._compare import finite, numbers, require
from gradkit.testing._law import law
from gradkit.testing._subject import Subject

HUGE, TINY = 1e25, 1e-30  # their squares leave float32


@law(15)
def extreme_gradient(s: Subject) -> None:
    """Entries of 1e25 or 1e-30 give finite updates, and no update that vanishes.

    Where this does not hold, a loss spike or a nearly dead layer overflows a norm: the whole
    update becomes zero or NaN, silently.
    """
    good = s.grads(1)
    name = next(iter(s.shapes))
    at = (0,) * len(s.shapes[name])
    zero = jax.tree.map(jnp.zeros_like, good)
    still, _ = s.step(zero, s.run.states[0])  # decay moves parameters all the same
    cases = {
        f"one entry of {HUGE:g}": ({**good, name: good[name].at[at].set(HUGE)}, still),
        f"entries around {HUGE:g}": ({k: HUGE * g for k, g in good.items()}, still),
        f"entries around {TINY:g}": ({k: TINY * g for k, g in good.items()}, zero),
    }
    for what, (grads, idle) in cases.items():
        first, state = s.step(grads, s.run.states[0])
        finite(f"the first update, {what}", first)
        for path, g in grads.items():
            moved = np.any(numbers(first[path]) != numbers(idle[path]))
            require(
                moved or not np.any(numbers(g)),
                f"the first update of leaf {path!r}, {what}, must not vanish, got that of "
                "a zero gradient",
            )
        finite(f"the state after {what}", state)
        updates, state = s.step(good, state)
        finite(f"the update after {what}", updates)
        finite(f"the state two steps after {what}", state)
