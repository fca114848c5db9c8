"""How a model grew, from its shapes alone: widths, depth, and what cannot be inferred."""

import dataclasses
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gradkit as gk

TABLE = json.loads((pathlib.Path(__file__).parent / "golden/mup_mlp.json").read_text())


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def mlp(width):
    """The model of the golden table, in JAX's layout."""
    sizes = {"fc1": (20, width), "fc2": (width, width), "readout": (width, 10)}
    return {
        f"{name}.{kind}": shape(*(s if kind == "weight" else s[1:]))
        for name, s in sizes.items()
        for kind in ("weight", "bias")
    }


def torch_mlp(width):
    """The same, every matrix [out, in]."""
    return {k: shape(*reversed(x.shape)) for k, x in mlp(width).items()}


def apply_mlp(p, x):
    h = jnp.tanh(x @ p["fc1.weight"] + p["fc1.bias"][None])
    h = jnp.tanh(h @ p["fc2.weight"] + p["fc2.bias"][None])
    return h @ p["readout.weight"] + p["readout.bias"][None]


def apply_torch_mlp(p, x):
    return apply_mlp({k: x.T for k, x in p.items()}, x)


FOUND = {
    "by convention": lambda: gk.infer_parametrization(mlp, base=64, target=256),
    "by inputs": lambda: gk.infer_parametrization(
        torch_mlp, base=64, target=256, inputs={"weight": (1,)}
    ),
    "from trees": lambda: gk.infer_parametrization(base=mlp(64), target=mlp(256)),
    "traced": lambda: gk.infer_parametrization(
        mlp, base=64, target=256, apply=apply_mlp, example=shape(4, 20)
    ),
    "traced [out, in]": lambda: gk.infer_parametrization(
        torch_mlp, base=64, target=256, apply=apply_torch_mlp, example=shape(4, 20)
    ),
}
ROLES = {  # by the first two words of the golden classification
    "vector_like (input": "input",
    "vector_like (inf": "vector",
    "vector_like (output": "output",
    "matrix_like (hidden": "hidden",
    "scalar_like (no": "fixed",
}


@pytest.mark.parametrize("how", FOUND)
def test_the_golden_classification(how):
    found = FOUND[how]()
    assert len(found) == len(TABLE["rows"])
    for row in TABLE["rows"]:
        p = found[row["param"]]
        words = row["classification"].replace(":", "").split()
        assert p.role == ROLES[" ".join(words[:2])]
        grown = max(p.growth_in, p.growth_out)
        assert grown == row["width_mult"]
        if row["fanin_fanout_mult_ratio"] is not None:
            assert p.growth_in / p.growth_out == row["fanin_fanout_mult_ratio"]
        infinite = [dim["dim"] for dim in row["infshape"] if dim["isinf"]]
        assert sorted(p.shape[axis] for axis in p.widths) == sorted(infinite)


def test_fans():
    p = FOUND["traced [out, in]"]()["fc1.weight"]
    assert (p.fan_in, p.fan_out, p.base_fan_in, p.base_fan_out) == (20, 256, 20, 64)
    assert (p.growth_in, p.growth_out, p.depth, p.kind) == (1, 4, 1, "input")
    p = gk.Parameter((3, 8, 2, 12), (3, 4, 2, 4), "hidden", (0, 1), (2, 3))
    assert (p.fan_in, p.fan_out, p.base_fan_in, p.base_fan_out) == (24, 24, 12, 8)


def test_nothing_is_computed():
    """Initializers that cannot be run, and could not be held in memory."""

    def init(width):
        made = jax.pure_callback(lambda: 1 / 0, shape(width, width))
        return {"w": made @ made}

    found = gk.infer_parametrization(init, base=2**8, target=2**20)
    assert found["w"].growth_in == 2**12


def test_delta_tells_widths_that_target_keeps():
    """Fine-tuning at the base width: every multiplier is 1, and the roles are as ever."""
    found = gk.infer_parametrization(mlp, base=64, target=64, delta=128)
    grown = FOUND["by convention"]()
    assert {k: p.role for k, p in found.items()} == {
        k: p.role for k, p in grown.items()
    }
    assert {p.growth_in * p.growth_out for p in found.values()} == {1.0}
    assert [p.widths for p in found.values()] == [p.widths for p in grown.values()]


def test_delta_tells_widths_of_new_layers_too():
    layers = lambda width, n: {"layers": [shape(width, width)] * n}
    found = gk.infer_parametrization(
        base=layers(4, 1), target=layers(4, 3), delta=layers(8, 1)
    )
    assert {p.role for p in found.values()} == {"hidden"}


