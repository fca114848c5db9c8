"""Axes that number experts or layers are no widths: gathered, mapped or scanned over."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx
from inferred import IMAGES, axes, infer, roles, shape


def mixed(p, x):
    """All experts on all inputs, side by side."""
    h = x @ p["in"]
    gates, chosen = jax.lax.top_k(jax.nn.softmax(h @ p["router"]), 2)
    each = jax.vmap(lambda u, b, d: jax.nn.relu(h @ u + b) @ d)
    made = each(p["up"], p["bias"], p["down"])
    picked = jnp.take_along_axis(made.swapaxes(0, 1), chosen[..., None], axis=1)
    return (picked * gates[..., None]).sum(1) @ p["out"]


def gathered(p, x):
    """The matrices of the chosen experts, for each input."""
    h = x @ p["in"]
    gates, chosen = jax.lax.top_k(h @ p["router"], 2)
    h = jnp.einsum("bi,bkif->bkf", h, p["up"][chosen]) + p["bias"][chosen]
    return jnp.einsum("bkf,bkfo,bk->bo", h, p["down"][chosen], gates) @ p["out"]


def ragged(p, x):
    """Inputs sorted by their expert."""
    h = x @ p["in"]
    chosen = jnp.argmax(h @ p["router"], -1)
    h, groups = h[jnp.argsort(chosen)], jnp.bincount(chosen, length=6)
    h = jax.lax.ragged_dot(h, p["up"], groups) + p["bias"][jnp.sort(chosen)]
    return jax.lax.ragged_dot(h, p["down"], groups) @ p["out"]


def mapped(p, x):
    """One expert after the other, none on what another made."""
    h = x @ p["in"]
    _, chosen = jax.lax.top_k(h @ p["router"], 2)
    expert = lambda row: jax.nn.relu(h @ row["up"] + row["bias"]) @ row["down"]
    made = jax.lax.map(expert, {k: p[k] for k in ("up", "bias", "down")})
    return made[chosen[0, 0]] @ p["out"]


def experts(width, number=6):
    sizes = {"up": (width, 2 * width), "bias": (2 * width,), "down": (2 * width, width)}
    stacked = {k: shape(number, *s) for k, s in sizes.items()}
    router = {"router": shape(width, number)}
    return stacked | router | {"in": shape(3, width), "out": shape(width, 2)}


@pytest.mark.parametrize("apply", [mixed, gathered, ragged, mapped])
def test_experts_and_their_router(apply):
    found = infer(experts, apply, IMAGES)
    expert = ("expert", (1,), (2,), (0,))
    assert axes(found)["up"] == axes(found)["down"] == expert
    assert axes(found)["router"] == ("router", (0,), (1,), ())
    assert found["bias"].kind == "input" and found["bias"].growth_out == 4


def test_more_experts_are_no_width():
    sizes = {"width": 8, "number": 6}, {"width": 32, "number": 12}
    found = infer(experts, mixed, IMAGES, *sizes)
    assert [found["up"].growth_in, found["up"].growth_out] == [4, 4]
    assert found["up"].depth == found["bias"].depth == 1
    assert axes(found)["bias"] == ("vector", (), (1,), (0,))
    assert any("roles={'router': 'router'}" in note for note in found.notes)
    found = infer(experts, mixed, IMAGES, *sizes, roles={"router": "router"})
    assert roles(found)["router"] == "router"
    assert not any("roles=" in note for note in found.notes)


def test_a_bias_of_experts_may_lie_in_any_way():
    def init(width, number):
        made = experts(width, number)
        return made | {"bias": shape(*made["bias"].shape[::-1])}

    sizes = {"width": 8, "number": 6}, {"width": 32, "number": 12}
    apply = lambda p, x: mixed(p | {"bias": p["bias"].T}, x)
    found = infer(init, apply, IMAGES, *sizes)
    assert axes(found)["bias"] == ("vector", (), (0,), (1,))


def test_beside_experts_other_rows_are_none():
    def init(width):
        return experts(width) | {"place": shape(4, width)}

    def apply(p, x):
        return mixed(p, x) + (x @ p["in"] + p["place"]) @ p["out"]

    assert axes(infer(init, apply, IMAGES))["place"] == ("vector", (), (0, 1), ())


def test_a_bias_of_experts_that_does_not_grow_is_of_experts_too():
    def init(width):
        sizes = {"up": (6, 3, width), "down": (6, width, 2), "bias": (6, 2)}
        return {name: shape(*s) for name, s in sizes.items()}

    def apply(p, x):
        each = jax.vmap(lambda u, d, b: x @ u @ d + b)
        return each(p["up"], p["down"], p["bias"]).sum(0)

    assert axes(infer(init, apply, IMAGES))["bias"] == ("fixed", (), (1,), (0,))


def test_heads_that_are_all_that_grows_stay_outputs():
    """Matrices of one head each are side by side, as experts are; the query is one matrix."""

    def apply(p, x):
        h = jnp.einsum(
            "bhd,hde->bhe", jnp.einsum("bi,ihd->bhd", x, p["query"]), p["each"]
        )
        return jnp.einsum("bhe,heo->bo", h, p["out"])

    def init(width):
        heads = width // 4
        sizes = {"query": (3, heads, 4), "each": (heads, 4, 4), "out": (heads, 4, 2)}
        return {name: shape(*s) for name, s in sizes.items()}

    assert axes(infer(init, apply, IMAGES)) == {
        "query": ("input", (0,), (1, 2), ()),
        "each": ("fixed", (1,), (2,), (0,)),
        "out": ("output", (0, 1), (2,), ()),
    }


# Layers


def layered(loop, **said):
    """A stack of layers between two others, at 2 and 6 layers."""

    def init(width, layers):
        stack = {"w": shape(layers, width, width), "b": shape(layers, width)}
        return {"in": shape(3, width), "stack": stack, "out": shape(width, 2)}

    def apply(p, x):
        return loop(x @ p["in"], p["stack"]) @ p["out"]

    sizes = {"width": 8, "layers": 2}, {"width": 32, "layers": 6}
    return infer(init, apply, IMAGES, *sizes, **said)


def layer(h, p):
    return jnp.tanh(h @ p["w"] + p["b"]), None


def indexed(h, stack):
    def body(i, h):
        return layer(h, {"w": stack["w"][i], "b": stack["b"][i]})[0]

    return jax.lax.fori_loop(0, len(stack["b"]), body, h)


LOOPS = {
    "scan": lambda h, stack: jax.lax.scan(layer, h, stack)[0],
    "scan of remat": lambda h, stack: jax.lax.scan(jax.remat(layer), h, stack)[0],
    "index": indexed,
}


def from_nothing(h, stack):
    """Layers whose first input is no data, all of which see the example."""
    step = lambda state, p: (layer(state + h, p)[0], None)
    return jax.lax.scan(step, jnp.zeros_like(h), stack)[0]


def test_a_first_state_of_zeros_makes_layers_no_experts():
    found = layered(from_nothing)
    assert axes(found)["stack/w"] == ("hidden", (1,), (2,), (0,))
    assert found["stack/w"].depth == found["stack/b"].depth == 3


def test_experts_may_be_added_to_the_residual():
    """What one adds no other sees; nor if layers of them are scanned."""
    number = {"width": 8, "number": 6}, {"width": 32, "number": 12}

    def added(p, x):
        h = x @ p["in"]
        gates = jax.nn.softmax(h @ p["router"]).T
        rows = gates, {k: p[k] for k in ("up", "down", "bias")}

        def step(total, row):
            gate, e = row
            return total + gate[:, None] * (
                jax.nn.relu(h @ e["up"] + e["bias"]) @ e["down"]
            ), None

        return jax.lax.scan(step, h, rows)[0] @ p["out"]

    found = infer(experts, added, IMAGES, *number, roles={"router": "router"})
    assert axes(found)["up"] == axes(found)["down"] == ("expert", (1,), (2,), (0,))
    assert found["up"].depth == 1

    def init(width, layers):
        sizes = {"in": (3, width), "out": (width, 2), "up": (layers, 4, width, width)}
        return {k: shape(*s) for k, s in sizes.items()}

    def both(p, x):
        def block(h, stack):
            step = lambda total, w: (total + jnp.tanh(h @ w), None)
            return jax.lax.scan(step, h, stack)[0], None

        return jax.lax.scan(block, x @ p["in"], p["up"])[0] @ p["out"]

    found = infer(init, both, IMAGES, dict(width=8, layers=2), dict(width=32, layers=6))
    assert axes(found)["up"] == ("expert", (2,), (3,), (0, 1))
    assert found["up"].depth == 3


def test_layers_of_a_list_may_be_stacked_and_scanned():
    def init(width, layers):
        blocks = [{"w": shape(width, width), "b": shape(width)}] * layers
        return {"in": shape(3, width), "blocks": blocks, "out": shape(width, 2)}

    def apply(p, x):
        stack = jax.tree.map(lambda *xs: jnp.stack(xs), *p["blocks"])
        return jax.lax.scan(layer, x @ p["in"], stack)[0] @ p["out"]

    def apart(p, x):
        h, ws = x @ p["in"], jnp.unstack(jnp.stack([b["w"] for b in p["blocks"]]))
        for w, b in zip(ws, p["blocks"]):
            h, _ = layer(h, {"w": w, "b": b["b"]})
        return h @ p["out"]

    sizes = {"width": 8, "layers": 2}, {"width": 32, "layers": 6}
    for model in apply, apart:
        found = infer(init, model, IMAGES, *sizes)
        assert axes(found)["blocks/5/w"] == ("hidden", (0,), (1,), ())
        assert found["blocks/0/w"].depth == 3


@pytest.mark.parametrize("name", LOOPS)
def test_stacked_layers_are_depth(name):
    found = layered(LOOPS[name])
    assert axes(found)["stack/w"] == ("hidden", (1,), (2,), (0,))
    assert axes(found)["stack/b"] == ("vector", (), (1,), (0,))
    assert {path: p.depth for path, p in found.items()} == {
        "in": 1.0,
        "out": 1.0,
        "stack/w": 3.0,
        "stack/b": 3.0,
    }
    assert found["stack/w"].growth_in == found["stack/w"].growth_out == 4
    assert found["stack/w"].widths == (1, 2)


def unrolled(h, stack):
    for i in range(len(stack["b"])):
        h, _ = layer(h, {"w": stack["w"][i], "b": stack["b"][i]})
    return h


def test_layers_that_are_taken_one_by_one_are_declared():
    with pytest.raises(ValueError, match="leaf stack/w must not be taken apart along"):
        layered(unrolled, stacks={"b": (0,)})
    found = layered(unrolled, stacks={"stack": (0,)})
    assert axes(found)["stack/w"] == ("hidden", (1,), (2,), (0,))
    assert found["stack/w"].depth == found["stack/b"].depth == 3


def test_declared_inputs_leave_layers_as_they_are():
    found = layered(LOOPS["scan"], inputs={"w": (2,)})
    assert axes(found)["stack/w"] == ("hidden", (2,), (1,), (0,))


def test_layers_that_are_declared_experts_are_not_depth():
    p = layered(LOOPS["scan"], roles={"w": "expert"})["stack/w"]
    assert (p.role, p.stacks, p.depth) == ("expert", (0,), 1)


def test_stacks_that_are_declared_away_must_not_grow():
    found = infer(experts, mixed, IMAGES, stacks={"up": ()})
    assert axes(found)["up"] == ("hidden", (1,), (2,), ())
    with pytest.raises(ValueError, match="leaf stack/w must use axis 0, which grows"):
        layered(LOOPS["scan"], stacks={"w": ()})


STACKED = {
    "outputs": lambda h, w: jnp.einsum("bi,sio->bso", h, w),
    "inputs": lambda h, w: jnp.einsum("bsi,sio->bo", jnp.stack([h] * 5, 1), w),
}


@pytest.mark.parametrize("name", STACKED)
def test_declared_stacks_are_neither_inputs_nor_outputs(name):
    found = infer(
        lambda w: {"in": shape(3, w), "w": shape(5, w, w)},
        lambda p, x: STACKED[name](x @ p["in"], p["w"]),
        IMAGES,
        stacks={"w": (0,)},
    )
    assert axes(found)["w"] == ("hidden", (1,), (2,), (0,))


def test_lists_of_stacks_are_as_deep_as_both():
    def init(width, groups, layers):
        return {"in": shape(3, width), "groups": [shape(layers, width, width)] * groups}

    def apply(p, x):
        rows = lambda h, w: jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h, w)[0]
        return functools.reduce(rows, p["groups"], x @ p["in"])

    sizes = (
        {"width": 8, "groups": 1, "layers": 2},
        {"width": 32, "groups": 2, "layers": 6},
    )
    assert infer(init, apply, IMAGES, *sizes)["groups/1"].depth == 6


class LinenBlock(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x, _):
        h = linen.relu(linen.Dense(2 * self.width)(linen.LayerNorm()(x)))
        return x + linen.Dense(self.width)(h), None


class LinenStack(linen.Module):
    width: int
    layers: int

    @linen.compact
    def __call__(self, x):
        block = linen.scan(
            linen.remat(LinenBlock),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        return linen.Dense(2)(block(self.width)(linen.Dense(self.width)(x), None)[0])


def test_linen_scan():
    found = infer(
        lambda width, layers: LinenStack(width, layers).init(
            jax.random.key(0), jnp.zeros((4, 3))
        )["params"],
        lambda p, x, width, layers: LinenStack(width, layers).apply({"params": p}, x),
        IMAGES,
        {"width": 8, "layers": 2},
        {"width": 32, "layers": 6},
    )
    inside = {k: p for k, p in found.items() if "Scan" in k}
    assert {p.depth for p in inside.values()} == {3} and len(inside) == 6
    assert {p.stacks for p in inside.values()} == {(0,)}
    assert sorted(p.role for p in inside.values()) == ["hidden"] * 2 + ["vector"] * 4


class NnxStack(nnx.Module):
    def __init__(self, width, layers, rngs):
        @nnx.split_rngs(splits=layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stack(rngs):
            return nnx.Linear(width, width, rngs=rngs)

        self.first = nnx.Linear(3, width, rngs=rngs)
        self.stack = stack(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x, linear):
            return jnp.tanh(linear(x))

        return run(self.first(x), self.stack)


def test_nnx_scan():
    found = infer(
        lambda width, layers: NnxStack(width, layers, nnx.Rngs(0)),
        lambda model, x: model(x),
        IMAGES,
        {"width": 8, "layers": 2},
        {"width": 32, "layers": 6},
    )
    assert axes(found)["stack/kernel"] == ("hidden", (1,), (2,), (0,))
    assert found["stack/kernel"].depth == found["stack/bias"].depth == 3
