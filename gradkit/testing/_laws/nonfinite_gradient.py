"""Law 14."""

import itertools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.testing._compare import finite, leaves, numbers, require
from gradkit.testing._law import law
from gradkit.testing._subject import Subject, copies


@law(14)
def nonfinite_gradient(s: Subject) -> None:
    """One inf or nan in a gradient ends in time, harms no other entry, and is forgotten.

    Where this does not hold, one bad batch hangs the run or makes the model NaN for good.
    """
    name = next(
        (k for k, v in s.shapes.items() if np.prod(v) > 1), next(iter(s.shapes))
    )
    at = (0,) * len(s.shapes[name])
    for value, first in itertools.product((jnp.inf, jnp.nan), (0, 1)):
        bad = {**s.grads(first), name: s.grads(first)[name].at[at].set(value)}
        updates, state = bounded(s, bad, s.run.states[first], value)
        for path, u in leaves(updates).items():
            harmed = ~np.isfinite(numbers(u)) & np.isfinite(numbers(bad[path]))
            require(
                not harmed.any(),
                f"where only {name}{list(at)} of the gradient is {value}, the update of "
                f"leaf {path!r} must be finite, got {int(harmed.sum())} entries that are not",
            )
        for t in (1, 2):
            updates, state = bounded(s, s.grads(first + t), state, value)
        after = f"two good steps after one {value}"
        finite(f"the update {after}", updates)
        finite(f"the state {after}", state)


def bounded(s: Subject, grads: Any, state: Any, value: float) -> tuple[Any, Any]:
    """One jitted update, if it ends in time.

    One that does not is left behind in its thread: nothing can end it but the process.
    """
    args = grads, copies(state), copies(s.params)
    step = s.donating_step.lower(*args).compile()  # threads have settings of their own
    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append(jax.block_until_ready(step(*args)))
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(s.seconds)
    require(
        ended, f"a step after one {value} must end within {s.seconds:g} s, got no end"
    )
    if isinstance(ended[0], Exception):
        raise ended[0]
    state, _, updates = ended[0]
    return updates, state