def test_widths_may_grow_apart():
    def init(model, hidden):
        return {"up": shape(model, hidden), "down": shape(hidden, model)}

    found = gk.infer_parametrization(
        init, base={"model": 4, "hidden": 16}, target={"model": 6, "hidden": 48}
    )
    assert (found["up"].growth_in, found["up"].growth_out) == (1.5, 3)
    assert (found["down"].growth_in, found["down"].growth_out) == (3, 1.5)


def test_layers_of_a_list_are_depth():
    def init(width, layers):
        block = {"fc1": shape(width, width), "fc2": shape(width, width)}
        return {
            "in": shape(3, width),
            "blocks": [block] * layers,
            "norms_0": shape(width),
        }

    found = gk.infer_parametrization(
        init, base={"width": 4, "layers": 4}, target={"width": 8, "layers": 12}
    )
    assert len(found) == 26
    assert {p.depth for k, p in found.items() if "blocks" in k} == {3}
    assert found["in"].depth == found["norms_0"].depth == 1
    text = str(found)
    assert "blocks/*/fc* (24)" in text and text.count("\n") == 4
    assert "blocks/*/fc*, in: all axes but the last" in text


def test_a_new_layer_is_compared_with_the_like_of_it():
    """Of all numbers in its path the most are the same: the second matrix of a block."""

    def init(width, layers):
        block = {"fc1": shape(width, 3), "fc2": shape(5, width)}
        return {"blocks": [block] * layers}

    found = gk.infer_parametrization(
        init, base={"width": 4, "layers": 1}, target={"width": 8, "layers": 3}
    )
    assert found["blocks/2/fc1"].base == (4, 3)
    assert found["blocks/2/fc2"].base == (5, 4)


@pytest.mark.parametrize("role, depth", [("hidden", 3), ("expert", 1)])
def test_layers_in_rows_are_declared(role, depth):
    found = gk.infer_parametrization(
        base={"w": shape(2, 4, 4)},
        target={"w": shape(6, 8, 8)},
        stacks={"w": (0,)},
        roles={"w": role},
    )
    assert "[6] 8 -> 8" in str(found)
    p = found["w"]
    assert (p.role, p.inputs, p.outputs, p.stacks) == (role, (1,), (2,), (0,))
    assert (p.fan_in, p.depth) == (8, depth)


@pytest.mark.parametrize("role", ["embedding", "tied"])
def test_roles_are_declared(role):
    table = lambda width: {"w": shape(7, 2, width)}
    p = gk.infer_parametrization(
        table, base=4, target=8, roles={"^w$": role, ".": "hidden"}
    )["w"]
    assert (p.role, p.inputs, p.outputs) == (role, (0,), (1, 2))


def test_several_inputs_are_declared():
    kernel = lambda width: {"w": shape(width, width, 3)}
    found = gk.infer_parametrization(kernel, base=4, target=8, inputs={"w": (0, 1)})
    assert (found["w"].role, found["w"].growth_in) == ("output", 4)


def test_three_axes_by_convention_are_noted():
    found = gk.infer_parametrization(lambda w: {"k": shape(3, 3, w)}, base=4, target=8)
    assert found.notes[0].startswith("k: all axes but the last count as inputs")
    assert str(found).endswith(f"Note: {found.notes[0]}")


class Model(nnx.Module):
    def __init__(self, width, rngs):
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs)])
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def test_paths_are_those_of_what_is_trained():
    """A module, its state, and the parameters an optimizer sees have the same paths."""
    model = lambda width: Model(width, nnx.Rngs(0))
    found = gk.infer_parametrization(model, base=4, target=8)
    state = lambda width: nnx.state(model(width), nnx.Param)
    assert [*found] == [*gk.infer_parametrization(state, base=4, target=8)]
    updates = jax.tree.map(jnp.ones_like, state(8))
    moved, _ = gk.transfer_by_mup(found).update(
        updates, gk.transfer_by_mup(found).init({})
    )
    assert moved["layers"][0]["kernel"][...][0, 0] == 0.5
    dense = lambda w: linen.Dense(w).init(jax.random.key(0), jnp.ones((1, w)))["params"]
    assert {*gk.infer_parametrization(dense, base=4, target=8)} == {"kernel", "bias"}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Attention:
    query: jax.Array
    value: jax.Array


