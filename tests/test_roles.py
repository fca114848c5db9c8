"""The role of each parameter, followed through what a model does with it."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

import gradkit as gk
from gradkit._core.axes import labels, reshape, size, whole
from gradkit._lab import models


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


IMAGES, TOKENS = shape(4, 3), shape(2, 5, dtype=jnp.int32)
HIDDEN = ("hidden", (0,), (1,), ())


@pytest.fixture(autouse=True)
def models_may_promote_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def infer(init, apply, example, base=8, target=32, **options):
    return gk.infer_parametrization(
        init, base=base, target=target, apply=apply, example=example, **options
    )


def axes(found):
    """By path: role, inputs, outputs, stacks."""
    return {k: (p.role, p.inputs, p.outputs, p.stacks) for k, p in found.items()}


def roles(found):
    return {path: p.role for path, p in found.items()}


def sandwich(middle, **sizes):
    """The axes of the parameters of `middle(p, h)`, put between two layers; "w" is the width."""

    def init(width):
        made = {
            k: shape(*(width if n == "w" else n for n in s)) for k, s in sizes.items()
        }
        return made | {"in": shape(3, width), "out": shape(width, 2)}

    def apply(p, x):
        return middle(p, jnp.tanh(x @ p["in"])) @ p["out"]

    found = axes(infer(init, apply, IMAGES))
    assert found.pop("in") == ("input", (0,), (1,), ())
    assert found.pop("out") == ("output", (0,), (1,), ())
    return found


@jax.custom_vjp
def with_vjp(w, x):
    return x @ w


@jax.custom_jvp
def with_jvp(w, x):
    return x @ w


with_vjp.defvjp(lambda w, x: (x @ w, w), lambda w, g: (w, g @ w.T))
with_jvp.defjvp(lambda p, t: (with_jvp(*p), with_jvp(*p)))

PRODUCTS = {
    "matmul": lambda w, h: h @ w,
    "einsum": lambda w, h: jnp.einsum("io,bi->bo", w, h),
    "one example at a time": lambda w, h: jax.vmap(lambda row: row @ w)(h),
    "jit": jax.jit(lambda w, h: h @ w),
    "remat": jax.remat(lambda w, h: h @ w),
    "custom_vjp": with_vjp,
    "custom_jvp": with_jvp,
    "cond": lambda w, h: jax.lax.cond(h.sum() > 0, lambda: h @ w, lambda: h),
    "while": lambda w, h: jax.lax.fori_loop(0, 3, lambda _, h: h @ w, h),
    "half precision": lambda w, h: h @ w.astype(jnp.bfloat16).astype(h.dtype),
    "normalized": lambda w, h: h @ (w / jnp.linalg.norm(w, axis=0)),
    "standardized": lambda w, h: h @ ((w - w.mean(0)) / w.std(0)),
    "masked": lambda w, h: h @ (w * jnp.tri(len(w))),
    "split": lambda w, h: jnp.concatenate([h @ x for x in jnp.split(w, 2, 1)], 1),
    "joined": lambda w, h: (h @ jnp.concatenate([w, w], 1))[:, : len(w)],
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_sums_over_the_contracted_axis_in_any_layout(name):
    product = PRODUCTS[name]
    assert sandwich(lambda p, h: product(p["w"], h), w=("w", "w")) == {"w": HIDDEN}
    found = sandwich(lambda p, h: product(p["w"].T, h), w=("w", "w"))
    assert found == {"w": ("hidden", (1,), (0,), ())}


def test_heads():
    def middle(p, h):
        q = jnp.einsum("bi,ihd->bhd", h, p["query"]) + p["bias"]
        flat = h @ p["flat"].reshape(len(p["flat"]), -1)
        return jnp.einsum("bhd,hdo->bo", q, p["back"]) + flat[:, : h.shape[1]]

    sizes = {"query": ("w", 4, "w"), "bias": (4, "w"), "back": (4, "w", "w")}
    assert sandwich(middle, flat=("w", 2, "w"), **sizes) == {
        "query": ("hidden", (0,), (1, 2), ()),
        "bias": ("vector", (), (0, 1), ()),
        "back": ("hidden", (0, 1), (2,), ()),
        "flat": ("hidden", (0,), (1, 2), ()),
    }


@pytest.mark.parametrize("new", [(24,), (4, 6), (8, 3), (3, 2, 4), (6, 1, 4)])
def test_reshapes_keep_all_entries(new):
    """Where old and new axes have no boundary in common, each is made of both."""
    found = reshape(whole((6, 4)), new)
    assert tuple(map(size, found)) == new
    if new == (8, 3):
        assert labels(found[:1]) == labels(found[1:]) == {0, 1}


def test_entries_are_vectors():
    def middle(p, h):
        h = (h - h.mean()) * p["gain"] + p["bias"] + p["row"][0]
        h = jnp.where(h > 0, h, p["slope"] * h)
        return jnp.concatenate([p["first"], h]) * jnp.exp(p["temperature"])

    sizes = {"gain": ("w",), "bias": ("w",), "row": (1, "w"), "first": (1, "w")}
    found = sandwich(middle, slope=(), temperature=(), **sizes)
    assert {k: role for k, (role, *_) in found.items()} == (
        dict.fromkeys(sizes, "vector") | {"slope": "fixed", "temperature": "fixed"}
    )
    assert not any(inputs for _, inputs, *_ in found.values())


def test_a_product_that_sums_nothing_is_a_gain():
    def middle(p, h):
        h = h + jnp.einsum("b,w->bw", h[:, 0], p["frequency"])
        return jnp.einsum("bw,w->bw", h, p["gain"])

    found = sandwich(middle, frequency=("w",), gain=("w",))
    assert found == dict.fromkeys(found, ("vector", (), (0,), ()))


def test_products_of_parameters():
    """A low rank update sums over the width on one side, and over the rank on the other."""
    found = sandwich(
        lambda p, h: h @ (p["w"] * p["gain"] + p["down"] @ p["up"]),
        **{"w": ("w", "w"), "gain": ("w",), "down": ("w", 2), "up": (2, "w")},
    )
    assert found == {
        "w": HIDDEN,
        "gain": ("vector", (), (0,), ()),
        "down": ("output", (0,), (1,), ()),
        "up": ("input", (0,), (1,), ()),
    }


def test_a_learned_first_state_of_a_scan_is_a_vector():
    def middle(p, h):
        def cell(state, row):
            state = jnp.tanh(row + state @ p["w"])
            return state, state

        return jax.lax.scan(cell, p["first"], h)[1]

    found = sandwich(middle, first=("w",), w=("w", "w"))
    assert found == {"first": ("vector", (), (0,), ()), "w": HIDDEN}


def test_embeddings():
    def init(width):
        table = {k: shape(11, width) for k in ("take", "index", "one_hot", "dynamic")}
        return table | {"position": shape(9, width), "out": shape(width, 2)}

    def apply(p, tokens):
        h = jnp.take(p["take"], tokens, axis=0) * p["take"].shape[1] ** 0.5
        h = h + p["index"][tokens] + jax.nn.one_hot(tokens, 11) @ p["one_hot"]
        h = h + jax.vmap(jax.vmap(lambda token: p["dynamic"][token]))(tokens)
        return (h + p["position"][:5]) @ p["out"]

    found = axes(infer(init, apply, TOKENS))
    looked_up = ("embedding", (0,), (1,), ())
    assert found["take"] == found["index"] == found["dynamic"] == looked_up
    assert found["one_hot"] == ("input", (0,), (1,), ())
    assert found["position"] == ("vector", (), (0, 1), ())


class Tied(nnx.Module):
    def __init__(self, width, rngs):
        self.embed = nnx.Embed(11, width, rngs=rngs)
        self.linear = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, tokens):
        return self.embed.attend(self.linear(self.embed(tokens)))


def test_tied_embeddings_want_a_multiplier():
    found = infer(lambda w: Tied(w, nnx.Rngs(0)), lambda m, x: m(x), TOKENS)
    assert axes(found)["embed/embedding"] == ("tied", (0,), (1,), ())
    (note,) = found.notes
    assert "embed/embedding is tied" in note and "by 0.25" in note


def test_a_tied_autoencoder_is_tied():
    found = infer(
        lambda w: {"w": shape(3, w)}, lambda p, x: (x @ p["w"]) @ p["w"].T, IMAGES
    )
    assert axes(found) == {"w": ("tied", (0,), (1,), ())}


def test_rows_that_the_example_chooses_as_outputs_are_outputs():
    """Sampled softmax: the rows are classes."""

    def apply(p, x, classes):
        return jnp.einsum("bw,bkw->bk", x @ p["in"], p["out"][classes])

    example = IMAGES, shape(4, 6, dtype=jnp.int32)
    found = infer(lambda w: {"in": shape(3, w), "out": shape(9, w)}, apply, example)
    assert axes(found)["out"] == ("output", (1,), (0,), ())


# Mixtures of experts


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
    assert axes(found)["bias"] == ("vector", (), (1,), (0,))
    assert any("roles={'router': 'router'}" in note for note in found.notes)
    found = infer(experts, mixed, IMAGES, *sizes, roles={"router": "router"})
    assert roles(found)["router"] == "router" and not found.notes


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


def layered(loop):
    """A stack of layers between two others, at 2 and 6 layers."""

    def init(width, layers):
        stack = {"w": shape(layers, width, width), "b": shape(layers, width)}
        return {"in": shape(3, width), "stack": stack, "out": shape(width, 2)}

    def apply(p, x):
        return loop(x @ p["in"], p["stack"]) @ p["out"]

    sizes = {"width": 8, "layers": 2}, {"width": 32, "layers": 6}
    return infer(init, apply, IMAGES, *sizes)


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


# Whole models


class LinenModel(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x):
        x = linen.Dense(self.width)(x)
        x = linen.MultiHeadDotProductAttention(num_heads=self.width // 4)(x)
        x = linen.Conv(self.width, (3,))(linen.LayerNorm()(x))
        x = linen.Conv(self.width, (3,), feature_group_count=self.width)(x)
        return linen.Dense(2)(x)


class NnxModel(nnx.Module):
    def __init__(self, width, rngs):
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            width // 4, width, rngs=rngs, decode=False
        )
        self.conv = nnx.Conv(width, width, (3,), rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.GroupNorm(width, num_groups=2, rngs=rngs)
        self.head = nnx.LinearGeneral((width,), (2,), rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.drop(self.conv(self.attention(self.first(x)))))
        return self.head(x)


def test_linen():
    found = infer(
        lambda width: LinenModel(width).init(jax.random.key(0), jnp.zeros((2, 5, 3)))[
            "params"
        ],
        lambda p, x, width: LinenModel(width).apply({"params": p}, x),
        shape(2, 5, 3),
        {"width": 8},
        {"width": 32},
    )
    attention = {k.partition("/")[2]: v for k, v in axes(found).items() if "Multi" in k}
    assert attention["query/kernel"] == ("hidden", (0,), (1, 2), ())
    assert attention["out/kernel"] == ("hidden", (0, 1), (2,), ())
    assert attention["query/bias"] == ("vector", (), (0, 1), ())
    assert axes(found)["Conv_0/kernel"] == ("hidden", (0, 1), (2,), ())
    assert axes(found)["Conv_1/kernel"] == ("input", (0,), (2,), ())
    assert roles(found)["Dense_0/kernel"] == "input"
    assert roles(found)["Dense_1/kernel"] == "output"
    assert not found.notes


def test_nnx():
    found = infer(
        lambda width: NnxModel(width, nnx.Rngs(0)), lambda m, x: m(x), shape(2, 5, 3)
    )
    assert axes(found)["attention/query/kernel"] == ("hidden", (0,), (1, 2), ())
    assert axes(found)["attention/out/kernel"] == ("hidden", (0, 1), (2,), ())
    assert axes(found)["conv/kernel"] == ("hidden", (0, 1), (2,), ())
    assert roles(found)["norm/scale"] == "vector"
    assert roles(found)["head/kernel"] == "output"


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=[]
)
@dataclasses.dataclass
class Linear:
    """As in Equinox: callable, a pytree, `[out, in]`, one example at a time."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return self.weight @ x + self.bias


