"""The role of every parameter of whole models, in Linen, NNX and plain pytrees."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
from flax import linen, nnx
from inferred import IMAGES, TOKENS, axes, infer, roles, shape

from gradkit._lab import models


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
