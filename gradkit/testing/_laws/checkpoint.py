"""Law 10."""

import tempfile
from pathlib import Path
from typing import Any

import jax

from gradkit.testing._compare import attempt, load, same
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(10)
def checkpoint(s: Subject) -> None:
    """A state restored by Orbax or by flax msgpack goes on bit for bit.

    Where this does not hold, an interrupted run cannot be continued, or not as the same run.
    """
    state = s.run.states[-2]
    for name, restore in {"flax msgpack": by_msgpack, "Orbax": by_orbax}.items():
        with attempt(f"saving and restoring the state by {name}"):
            restored = restore(state)
        same(f"the state restored by {name}", restored, state, tolerance=0)
        updates, new = s.step(s.grads(len(s.run.updates) - 1), restored)
        what = f"after a restore by {name}"
        same(f"the next update {what}", updates, s.run.updates[-1], tolerance=0)
        same(f"the next state {what}", new, s.run.states[-1], tolerance=0)


def by_msgpack(state: Any) -> Any:
    """The state, through bytes."""
    serialization = load("flax.serialization")
    return serialization.from_bytes(state, serialization.to_bytes(state))


def by_orbax(state: Any) -> Any:
    """The state, through a directory."""
    orbax = load("orbax.checkpoint")
    if not jax.tree.leaves(state):
        return state  # Orbax refuses to save nothing, and nothing is there to restore
    with (
        tempfile.TemporaryDirectory() as folder,
        orbax.StandardCheckpointer() as keeper,
    ):
        keeper.save(Path(folder) / "state", state)
        keeper.wait_until_finished()
        return keeper.restore(Path(folder) / "state", state)