def test_modules_that_are_pytrees():
    def init(width):
        sizes = [3, width, width, 2]
        return [Linear(shape(o, i), shape(o)) for i, o in itertools.pairwise(sizes)]

    def apply(layers, x):
        return jax.vmap(
            lambda h: functools.reduce(lambda h, f: jnp.tanh(f(h)), layers, h)
        )(x)

    found = axes(infer(init, apply, IMAGES))
    assert found["0/weight"] == ("input", (1,), (0,), ())
    assert found["1/weight"] == ("hidden", (1,), (0,), ())
    assert found["2/weight"] == ("output", (1,), (0,), ())
    assert found["1/bias"] == ("vector", (), (0,), ())


def test_the_transformer():
    found = infer(
        lambda width, layers: models.Transformer(width, layers, 2, rngs=nnx.Rngs(0)),
        lambda model, tokens: model(tokens),
        TOKENS,
        {"width": 16, "layers": 2},
        {"width": 64, "layers": 8},
    )
    kinds = {"embed/embedding": "embedding", "head/kernel": "output"}
    for path, p in found.items():
        vector = "norm" in path or "bias" in path
        assert p.role == kinds.get(path, "vector" if vector else "hidden"), path
        assert p.depth == (4 if "blocks" in path else 1)
        assert p.growth_in == (4 if p.kind in ("hidden", "output") else 1)
        assert p.growth_out == (1 if p.kind == "output" else 4)


