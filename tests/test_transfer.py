"""Width transfer against microsoft/mup's own table, and the errors of its inference."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk

TABLE = json.loads((pathlib.Path(__file__).parent / "golden/mup_mlp.json").read_text())


def shapes(key: str) -> dict[str, jax.ShapeDtypeStruct]:
    """The table's parameters in JAX's [in, out] layout."""
    return {
        row["param"]: jax.ShapeDtypeStruct(tuple(reversed(row[key])), jnp.float32)
        for row in TABLE["rows"]
    }


@pytest.mark.parametrize("degree,column", [(0.0, "adam_lr_mult"), (1.0, "sgd_lr_mult")])
def test_multipliers_are_those_of_mup(degree, column):
    grew = gk.infer_parametrization(shapes("base_torch_shape"), shapes("torch_shape"))
    tx = gk.transfer_by_mup(grew, degree)
    ones = {k: jnp.ones(s.shape, s.dtype) for k, s in shapes("torch_shape").items()}
    updates, _ = tx.update(ones, tx.init(ones))
    for row in TABLE["rows"]:
        assert jnp.allclose(updates[row["param"]], row[column], rtol=1e-6), row["param"]


def test_hidden_decay_is_the_inverse_of_the_adam_multiplier():
    for row in TABLE["rows"]:
        assert row["adam_weight_decay_mult"] * row["adam_lr_mult"] == 1


def test_uneven_widths_and_declared_inputs():
    base = {"up": jnp.ones((4, 8)), "query": jnp.ones((4, 2, 3))}
    target = {"up": jnp.ones((8, 64)), "query": jnp.ones((8, 4, 3))}
    grew = gk.infer_parametrization(base, target, inputs={"query": (0,)})
    assert grew == {"up": gk.Growth(2, 8), "query": gk.Growth(2, 2)}


def test_schedules_cannot_clobber_the_multiplier():
    """The same factor at every learning rate, since it stands after the schedule."""
    grew = gk.infer_parametrization({"w": jnp.ones((2, 2))}, {"w": jnp.ones((8, 8))})
    plain = gk.adamw(gk.schedule_by_linear_decay(1.0, 4), weight_decay=0.0)
    wide = gk.chain(plain, gk.transfer_by_mup(grew))
    params = {"w": jnp.ones((8, 8))}
    states = plain.init(params), wide.init(params)
    for _ in range(3):
        u, s = plain.update(params, states[0], params)
        v, r = wide.update(params, states[1], params)
        states = s, r
        assert jnp.allclose(v["w"], u["w"] / 4)
