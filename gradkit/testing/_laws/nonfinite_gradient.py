"""Law 14."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.testing._compare import finite, leaves, numbers, require
from gradkit.testing._law import law
from gradkit.testing._subject import Subject

SECONDS = 20.0


@law(14)
def nonfinite_gradient(s: Subject) -> None:
    """One inf or nan in a gradient ends in time, harms no other entry, and is forgotten.

    Where this does not hold, one bad batch hangs the run or makes the model NaN for good.
    """
    name = next((k for k, v in s.shapes.items() if np.prod(v) > 1), next(iter(s.shapes)))
    at = (0,) * len(s.shapes[name])
    good = s.grads(1)
    for value in (jnp.inf, jnp.nan):
        bad = {**good, name: good[name].at[at].set(value)}
        updates, state = bounded(lambda: s.step(bad, s.run.states[1]), value)
        for path, u in leaves(updates).items():
            harmed = ~np.isfinite(numbers(u)) & np.isfinite(numbers(bad[path]))
            require(
                not harmed.any(),
                f"where only {name}{list(at)} of the gradient is {value}, the update of "
                f"leaf {path!r} must be finite, got {int(harmed.sum())} entries that are not",
            )
        for t in (2, 3):
            updates, state = bounded(lambda: s.step(s.grads(t), state), value)
        after = f"two good steps after one {value}"
        finite(f"the update {after}", updates)
        finite(f"the state {after}", state)


def bounded(step: Callable[[], Any], value: float) -> Any:
    """What `step` returns, or raises, if it does so in time.

    A step that does not is left behind in its thread: nothing can end it but the process.
    """
    ended: list[Callable[[], Any]] = []

    def work() -> None:
        try:
            out = jax.block_until_ready(step())
            ended.append(lambda: out)
        except Exception as error:
            ended.append(lambda error=error: _raise(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    require(ended, f"a step after one {value} must end within {SECONDS:g} s, got no end")
    return ended[0]()


def _raise(error: Exception) -> None:
    raise error
