"""Every replay follows the trajectory recorded from its authors' or best kept code, in float64."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import GOLDEN, Golden

DATA = pathlib.Path(__file__).parent / "golden"


def worst_error(replay: Golden) -> float:
    """The largest error of any leaf at any step, relative to the leaf's largest entry."""
    data = np.load(DATA / f"{replay.file}.npz")
    turn = (lambda x: jnp.asarray(x).T) if replay.transpose else jnp.asarray
    names = [k.removeprefix("grads/") for k in data if k.startswith("grads/")]
    tx = replay.make()
    update, worst = jax.jit(tx.update), 0.0
    params = {k: turn(data[f"params/{k}"][0]) for k in names}
    state = tx.init(params)
    for t in range(replay.steps or len(data[f"grads/{names[0]}"])):
        grads = {k: turn(data[f"grads/{k}"][t]) for k in names}
        extra = {"value": data["loss"][t]} if "loss" in data else {}
        updates, state = update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
        for k in names:
            want = turn(data[f"params/{k}"][t + 1])
            error = jnp.max(jnp.abs(params[k] - want)) / jnp.max(jnp.abs(want))
            worst = max(worst, float(error))
    return worst


@pytest.mark.parametrize("file", GOLDEN)
def test_follows_reference(file: str) -> None:
    with jax.enable_x64(True):
        assert worst_error(GOLDEN[file]) <= GOLDEN[file].tolerance