def test_the_convnet():
    found = infer(
        lambda width: models.Convnet(width, rngs=nnx.Rngs(0)),
        lambda model, images: model(images),
        shape(2, 8, 8),
    )
    expected = {"first": "input", "second": "hidden", "head": "output"}
    assert {k: roles(found)[f"{k}/kernel"] for k in expected} == expected
    assert found["second/kernel"].growth_in == found["head/kernel"].growth_in == 4


# Attention


def attention(score, **sizes):
    def init(width):
        return {k: shape(3, width) for k in ("query", "key")}

    def apply(p, x):
        q, k = ((x @ p[n]).reshape(2, 5, 2, -1) for n in ("query", "key"))
        return jax.nn.softmax(score(q, k))

    return infer(init, apply, shape(2, 5, 3), **sizes).notes


BY_ROOT = {
    "after": lambda q, k: jnp.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5,
    "divided": lambda q, k: jnp.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5,
    "before": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", q / jnp.sqrt(q.shape[-1]).astype(q.dtype), k
    ),
    "reciprocal": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", q * jax.lax.rsqrt(float(q.shape[-1])), k
    ),
    "rotated": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", models.rotate(q * q.shape[-1] ** -0.5), models.rotate(k)
    ),
    "half each": lambda q, k: jnp.einsum(
        "bihd,bjhd->bhij", q * q.shape[-1] ** -0.25, k * k.shape[-1] ** -0.25
    ),
    "library": lambda q, k: jax.nn.dot_product_attention(q, k, k),
    "masked": lambda q, k: jnp.where(
        jnp.tri(5) > 0, jnp.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5, -1e9
    ),
}
OTHERWISE = {
    "by the width": lambda q, k: jnp.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1],
    "base root": lambda q, k: (
        jnp.einsum("bihd,bjhd->bhij", q, k) * (4**0.5 / q.shape[-1])
    ),
    "library": lambda q, k: jax.nn.dot_product_attention(
        q, k, k, scale=1 / q.shape[-1]
    ),
}