def test_a_field_called_value_keeps_its_name():
    """The variables of NNX have none inside."""
    init = lambda width: {"a": Attention(shape(3, width), shape(width, 2))}
    found = gk.infer_parametrization(init, base=4, target=8)
    assert [*found] == ["a/query", "a/value"]
    held = lambda width: {"a": nnx.Param({"value": jnp.ones((3, width))})}
    assert [*gk.infer_parametrization(held, base=4, target=8)] == ["a/value"]


def test_a_path_is_that_leaf_alone():
    """Only what is no path is an expression."""
    init = lambda width: {k: shape(width, width) for k in ("w", "w_out", "w (a)")}
    found = gk.infer_parametrization(
        init,
        base=4,
        target=8,
        roles={"w": "expert", "w (a)": "router", "out": "output"},
    )
    roles = {path: p.role for path, p in found.items()}
    assert roles == {"w": "expert", "w_out": "output", "w (a)": "router"}


def test_sizes_may_be_of_any_number_or_none():
    """Of what is no number no proportion can be told."""
    init = lambda width, drop=0.0: {"w": shape(3, int(width))}
    for base, target in (
        (np.int64(4), np.int64(8)),
        ({"width": 4, "drop": 0.0}, {"width": 8, "drop": 0.1}),
    ):
        found = gk.infer_parametrization(init, base=base, target=target)
        assert found["w"].growth_out == 2
    both = lambda widths: {"w": shape(*widths), "v": shape(widths[0] + 1)}
    found = gk.infer_parametrization(
        both, base={"widths": (4, 6)}, target={"widths": (8, 18)}
    )
    assert (found["w"].growth_in, found["w"].growth_out) == (2, 3)


class Batch(NamedTuple):
    x: jax.Array
    y: jax.Array


def test_a_named_tuple_is_one_example():
    found = gk.infer_parametrization(
        lambda width: {"w": shape(3, width)},
        base=4,
        target=8,
        apply=lambda p, batch: batch.x @ p["w"],
        example=Batch(shape(1, 3), shape(1)),
    )
    assert found["w"].role == "input"


# The mapping itself


def test_it_is_static():
    found = FOUND["traced"]()
    assert hash(found) == hash(FOUND["traced"]()) and found == FOUND["traced"]()
    assert not jax.tree.leaves(found)
    scaled = jax.jit(lambda found, x: x * found["fc2.weight"].growth_in)
    assert scaled(found, jnp.ones([])) == 4


def test_it_survives_a_file(tmp_path):
    found = gk.infer_parametrization(
        lambda w: {"k": shape(3, 3, w)}, base=4, target=8, roles={"k": "input"}
    )
    found.save(tmp_path / "found.json")
    again = gk.Parametrization.load(tmp_path / "found.json")
    assert again == found and again.notes == found.notes
    assert again["k"] == found["k"] and isinstance(again["k"].shape, tuple)


def test_it_prints_as_a_table():
    text = FOUND["traced"]().table(columns={"lr": lambda p: 1 / p.growth_in})
    head, *lines = text.splitlines()
    assert head.split()[-3:] == ["out", "depth", "lr"]
    row = next(line for line in lines if line.startswith("readout.weight"))
    assert " ".join(row.split()[1:]) == "output 64 -> 10 256 -> 10 4 1 1 0.25"
    said = FOUND["by convention"]().explain("readout.weight")
    assert "convention" in said
    assert "64 then 256 entries (x 4)" in said and "10 then 10 (x 1)" in said


# What cannot be inferred


class Shared(nnx.Module):
    def __init__(self, width):
        self.read = self.head = nnx.Embed(3, width, rngs=nnx.Rngs(0))


