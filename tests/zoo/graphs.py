"""Graphs of other kinds: message passing, two towers, products of activations, plain networks."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import gelu, relu

from zoo.form import (
    EMBEDDING,
    FIXED,
    GAIN,
    HIDDEN,
    INPUT,
    MATRIX,
    OUTPUT,
    READOUT,
    TABLE,
    TRANSPOSED,
    VECTOR,
    Form,
    Read,
    Row,
    from_fixed,
    hidden,
    keys,
    matrix,
    normal,
    to_fixed,
)

WORDS = 11
TOKENS = np.arange(6, dtype=np.int32) * 2 % WORDS
BASE, TARGET = {"n": 16, "layers": 2}, {"n": 64, "layers": 4}


def waves(*shape):
    """An example with no entry twice."""
    return np.sin(np.arange(math.prod(shape), dtype=np.float32)).reshape(shape)


BATCH = waves(4, 3)


def dense(key, i, o):
    """The parameters of an affine map."""
    return {"w": matrix(key, i, o), "b": jnp.zeros(o)}


def affine(p, x):
    """The map itself."""
    return x @ p["w"] + p["b"]


def message_passing() -> Form:
    """Edges see both their nodes, nodes the sum of their edges."""

    def init(n, layers):
        k = keys()
        return {
            "nodes": dense(next(k), 5, n),
            "edges": dense(next(k), 3, n),
            "layers": [
                {"edge": dense(next(k), 3 * n, n), "node": dense(next(k), 2 * n, n)}
                for _ in range(layers)
            ],
            "decoder": dense(next(k), n, 2),
        }

    def apply(p, graph):
        v, e = affine(p["nodes"], graph["nodes"]), affine(p["edges"], graph["edges"])
        source, sink = graph["senders"], graph["receivers"]
        for layer in p["layers"]:
            ends = jnp.concatenate([e, v[source], v[sink]], -1)
            e = e + relu(affine(layer["edge"], ends))
            received = jax.ops.segment_sum(e, sink, num_segments=len(v))
            v = v + relu(affine(layer["node"], jnp.concatenate([v, received], -1)))
        return affine(p["decoder"], v)

    return Form(
        "message passing",
        init,
        apply,
        {
            "nodes": waves(6, 5),
            "edges": waves(8, 3),
            "senders": np.array([0, 1, 2, 3, 4, 5, 0, 2]),
            "receivers": np.array([1, 2, 3, 4, 5, 0, 3, 5]),
        },
        base=BASE,
        target=TARGET,
        rows={
            "(nodes|edges)/w": INPUT,
            "(nodes|edges)/b": VECTOR,
            r"layers/\d/(edge|node)/w": hidden(depth=2),
            r"layers/\d/(edge|node)/b": from_fixed("vector", depth=2),
            "decoder/w": OUTPUT,
            "decoder/b": FIXED,
        },
        reads={
            "(nodes|edges|layers/.*)/w": MATRIX,
            ".*/b": GAIN,
            "decoder/w": READOUT,
        },
    )


def hypernetwork() -> Form:
    """One network makes the matrices of another: what they meet data in are products of activations."""

    def init(n):
        k = keys()
        return {
            "task": matrix(next(k), 4, n),
            "first": matrix(next(k), n, 3 * n),
            "last": matrix(next(k), n, n),
        }

    def apply(p, example):
        z = jnp.tanh(example["task"] @ p["task"])
        first, last = (z @ p["first"]).reshape(3, -1), z @ p["last"]
        return jnp.tanh(example["x"] @ first) @ last

    return Form(
        "hypernetwork",
        init,
        apply,
        {"task": waves(4), "x": BATCH},
        base=16,
        target=64,
        rows={"task": INPUT, "first|last": HIDDEN},
        reads={"task|first|last": MATRIX},
        notes=(("first|last", "scores"),),
    )


def towers(name, meet, notes=()) -> Form:
    """An image and a text, each made one vector; `meet` makes the logits of all pairs."""

    def init(n):
        k = keys()
        return {
            "image": {
                "patch": matrix(next(k), 3, n),
                "mlp": matrix(next(k), n, n),
                "proj": matrix(next(k), n, n // 2),
            },
            "text": {
                "embed": normal(next(k), WORDS, n, scale=0.02),
                "mlp": matrix(next(k), n, n),
                "proj": matrix(next(k), n, n // 2),
            },
            "logit_scale": jnp.log(1 / 0.07),
        }

    def apply(p, example):
        image, text, tokens = p["image"], p["text"], example["tokens"]
        h = example["patches"] @ image["patch"]
        h = h + gelu(h @ image["mlp"])
        a = h.mean(1) @ image["proj"]
        h = text["embed"][tokens]
        h = h + gelu(h @ text["mlp"])
        last = tokens.argmax(-1)  # the end of the text has the highest number
        b = h[jnp.arange(len(h)), last] @ text["proj"]
        return jnp.exp(p["logit_scale"]) * meet(a, b)

    return Form(
        name,
        init,
        apply,
        {
            "patches": waves(4, 5, 3),
            "tokens": np.arange(24, dtype=np.int32).reshape(4, 6) * 5 % WORDS,
        },
        base=16,
        target=64,
        rows={
            "image/patch": INPUT,
            "text/embed": EMBEDDING,
            ".*/(mlp|proj)": HIDDEN,
            "logit_scale": FIXED,
        },
        reads={
            "image/patch": MATRIX,
            "text/embed": TABLE,
            ".*/(mlp|proj)": MATRIX,
            "logit_scale": Read("vector"),
        },
        notes=notes,
    )


def towers_of_cosines() -> Form:
    """As CLIP: the embeddings are normalized, so that no power of the width is missing."""
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return towers("towers of cosines", lambda a, b: unit(a) @ unit(b).T)


def towers_of_products() -> Form:
    """As retrieval by inner product, of embeddings whose length grows with the width."""
    notes = ((".*/proj", "scores"),)
    return towers("towers of products", lambda a, b: a @ b.T, notes)


def biaffine() -> Form:
    """Scores of a dependency parser: what U makes of one word meets another word over a width."""

    def init(n):
        k = keys()
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "dependent": dense(next(k), n, n),
            "head": dense(next(k), n, n),
            "U": normal(next(k), n, 5, n, scale=n**-0.5),
        }

    def apply(p, tokens):
        h = p["embed"][tokens]
        x, y = relu(affine(p["dependent"], h)), relu(affine(p["head"], h))
        return jnp.einsum("soj,tj->sto", jnp.einsum("si,ioj->soj", x, p["U"]), y)

    return Form(
        "biaffine",
        init,
        apply,
        TOKENS,
        base=16,
        target=64,
        rows={
            "embed": EMBEDDING,
            "(dependent|head)/w": HIDDEN,
            "(dependent|head)/b": VECTOR,
            "U": HIDDEN,
        },
        reads={
            "embed": TABLE,
            "(dependent|head)/w": MATRIX,
            "(dependent|head)/b": GAIN,
            "U": Read("matrix", (0,), (1, 2)),
        },
        notes=(("U|head/w", "scores"),),
    )


def autoencoder() -> Form:
    """Through a code of fixed size, which an output matrix inside the model makes."""

    def init(n):
        k = keys()
        return {
            "in": dense(next(k), 10, n),
            "down": dense(next(k), n, 4),
            "up": dense(next(k), 4, n),
            "out": dense(next(k), n, 10),
        }

    def apply(p, x):
        code = affine(p["down"], relu(affine(p["in"], x)))
        return affine(p["out"], relu(affine(p["up"], code)))

    return Form(
        "autoencoder",
        init,
        apply,
        waves(4, 10),
        base=16,
        target=64,
        rows={
            "(in|up)/w": INPUT,
            "(in|up)/b": VECTOR,
            "(down|out)/w": OUTPUT,
            "(down|out)/b": FIXED,
        },
        reads={"(in|down|up)/w": MATRIX, "out/w": READOUT, ".*/b": GAIN},
        notes=(("down/w", "forward"),),
    )


def readout_as_sum() -> Form:
    """The last product is written entry by entry, and then summed."""

    def init(n):
        k = keys()
        return {
            "in": matrix(next(k), 3, n),
            "w": matrix(next(k), n, n),
            "v": normal(next(k), n, scale=n**-0.5),
        }

    def apply(p, x):
        h = jnp.tanh(jnp.tanh(x @ p["in"]) @ p["w"])
        return jnp.sum(h * p["v"], -1)

    return Form(
        "readout as sum",
        init,
        apply,
        BATCH,
        base=16,
        target=64,
        rows={"in": INPUT, "w": HIDDEN, "v": OUTPUT},
        reads={"in|w": MATRIX, "v": Read("readout", (0,))},
    )


def residual_ntk() -> Form:
    """Weights of variance one: the model itself divides every product by the root of its fan-in."""

    def init(n, layers):
        k = keys()
        draw = functools.partial(normal, scale=1.0)
        return {
            "in": draw(next(k), 3, n),
            "layers": [draw(next(k), n, n) for _ in range(layers)],
            "out": draw(next(k), n, 2),
        }

    def product(x, w):
        return x @ w / w.shape[0] ** 0.5

    def apply(p, x):
        h = product(x, p["in"])
        for w in p["layers"]:
            h = h + jnp.tanh(product(h, w))
        return product(h, p["out"])

    return Form(
        "residual ntk",
        init,
        apply,
        BATCH,
        base=BASE,
        target=TARGET,
        rows={
            "in": INPUT,
            r"layers/\d": hidden(depth=2, factor=1 / 2),
            "out": to_fixed(factor=1 / 2),
        },
        reads={"in": MATRIX, r"layers/\d": MATRIX, "out": READOUT},
    )


class Mlp(eqx.Module):
    """Linear layers, `[out, in]`, of one example at a time."""

    layers: list[eqx.nn.Linear]

    def __init__(self, n, key):
        """Draw them as Equinox does."""
        pairs = zip(itertools.pairwise([3, n, n, 2]), jax.random.split(key, 3))
        self.layers = [eqx.nn.Linear(i, o, key=key) for (i, o), key in pairs]

    def __call__(self, x):
        """With a rectifier between any two."""
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)


def equinox_linear() -> Form:
    """A module that is its own parameters."""
    return Form(
        "equinox linear",
        lambda n: Mlp(n, next(keys())),
        lambda model, x: jax.vmap(model)(x),
        BATCH,
        base=16,
        target=64,
        rows={
            "layers/0/weight": INPUT,
            "layers/1/weight": HIDDEN,
            "layers/[01]/bias": VECTOR,
            "layers/2/weight": OUTPUT,
            "layers/2/bias": FIXED,
        },
        reads={
            "layers/[01]/weight": TRANSPOSED,
            "layers/2/weight": Read("readout", (1,), (0,)),
            "layers/./bias": GAIN,
        },
    )


def nested_dicts() -> Form:
    """Layers within layers, as penzai and Haiku name them: both numbers are of one depth."""

    def init(n, layers):
        k = keys()
        block = lambda: {
            f"Affine_{i}": {
                "Linear": {"weights": matrix(next(k), n, n)},
                "AddBias": {"bias": jnp.zeros(n)},
            }
            for i in range(2)
        }
        return {
            "embedder": {"Affine": {"Linear": {"weights": matrix(next(k), 3, n)}}},
            "body": {f"Residual_{i}": {"mlp": block()} for i in range(layers)},
            "unembedder": {"Affine": {"Linear": {"weights": matrix(next(k), n, 2)}}},
        }

    def layer(p, x):
        return x @ p["Linear"]["weights"] + p["AddBias"]["bias"]

    def apply(p, x):
        h = x @ p["embedder"]["Affine"]["Linear"]["weights"]
        for residual in p["body"].values():
            mlp = residual["mlp"]
            h = h + layer(mlp["Affine_1"], gelu(layer(mlp["Affine_0"], h)))
        return h @ p["unembedder"]["Affine"]["Linear"]["weights"]

    return Form(
        "nested dicts",
        init,
        apply,
        BATCH,
        base=BASE,
        target=TARGET,
        rows={
            "embedder/.*": INPUT,
            "body/.*/weights": hidden(depth=2),
            "body/.*/bias": from_fixed("vector", depth=2),
            "unembedder/.*": OUTPUT,
        },
        reads={
            "(embedder|body)/.*/weights": MATRIX,
            "body/.*/bias": GAIN,
            "unembedder/.*": READOUT,
        },
    )


def in_series(name, act, names, base, target) -> Form:
    """A matrix in, some of one width, a matrix out; `names` are those of some, of their sizes."""

    def init(n, **sizes):
        k = keys()
        return {
            "in": matrix(next(k), 3, n),
            **{name: matrix(next(k), n, n) for name in names(**sizes)},
            "out": matrix(next(k), n, 2),
        }

    def apply(p, x):
        inner = sorted(p.keys() - {"in", "out"})
        h = x @ p["in"]
        for name in inner:
            h = act(h @ p[name])
        return h @ p["out"]

    return Form(
        name,
        init,
        apply,
        BATCH,
        base,
        target,
        rows={"in": INPUT, r"layers_\d": hidden(depth=2), "out": OUTPUT},
        reads={"in": MATRIX, r"layers_\d": MATRIX, "out": READOUT},
    )


def deep_linear() -> Form:
    """Nothing but products."""
    return in_series(
        "deep linear",
        act=lambda h: h,
        names=lambda layers: [f"layers_{i}" for i in range(layers)],
        base=BASE,
        target=TARGET,
    )


def shifted_numbers() -> Form:
    """The first layer of the base has a number that the target does not have."""
    return in_series(
        "shifted numbers",
        act=relu,
        names=lambda first, last: [f"layers_{i}" for i in range(first, last)],
        base={"n": 16, "first": 0, "last": 2},
        target={"n": 64, "first": 1, "last": 5},
    )


def with_positions(name, target, **rows: Row) -> Form:
    """A learned table of positions, of which the first are added; the context may grow alone."""

    def init(n, T):
        k = keys()
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "positions": normal(next(k), T, n, scale=0.02),
            "w": matrix(next(k), n, n),
            "out": matrix(next(k), n, WORDS),
        }

    def apply(p, tokens):
        h = p["embed"][tokens] + p["positions"][: len(tokens)]
        return relu(h @ p["w"]) @ p["out"]

    return Form(
        name,
        init,
        apply,
        TOKENS,
        {"n": 16, "T": 8},
        target,
        {"n": 32, "T": 16},
        rows=rows,
        reads={
            "embed": TABLE,
            "positions": Read("vector", (), (1,)),
            "w": MATRIX,
            "out": READOUT,
        },
    )


def longer_context() -> Form:
    """Only the context grows, which is no width: nothing is to be changed."""
    return with_positions(
        "longer context",
        {"n": 16, "T": 32},
        embed=from_fixed("embedding", o=1),
        positions=from_fixed("vector", o=1),
        w=hidden(1, 1),
        out=to_fixed(1),
    )


def wider_and_longer_context() -> Form:
    """Both grow, and only the width counts."""
    return with_positions(
        "wider and longer context",
        {"n": 64, "T": 32},
        embed=EMBEDDING,
        positions=VECTOR,
        w=HIDDEN,
        out=OUTPUT,
    )


FORMS = (
    message_passing(),
    hypernetwork(),
    towers_of_cosines(),
    towers_of_products(),
    biaffine(),
    autoencoder(),
    readout_as_sum(),
    residual_ntk(),
    equinox_linear(),
    nested_dicts(),
    deep_linear(),
    shifted_numbers(),
    longer_context(),
    wider_and_longer_context(),
)