@pytest.mark.parametrize("name", BY_ROOT)
def test_scores_divided_by_the_root_of_a_width_are_noted(name):
    (note,) = attention(BY_ROOT[name])
    assert "key, query" in note and "4 then 16" in note and "by its root" in note


def test_scores_are_compared_with_delta_where_the_target_is_the_base():
    assert "by its root" in attention(BY_ROOT["after"], target=8, delta=32)[0]


@pytest.mark.parametrize("name", OTHERWISE)
def test_scores_divided_by_the_width_are_not(name):
    assert not attention(OTHERWISE[name])


# Doubt


REFUSED = {
    "multiplied by hand": lambda p, h: (h[..., None] * p["w"]).sum(-2),
    "not used": lambda p, h: h,
    "not followed": lambda p, h: h + jnp.fft.rfft(p["w"]).real.sum(),
    "in two ways": lambda p, h: h @ p["w"] + p["w"][0],
    "in part": lambda p, h: jnp.repeat(h[:, :4] @ p["w"].reshape(4, -1)[:, :4], len(p["w"]) // 4, 1),
    "taken apart": lambda p, h: h + sum(p["w"][i] for i in range(len(p["w"]))),
    "looked up": lambda p, h: p["w"][jnp.argmax(h, -1)],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_doubt_is_an_error_that_a_declaration_removes(name):
    def init(width):
        return {"in": shape(3, width), "w": shape(width, width)}

    def apply(p, x):
        return REFUSED[name](p, x @ p["in"])

    with pytest.raises(ValueError, match=r"leaf w must .* (roles|stacks)=\{'w'"):
        infer(init, apply, IMAGES)
    found = infer(init, apply, IMAGES, roles={"w": "hidden"})
    assert axes(found)["w"] == HIDDEN
    found = infer(init, apply, IMAGES, roles={"w": "hidden"}, inputs={"w": (-1,)})
    assert axes(found)["w"] == ("hidden", (1,), (0,), ())


def test_a_closed_over_example_is_an_error():
    with pytest.raises(
        ValueError, match="leaf w must be used by apply, on the example"
    ):
        infer(
            lambda w: {"w": shape(3, w)}, lambda p, x: jnp.ones((4, 3)) @ p["w"], IMAGES
        )


def test_explain_says_what_decided():
    found = infer(lambda w: {"w": shape(3, w)}, lambda p, x: x @ p["w"], IMAGES)
    said = found.explain("w")
    assert "w is input: dot_general sums over 0" in said and "(x 4)" in said