WIDE = {"w": shape(4, 8)}
REFUSED = {
    "equal shapes": (
        lambda: gk.infer_parametrization(mlp, base=64, target=64),
        "must differ in a width, got equal shapes.*pass delta",
    ),
    "only depth": (
        lambda: gk.infer_parametrization(
            base={"a": [WIDE]}, target={"a": [WIDE, WIDE]}
        ),
        "must differ in a width.*pass delta",
    ),
    "delta keeps a width": (
        lambda: gk.infer_parametrization(
            lambda a, b: {"w": shape(a, b)},
            base={"a": 2, "b": 2},
            target={"a": 4, "b": 4},
            delta={"a": 3, "b": 2},
        ),
        r"leaf w must differ between base and delta.*axis 1: \[2, 2, 4\].*every size",
    ),
    "out of proportion": (
        lambda: gk.infer_parametrization(
            lambda width: {"w": shape(width, width + 2)}, base=4, target=8
        ),
        "leaf w must grow in proportion.*axis 1 from 6 to 10.*name",
    ),
    "delta out of proportion": (
        lambda: gk.infer_parametrization(
            lambda width: {"w": shape(width, max(width, 5))}, base=8, target=16, delta=4
        ),
        "leaf w must grow in proportion.*axis 1 from 8 to 5",
    ),
    "other names": (
        lambda: gk.infer_parametrization(
            lambda **s: {}, base={"width": 1}, target={"depth": 1}
        ),
        r"must name the same sizes, got \['width'\] and \['depth'\]",
    ),
    "other leaves": (
        lambda: gk.infer_parametrization(base={"a": shape(2)}, target={"b": shape(2)}),
        r"only in one: \['a', 'b'\]",
    ),
    "renamed layers": (
        lambda: gk.infer_parametrization(
            base={"fc1": shape(2)}, target={"fc2": shape(4)}
        ),
        r"only in one: \['fc1', 'fc2'\]",
    ),
    "unlike layers": (
        lambda: gk.infer_parametrization(
            base=[shape(2, 4), shape(4, 4)], target=[shape(2, 8)] + [shape(8, 8)] * 2
        ),
        r"leaf 2 must be like the layers.*\(2, 4\), '1': \(4, 4\)",
    ),
    "other axes": (
        lambda: gk.infer_parametrization(
            base={"a": shape(2)}, target={"a": shape(2, 2)}
        ),
        r"leaf a must have as many axes.*\(2,\) and \(2, 2\)",
    ),
    "two inputs": (
        lambda: gk.infer_parametrization(
            lambda w: {"k": shape(w, w, 3)}, base=2, target=4
        ),
        r"leaf k must have one growing input axis.*inputs=\{'k'.*apply",
    ),
    "rule without a leaf": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, roles={"conv": "input"}),
        "roles must match a leaf, got 'conv'",
    ),
    "target out of proportion": (
        lambda: gk.infer_parametrization(
            lambda width: {"w": shape(width, max(width, 5))}, base=8, target=4, delta=16
        ),
        "leaf w must grow in proportion.*axis 1 from 8 to 5",
    ),
    "inputs without a leaf": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, inputs={"conv": (0,)}),
        "inputs must match a leaf, got 'conv'",
    ),
    "stacks without a leaf": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, stacks={"conv": (0,)}),
        "stacks must match a leaf, got 'conv'",
    ),
    "an axis that is not there": (
        lambda: gk.infer_parametrization(
            mlp, base=2, target=4, inputs={"fc1.weight": (2,)}
        ),
        r"inputs must be a tuple of axes of leaf fc1.weight, got \(2,\) for shape",
    ),
    "stacks of a vector": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, stacks={"fc1": (1,)}),
        r"stacks must be a tuple of axes of leaf fc1.bias, got \(1,\).*the leaf itself",
    ),
    "no tuple": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, stacks={"fc1": 0}),
        "stacks must be a tuple of axes of leaf fc1.*, got 0",
    ),
    "no mapping": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, roles=["hidden"]),
        r"roles must map paths, got \['hidden'\]. Pass a dict",
    ),
    "one variable at two paths": (
        lambda: gk.infer_parametrization(Shared, base=4, target=8),
        "head/embedding and read/embedding must be one leaf.*nnx.state",
    ),
    "unknown role": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, roles={"fc1": "big"}),
        "roles must be known, got 'big'.*hidden",
    ),
    "no example": (
        lambda: gk.infer_parametrization(mlp, base=2, target=4, apply=apply_mlp),
        "example must be given with apply",
    ),
    "apply of another size": (
        lambda: gk.infer_parametrization(
            mlp,
            base=2,
            target=4,
            apply=lambda p, x: x @ p["fc1.weight"].reshape(20, 2),
            example=shape(1, 20),
        ),
        "apply must run at size 4, got TypeError.*names of the sizes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_messages_say_what_to_do(name):
    call, message = REFUSED[name]
    with pytest.raises(
        ValueError, match=rf"(?s)gradkit.infer_parametrization: .*{message}"
    ):
        call()


def test_an_apply_of_one_size_is_noted():
    found = gk.infer_parametrization(
        lambda width: {"w": shape(3, width)},
        base=4,
        target=8,
        apply=lambda p, x: (x @ p["w"]).reshape(1, 2, 4),
        example=shape(1, 3),
    )
    assert "were not looked at" in found.notes[0]
