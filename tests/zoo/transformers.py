"""Language models and their parts: tables, attention, experts, adapters, layers by every name."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from zoo.form import (
    EMBEDDING,
    EXPERT,
    FIXED,
    FROM_HEADS,
    GAIN,
    HIDDEN,
    INPUT,
    MATRIX,
    OUTPUT,
    READOUT,
    ROUTER,
    TABLE,
    TIED,
    TO_HEADS,
    TRANSPOSED,
    VECTOR,
    Form,
    Read,
    Row,
    from_fixed,
    hidden,
    keys,
    normal,
    tied,
    to_fixed,
)

WORDS, CONTEXT, HEAD = 11, 6, 8  # the vocabulary, the tokens, the size of a head
TOKENS = np.arange(2 * CONTEXT, dtype=np.int32).reshape(2, CONTEXT) % WORDS
INPUTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
WIDTHS = {"base": 16, "target": 64}
DEEPER = {"base": {"n": 16, "layers": 2}, "target": {"n": 64, "layers": 4}}
POSITIONS = Read("vector", (), (1,))  # looked up in order, whatever the example
HIDDEN_IN_LAYERS, VECTOR_IN_LAYERS = hidden(depth=2), from_fixed("vector", depth=2)


def rms_norm(x, gain=1.0):
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * gain


def layer_norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return rms_norm(centred, p["scale"]) + p["bias"]


def mixed(scores, v):
    """Values, `[batch, time, heads, size]`, mixed by scores of what came before."""
    before = jnp.tri(v.shape[1], dtype=bool)
    weights = jax.nn.softmax(jnp.where(before, scores, -1e9))
    return jnp.einsum("bhqk,bkhc->bqhc", weights, v)


def products(q, k):
    return jnp.einsum("bqhc,bkhc->bhqk", q, k)


def attend(q, k, v):
    return mixed(products(q, k) * q.shape[-1] ** -0.5, v)


def heads(k, n):
    """Kernels of attention whose heads grow in number."""
    shapes = {name: (n, n // HEAD, HEAD) for name in "qkv"} | {
        "o": (n // HEAD, HEAD, n)
    }
    return {name: normal(next(k), *s, scale=n**-0.5) for name, s in shapes.items()}


def attention(p, x):
    q, k, v = (jnp.einsum("btn,nhc->bthc", x, p[name]) for name in "qkv")
    return jnp.einsum("bthc,hcn->btn", attend(q, k, v), p["o"])


def sinusoids(positions, n):
    angles = positions[:, None] * 1e4 ** -np.linspace(0, 1, n // 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32)


def rotate(x):
    """Rotary positions: halves of a head, turned by an angle that goes with the time."""
    angles = np.arange(x.shape[1])[:, None] * 1e4 ** -np.linspace(
        0, 1, x.shape[-1] // 2
    )
    sin, cos = (f(angles)[:, None].astype(np.float32) for f in (np.sin, np.cos))
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


# ---------------------------------------------------------------- whole decoders


class NanodoBlock(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x):
        dense = functools.partial(linen.Dense, use_bias=False)
        project = functools.partial(linen.DenseGeneral, use_bias=False)
        h = linen.LayerNorm(use_bias=False)(x)
        split = self.width // HEAD, HEAD
        q, k, v = (project(split, name=s)(h) for s in ("query", "key", "value"))
        x += project(self.width, axis=(-2, -1), name="attn_out_proj")(attend(q, k, v))
        h = dense(4 * self.width)(linen.LayerNorm(use_bias=False)(x))
        return x + dense(self.width)(jax.nn.gelu(h))


class Nanodo(linen.Module):
    width: int
    depth: int

    def setup(self):
        self.embed = linen.Embed(WORDS, self.width)
        self.pos_embed = linen.Embed(CONTEXT, self.width)
        self.blocks = [NanodoBlock(self.width) for _ in range(self.depth)]
        self.out_ln = linen.LayerNorm(use_bias=False)
        self.output_proj = linen.Dense(WORDS, use_bias=False)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.pos_embed(jnp.arange(CONTEXT)[None])
        for block in self.blocks:
            x = block(x)
        return self.output_proj(self.out_ln(x))


def nanodo():
    """A Linen decoder with a list of layers in `setup`, and an output matrix of its own."""

    def init(n, layers):
        return Nanodo(n, layers).init(jax.random.key(0), TOKENS)["params"]

    def apply(p, tokens):
        depth = sum(name.startswith("blocks") for name in p)
        model = Nanodo(p["embed"]["embedding"].shape[1], depth)
        return model.apply({"params": p}, tokens)

    return Form(
        "nanodo",
        init,
        apply,
        TOKENS,
        **DEEPER,
        rows={
            "embed/embedding": EMBEDDING,
            "pos_embed/embedding": VECTOR,
            r"blocks_\d/.*/kernel": HIDDEN_IN_LAYERS,
            r"blocks_\d/LayerNorm_\d/scale": VECTOR_IN_LAYERS,
            "out_ln/scale": VECTOR,
            "output_proj/kernel": OUTPUT,
        },
        reads={
            "embed/embedding": TABLE,
            "pos_embed/embedding": POSITIONS,
            r"blocks_\d/(query|key|value)/kernel": TO_HEADS,
            r"blocks_\d/attn_out_proj/kernel": FROM_HEADS,
            r"blocks_\d/Dense_\d/kernel": MATRIX,
            ".*/scale": GAIN,
            "output_proj/kernel": READOUT,
        },
    )


def gpt2():
    """Tied, with learned positions and one kernel, cut in three, for queries, keys and values."""

    def init(n, layers):
        k, small = keys(), functools.partial(normal, scale=0.02)
        norm = lambda: {"scale": jnp.ones(n), "bias": jnp.zeros(n)}
        dense = lambda i, o: {"kernel": small(next(k), i, o), "bias": jnp.zeros(o)}
        block = lambda: {
            "ln_1": norm(),
            "attn": {"c_attn": dense(n, 3 * n), "c_proj": dense(n, n)},
            "ln_2": norm(),
            "mlp": {"c_fc": dense(n, 4 * n), "c_proj": dense(4 * n, n)},
        }
        return {
            "wte": small(next(k), WORDS, n),
            "wpe": small(next(k), 2 * CONTEXT, n),
            "h": [block() for _ in range(layers)],
            "ln_f": norm(),
        }

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def block(p, x):
        qkv = jnp.split(dense(p["attn"]["c_attn"], layer_norm(x, p["ln_1"])), 3, -1)
        y = attend(*(a.reshape(*x.shape[:2], -1, HEAD) for a in qkv))
        x = x + dense(p["attn"]["c_proj"], y.reshape(x.shape))
        h = jax.nn.gelu(dense(p["mlp"]["c_fc"], layer_norm(x, p["ln_2"])))
        return x + dense(p["mlp"]["c_proj"], h)

    def apply(p, tokens):
        x = p["wte"][tokens] + p["wpe"][jnp.arange(tokens.shape[1])]
        for layer in p["h"]:
            x = block(layer, x)
        return layer_norm(x, p["ln_f"]) @ p["wte"].T

    return Form(
        "gpt2",
        init,
        apply,
        TOKENS,
        **DEEPER,
        rows={
            "wte": tied(),
            "wpe": VECTOR,
            "h/.*/kernel": HIDDEN_IN_LAYERS,
            "h/.*/(bias|scale)": VECTOR_IN_LAYERS,
            "ln_f/.*": VECTOR,
        },
        reads={
            "wte": TIED,
            "wpe": POSITIONS,
            "h/.*/c_attn/kernel": MATRIX._replace(blocks=3),
            "h/.*/(c_proj|c_fc)/kernel": MATRIX,
            ".*/(bias|scale)": GAIN,
        },
        notes=(("wte", "forward"),),
    )


def gemma():
    """Looked up times the root of the width; one key and value head; gates in one kernel."""

    def init(n):
        k, h, f = keys(), n // HEAD, 2 * n
        return {
            "input_embedding": normal(next(k), WORDS, n, scale=0.01),
            "pre_attention_norm": jnp.zeros(n),
            "q_einsum": normal(next(k), h, n, HEAD, scale=n**-0.5),
            "kv_einsum": normal(next(k), 2, 1, n, HEAD, scale=n**-0.5),
            "attn_vec_einsum": normal(next(k), h, HEAD, n, scale=n**-0.5),
            "pre_ffw_norm": jnp.zeros(n),
            "gating_einsum": normal(next(k), 2, n, f, scale=n**-0.5),
            "linear": normal(next(k), f, n, scale=f**-0.5),
            "final_norm": jnp.zeros(n),
        }

    def apply(p, tokens):
        n = p["input_embedding"].shape[1]
        x = p["input_embedding"][tokens] * jnp.sqrt(n).astype(jnp.float32)
        h = rms_norm(x, 1 + p["pre_attention_norm"])
        q = jnp.einsum("btd,ndh->btnh", h, p["q_einsum"])
        k, v = jnp.einsum("bsd,ckdh->cbskh", h, p["kv_einsum"])
        q = (rotate(q) * HEAD**-0.5)[:, :, None]  # queries of the one head of keys
        scores = jnp.einsum("btkgh,bskh->bkgts", q, rotate(k))
        before = jnp.tri(tokens.shape[1], dtype=bool)
        weights = jax.nn.softmax(jnp.where(before, scores, -1e9))
        y = jnp.einsum("bkgts,bskh->btkgh", weights, v)[:, :, 0]
        x = x + jnp.einsum("btnh,nhd->btd", y, p["attn_vec_einsum"])
        h = rms_norm(x, 1 + p["pre_ffw_norm"])
        gate = jnp.einsum("btd,cdf->btcf", h, p["gating_einsum"])
        x = x + jax.nn.gelu(gate[..., 0, :]) * gate[..., 1, :] @ p["linear"]
        logits = rms_norm(x, 1 + p["final_norm"]) @ p["input_embedding"].T
        return 30 * jnp.tanh(logits / 30)

    return Form(
        "gemma",
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={
            "input_embedding": tied(factor_in=2),
            "q_einsum|attn_vec_einsum|gating_einsum|linear": HIDDEN,
            "kv_einsum": OUTPUT,
            ".*_norm": VECTOR,
        },
        reads={
            "input_embedding": TIED,
            "q_einsum": Read("matrix", (1,), (0, 2)),
            "kv_einsum": Read("matrix", (2,), (0, 3), blocks=2),
            "attn_vec_einsum": FROM_HEADS,
            "gating_einsum": Read("matrix", (1,), (0, 2), blocks=2),
            "linear": MATRIX,
            ".*_norm": GAIN,
        },
        notes=(("input_embedding", "forward"), ("kv_einsum", "forward")),
    )


def sinusoidal(name: str, power: float, table: Row, notes=()):
    """Sinusoidal positions; tied logits are divided by a power of the width."""

    def init(n):
        k = keys()
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "ln": {"scale": jnp.ones(n), "bias": jnp.zeros(n)},
            **heads(k, n),
        }

    def apply(p, tokens):
        n = p["embed"].shape[1]
        x = p["embed"][tokens] + sinusoids(np.arange(tokens.shape[1]), n)
        x = layer_norm(x + attention(p, x), p["ln"])
        return x @ p["embed"].T / n**power

    return Form(
        name,
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={"embed": table, "ln/.*": VECTOR, "[qkvo]": HIDDEN},
        reads={"embed": TIED, "ln/.*": GAIN, "[qkv]": TO_HEADS, "o": FROM_HEADS},
        notes=notes,
    )


def llama():
    """Rotary positions, two queries to a key, gates in a matrix of their own."""

    def init(n, layers):
        k, f, h = keys(), 3 * n, n // HEAD
        shapes = {
            "attention_norm": (n,),
            "wq": (n, h, HEAD),
            "wk": (n, h // 2, HEAD),
            "wv": (n, h // 2, HEAD),
            "wo": (h, HEAD, n),
            "ffn_norm": (n,),
            "w1": (n, f),
            "w2": (f, n),
            "w3": (n, f),
        }

        def block():
            return {
                name: normal(next(k), *s, scale=0.02) if s[1:] else jnp.ones(s)
                for name, s in shapes.items()
            }

        return {
            "tok_embeddings": normal(next(k), WORDS, n, scale=0.02),
            "layers": [block() for _ in range(layers)],
            "norm": jnp.ones(n),
            "output": normal(next(k), n, WORDS, scale=0.02),
        }

    def block(p, x):
        h = rms_norm(x, p["attention_norm"])
        q, k, v = (jnp.einsum("btn,nhc->bthc", h, p[s]) for s in ("wq", "wk", "wv"))
        k, v = (jnp.repeat(a, 2, axis=2) for a in (rotate(k), v))
        x = x + jnp.einsum("bthc,hcn->btn", attend(rotate(q), k, v), p["wo"])
        h = rms_norm(x, p["ffn_norm"])
        return x + (jax.nn.silu(h @ p["w1"]) * (h @ p["w3"])) @ p["w2"]

    def apply(p, tokens):
        x = p["tok_embeddings"][tokens]
        for layer in p["layers"]:
            x = block(layer, x)
        return rms_norm(x, p["norm"]) @ p["output"]

    return Form(
        "llama",
        init,
        apply,
        TOKENS,
        **DEEPER,
        rows={
            "tok_embeddings": EMBEDDING,
            r"layers/\d/w.*": HIDDEN_IN_LAYERS,
            r"layers/\d/.*_norm": VECTOR_IN_LAYERS,
            "norm": VECTOR,
            "output": OUTPUT,
        },
        reads={
            "tok_embeddings": TABLE,
            r"layers/\d/w[qkv]": TO_HEADS,
            r"layers/\d/wo": FROM_HEADS,
            r"layers/\d/w[123]": MATRIX,
            "(.*_)?norm": GAIN,
            "output": READOUT,
        },
    )


def palm():
    """One head of keys and values, of fixed size; attention and gates side by side."""

    def init(n):
        k, h = keys(), n // HEAD
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "norm": jnp.ones(n),
            "query": normal(next(k), n, h, HEAD, scale=n**-0.5),
            "key": normal(next(k), n, HEAD, scale=n**-0.5),
            "value": normal(next(k), n, HEAD, scale=n**-0.5),
            "out": normal(next(k), h, HEAD, n, scale=n**-0.5),
            "up": normal(next(k), n, 8 * n, scale=n**-0.5),
            "down": normal(next(k), 4 * n, n, scale=(4 * n) ** -0.5),
            "head": normal(next(k), n, WORDS, scale=n**-0.5),
        }

    def apply(p, tokens):
        x = p["embed"][tokens]
        h = rms_norm(x, p["norm"])
        q = jnp.einsum("btn,nhc->bthc", h, p["query"]) * HEAD**-0.5
        scores = jnp.einsum("bqhc,bkc->bhqk", q, h @ p["key"])
        weights = jax.nn.softmax(jnp.where(jnp.tri(CONTEXT, dtype=bool), scores, -1e9))
        y = jnp.einsum("bhqk,bkc->bqhc", weights, h @ p["value"])
        gate, up = jnp.split(h @ p["up"], 2, axis=-1)
        x = x + jnp.einsum("bthc,hcn->btn", y, p["out"])
        return (x + (jax.nn.silu(gate) * up) @ p["down"]) @ p["head"]

    return Form(
        "palm",
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={
            "embed": EMBEDDING,
            "norm": VECTOR,
            "query|out|up|down": HIDDEN,
            "key|value|head": OUTPUT,
        },
        reads={
            "embed": TABLE,
            "norm": GAIN,
            "query": TO_HEADS,
            "key|value|down": MATRIX,
            "out": FROM_HEADS,
            "up": MATRIX._replace(blocks=2),
            "head": READOUT,
        },
        notes=(("key", "forward"), ("value", "forward")),
    )


# ---------------------------------------------------------------- kinds of attention


def fused_heads():
    """Queries, keys and values of one kernel, `[in, 3, heads, head size]`."""

    def init(n):
        k, h = keys(), n // HEAD
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "qkv": normal(next(k), n, 3, h, HEAD, scale=n**-0.5),
            "qkv_bias": jnp.zeros((3, h, HEAD)),
            "out": normal(next(k), h, HEAD, n, scale=n**-0.5),
            "head": normal(next(k), n, WORDS, scale=n**-0.5),
        }

    def apply(p, tokens):
        x = p["embed"][tokens]
        qkv = jnp.einsum("btn,nshc->btshc", x, p["qkv"]) + p["qkv_bias"]
        y = attend(*(qkv[:, :, i] for i in range(3)))
        return (x + jnp.einsum("bthc,hcn->btn", y, p["out"])) @ p["head"]

    return Form(
        "fused heads",
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={
            "embed": EMBEDDING,
            "qkv|out": HIDDEN,
            "qkv_bias": VECTOR,
            "head": OUTPUT,
        },
        reads={
            "embed": TABLE,
            "qkv": Read("matrix", (0,), (1, 2, 3), blocks=3),
            "qkv_bias": Read("vector", (), (0, 1, 2)),
            "out": FROM_HEADS,
            "head": READOUT,
        },
    )


def wide_heads(name: str, scores, noted: bool):
    """Two heads, whose size grows: `scores` of queries and keys over that size."""

    def init(n):
        k = keys()
        shapes = {name: (n, 2, n // 2) for name in ("query", "key", "value")}
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            **{name: normal(next(k), *s, scale=n**-0.5) for name, s in shapes.items()},
            "out": normal(next(k), 2, n // 2, n, scale=n**-0.5),
            "head": normal(next(k), n, WORDS, scale=n**-0.5),
        }

    def apply(p, tokens):
        x = p["embed"][tokens]
        q, k, v = (
            jnp.einsum("btn,nhc->bthc", x, p[s]) for s in ("query", "key", "value")
        )
        y = jnp.einsum("bthc,hcn->btn", mixed(scores(q, k), v), p["out"])
        return (x + y) @ p["head"]

    return Form(
        name,
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={
            "embed": EMBEDDING,
            "query|key|value|out": HIDDEN,
            "head": OUTPUT,
        },
        reads={
            "embed": TABLE,
            "query|key|value": TO_HEADS,
            "out": FROM_HEADS,
            "head": READOUT,
        },
        notes=(("query|key", "scores"),) if noted else (),
    )


def cosines(q, k):
    """Of lengths one: at most one, however many entries there are."""
    q, k = (a * jax.lax.rsqrt(jnp.sum(a**2, -1, keepdims=True) + 1e-6) for a in (q, k))
    return 10 * products(q, k)


def transformer_xl():
    """Relative positions: a projection of sinusoids, and two learned biases of the queries."""

    def init(n):
        k, small = keys(), functools.partial(normal, scale=0.02)
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            **heads(k, n),
            "r": small(next(k), n, n // HEAD, HEAD),
            "r_w_bias": small(next(k), n // HEAD, HEAD),
            "r_r_bias": small(next(k), n // HEAD, HEAD),
            "head": normal(next(k), n, WORDS, scale=n**-0.5),
        }

    def shifted(scores):
        """From the distance to a key to its place: row i is moved by as many."""
        *batch, queries, places = scores.shape
        padded = jnp.pad(scores, [(0, 0)] * len(batch) + [(0, 0), (1, 0)])
        rows = padded.reshape(*batch, places + 1, queries)[..., 1:, :]
        return rows.reshape(scores.shape)

    def apply(p, tokens):
        x = p["embed"][tokens]
        q, k, v = (jnp.einsum("btn,nhc->bthc", x, p[name]) for name in "qkv")
        distances = jnp.asarray(sinusoids(np.arange(CONTEXT)[::-1], x.shape[-1]))
        r = jnp.einsum("tn,nhc->thc", distances, p["r"])
        content = products(q + p["r_w_bias"], k)
        position = jnp.einsum("bqhc,khc->bhqk", q + p["r_r_bias"], r)
        y = mixed((content + shifted(position)) * HEAD**-0.5, v)
        return (x + jnp.einsum("bthc,hcn->btn", y, p["o"])) @ p["head"]

    return Form(
        "transformer-xl",
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={
            "embed": EMBEDDING,
            "[qkvor]": HIDDEN,
            "r_[wr]_bias": VECTOR,
            "head": OUTPUT,
        },
        reads={
            "embed": TABLE,
            "[qkvr]": TO_HEADS,
            "r_[wr]_bias": Read("vector", (), (0, 1)),
            "o": FROM_HEADS,
            "head": READOUT,
        },
    )


# ---------------------------------------------------------------- tables, adapters, experts


def albert():
    """A table of fixed width with a matrix on either side, and one layer three times."""

    def init(n):
        k, small = keys(), functools.partial(normal, scale=0.02)
        return {
            "word_embeddings": small(next(k), WORDS, 5),
            "mapping_in": {"kernel": small(next(k), 5, n), "bias": jnp.zeros(n)},
            "layer": {
                **heads(k, n),
                "norm": {"scale": jnp.ones(n), "bias": jnp.zeros(n)},
                "up": small(next(k), n, 4 * n),
                "down": small(next(k), 4 * n, n),
            },
            "predictions": {"kernel": small(next(k), n, 5), "bias": jnp.zeros(5)},
            "output_bias": jnp.zeros(WORDS),
        }

    def layer(p, x):
        h = layer_norm(x + attention(p, x), p["norm"])
        return h + jax.nn.gelu(h @ p["up"]) @ p["down"]

    def apply(p, tokens):
        dense = lambda p, x: x @ p["kernel"] + p["bias"]
        x = dense(p["mapping_in"], p["word_embeddings"][tokens])
        for _ in range(3):
            x = layer(p["layer"], x)
        x = jax.nn.gelu(dense(p["predictions"], x))
        return x @ p["word_embeddings"].T + p["output_bias"]

    return Form(
        "albert",
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={
            "word_embeddings": FIXED,
            "mapping_in/kernel": INPUT,
            "layer/([qkvo]|up|down)": HIDDEN,
            "mapping_in/bias|layer/norm/.*": VECTOR,
            "predictions/kernel": OUTPUT,
            "predictions/bias|output_bias": FIXED,
        },
        reads={
            "word_embeddings": TIED,
            "(mapping_in|predictions)/kernel|layer/(up|down)": MATRIX,
            "layer/[qkv]": TO_HEADS,
            "layer/o": FROM_HEADS,
            "layer/norm/.*|.*/bias|output_bias": GAIN,
        },
        notes=(("predictions/kernel", "forward"),),
    )


def lora(name: str, product):
    """A frozen matrix and an adapter of fixed rank, `product(x, a, b)`."""

    def init(n):
        k = keys()
        return {
            "first": normal(next(k), 3, n, scale=3**-0.5),
            "frozen": normal(next(k), n, n, scale=n**-0.5),
            "lora_a": normal(next(k), n, 2, scale=n**-0.5),
            "lora_b": jnp.zeros((2, n)),
            "head": normal(next(k), n, 5, scale=n**-0.5),
        }

    def apply(p, x):
        h = jnp.tanh(x @ p["first"])
        adapted = 8 * product(h, p["lora_a"], p["lora_b"])
        return jnp.tanh(h @ jax.lax.stop_gradient(p["frozen"]) + adapted) @ p["head"]

    return Form(
        name,
        init,
        apply,
        INPUTS,
        **WIDTHS,
        rows={
            "first|lora_b": INPUT,
            "frozen": HIDDEN,
            "lora_a|head": OUTPUT,
        },
        reads={"first|frozen|lora_[ab]": MATRIX, "head": READOUT},
        notes=(("lora_a", "forward"),),
    )


def gates(x, router, experts: int):
    """Weights of experts, `[batch, time, experts]`: two are not zero."""
    weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ router), 2)
    return jnp.einsum("btj,btje->bte", weights, jax.nn.one_hot(chosen, experts))


def stacked_experts():
    """A router, and experts that are one array."""
    experts = 4

    def init(n):
        k = keys()
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "attention": heads(k, n),
            "router": normal(next(k), n, experts, scale=n**-0.5),
            "w_in": normal(next(k), experts, n, 2 * n, scale=n**-0.5),
            "b_in": jnp.zeros((experts, 2 * n)),
            "w_out": normal(next(k), experts, 2 * n, n, scale=(2 * n) ** -0.5),
            "head": normal(next(k), n, WORDS, scale=n**-0.5),
        }

    def apply(p, tokens):
        x = p["embed"][tokens]
        x = x + attention(p["attention"], rms_norm(x))
        h = rms_norm(x)
        weights = gates(h, p["router"], experts)
        sent = jnp.einsum("btn,bte->ebtn", h, (weights > 0).astype(h.dtype))
        made = jnp.einsum("ebtn,enf->ebtf", sent, p["w_in"])
        made = jax.nn.gelu(made + p["b_in"][:, None, None])
        made = jnp.einsum("ebtf,efn->ebtn", made, p["w_out"])
        x = x + jnp.einsum("ebtn,bte->btn", made, weights)
        return rms_norm(x) @ p["head"]

    return Form(
        "stacked experts",
        init,
        apply,
        TOKENS,
        **WIDTHS,
        rows={
            "embed": EMBEDDING,
            "attention/[qkvo]": HIDDEN,
            "router": ROUTER,
            "w_in|w_out": EXPERT,
            "b_in": VECTOR,
            "head": OUTPUT,
        },
        reads={
            "embed": TABLE,
            "attention/[qkv]": TO_HEADS,
            "attention/o": FROM_HEADS,
            "router": Read("router", (0,), (1,)),
            "w_in|w_out": Read("matrix", (1,), (2,), stacked=(0,)),
            "b_in": Read("vector", (), (1,), stacked=(0,)),
            "head": READOUT,
        },
        notes=(("router", "forward"),),
    )


def listed_experts():
    """Experts in a list, that grows while the two layers stay two: they are no depth."""

    def init(n, experts):
        k = keys()

        def expert():
            return {
                "up": normal(next(k), n, 2 * n, scale=n**-0.5),
                "down": normal(next(k), 2 * n, n, scale=(2 * n) ** -0.5),
            }

        def layer():
            router = normal(next(k), n, experts, scale=n**-0.5)
            return {"router": router, "experts": [expert() for _ in range(experts)]}

        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "layers": [layer() for _ in range(2)],
            "head": normal(next(k), n, WORDS, scale=n**-0.5),
        }

    def layer(p, x):
        h = rms_norm(x)
        weights = gates(h, p["router"], len(p["experts"]))
        for i, expert in enumerate(p["experts"]):
            made = jax.nn.gelu(h @ expert["up"]) @ expert["down"]
            x = x + weights[..., i : i + 1] * made
        return x

    def apply(p, tokens):
        x = p["embed"][tokens]
        for each in p["layers"]:
            x = layer(each, x)
        return rms_norm(x) @ p["head"]

    return Form(
        "listed experts",
        init,
        apply,
        TOKENS,
        base={"n": 16, "experts": 4},
        target={"n": 64, "experts": 8},
        rows={
            "embed": EMBEDDING,
            "layers/./router": to_fixed(o=2, role="router"),
            "layers/./experts/.*": HIDDEN,
            "head": OUTPUT,
        },
        reads={
            "embed": TABLE,
            "layers/./router": Read("router", (0,), (1,)),
            "layers/./experts/.*": MATRIX,
            "head": READOUT,
        },
        notes=(("layers/./router", "forward"),),
        roles={r"layers/\d/router": "router"},  # a hidden matrix may be ranked too
    )


def winners():
    """The largest activations of a hidden layer alone go on: ranked, and no router."""

    def init(n):
        k = keys()
        return {
            "first": normal(next(k), 3, n, scale=3**-0.5),
            "second": normal(next(k), n, 2 * n, scale=n**-0.5),
            "head": normal(next(k), 2 * n, 5, scale=(2 * n) ** -0.5),
        }

    def apply(p, x):
        h = jax.nn.relu(x @ p["first"]) @ p["second"]
        least = jax.lax.top_k(h, 8)[0][:, -1:]
        return jnp.where(h >= least, h, 0.0) @ p["head"]

    return Form(
        "winners",
        init,
        apply,
        INPUTS,
        **WIDTHS,
        rows={"first": INPUT, "second": HIDDEN, "head": OUTPUT},
        reads={"first|second": MATRIX, "head": READOUT},
        notes=(("second", "ranked"),),
    )


# ---------------------------------------------------------------- layers, by every name


class ScannedBlock(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x, _):
        mask = linen.make_causal_mask(TOKENS)
        h = linen.LayerNorm()(x)
        attend = linen.MultiHeadDotProductAttention(
            self.width // HEAD, name="attention"
        )
        x = x + attend(h, mask=mask)
        h = linen.Dense(4 * self.width, name="up")(linen.LayerNorm()(x))
        return x + linen.Dense(self.width, name="down")(jax.nn.gelu(h)), None


class Scanned(linen.Module):
    width: int
    depth: int
    axis: int

    @linen.compact
    def __call__(self, tokens):
        scan = linen.scan(
            linen.remat(ScannedBlock, prevent_cse=False),
            variable_axes={"params": self.axis},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = scan(self.width, name="layers")(
            linen.Embed(WORDS, self.width, name="embed")(tokens), None
        )
        return linen.Dense(WORDS, name="head")(linen.LayerNorm(name="norm")(x))


def scanned(name: str, axis: int):
    """Layers that are one array, along `axis`, scanned and computed again in the gradient."""

    def init(n, layers):
        return Scanned(n, layers, axis).init(jax.random.key(0), TOKENS)["params"]

    def apply(p, tokens):
        depth = p["layers"]["down"]["bias"].shape[axis]
        model = Scanned(p["norm"]["scale"].shape[0], depth, axis)
        return model.apply({"params": p}, tokens)

    def stack(read):
        beside = lambda axes: tuple(i + (i >= axis) for i in axes)
        inputs, outputs = beside(read.inputs), beside(read.outputs)
        return Read(read.kind, inputs, outputs, stacked=(axis,))

    return Form(
        name,
        init,
        apply,
        TOKENS,
        **DEEPER,
        rows={
            "embed/embedding": EMBEDDING,
            "layers/.*/kernel": HIDDEN_IN_LAYERS,
            "layers/.*/(bias|scale)": VECTOR_IN_LAYERS,
            "norm/.*": VECTOR,
            "head/kernel": OUTPUT,
            "head/bias": FIXED,
        },
        reads={
            "embed/embedding": TABLE,
            "layers/attention/(query|key|value)/kernel": stack(TO_HEADS),
            "layers/attention/(query|key|value)/bias": stack(
                Read("vector", (), (0, 1))
            ),
            "layers/attention/out/kernel": stack(FROM_HEADS),
            "layers/(up|down)/kernel": stack(MATRIX),
            "layers/(attention/out|up|down|LayerNorm_.)/(bias|scale)": stack(GAIN),
            "norm/.*|head/bias": GAIN,
            "head/kernel": READOUT,
        },
    )


class NnxBlock(nnx.Module):
    def __init__(self, n, rngs):
        self.first_norm = nnx.RMSNorm(n, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(n // HEAD, n, rngs=rngs, decode=False)
        self.second_norm = nnx.RMSNorm(n, rngs=rngs)
        self.up = nnx.Linear(n, 4 * n, rngs=rngs)
        self.down = nnx.Linear(4 * n, n, use_bias=False, rngs=rngs)

    def __call__(self, x):
        mask = nnx.make_causal_mask(TOKENS)
        x = x + self.attention(self.first_norm(x), mask=mask)
        return x + self.down(jax.nn.gelu(self.up(self.second_norm(x))))


class NnxDecoder(nnx.Module):
    def __init__(self, n, layers, rngs):
        self.embed = nnx.Embed(WORDS, n, rngs=rngs)
        self.layers = nnx.List([NnxBlock(n, rngs) for _ in range(layers)])
        self.norm = nnx.RMSNorm(n, rngs=rngs)
        self.head = nnx.Linear(n, WORDS, use_bias=False, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def nnx_decoder():
    """An NNX module, which is its own parameters."""
    return Form(
        "nnx decoder",
        lambda n, layers: NnxDecoder(n, layers, nnx.Rngs(0)),
        lambda model, tokens: model(tokens),
        TOKENS,
        **DEEPER,
        rows={
            "embed/embedding": EMBEDDING,
            "layers/.*/kernel": HIDDEN_IN_LAYERS,
            "layers/.*/(bias|scale)": VECTOR_IN_LAYERS,
            "norm/scale": VECTOR,
            "head/kernel": OUTPUT,
        },
        reads={
            "embed/embedding": TABLE,
            "layers/./attention/(query|key|value)/kernel": TO_HEADS,
            "layers/./attention/(query|key|value)/bias": Read("vector", (), (0, 1)),
            "layers/./attention/out/kernel": FROM_HEADS,
            "layers/./(up|down)/kernel": MATRIX,
            "layers/./(attention/out/bias|up/bias|.*_norm/scale)|norm/scale": GAIN,
            "head/kernel": READOUT,
        },
    )


def numbered(name: str, i: int) -> str:
    """As Haiku names modules: the first has no number."""
    return f"{name}_{i}" if i else name


def haiku_blocks():
    """Residual layers in flat dicts, the first of which has no number."""

    def init(n, layers):
        k = keys()
        named = {
            numbered("net/linear", i): {
                "w": normal(next(k), n, n, scale=n**-0.5),
                "b": jnp.zeros(n),
            }
            for i in range(layers)
        }
        norms = {
            numbered("net/layer_norm", i): {"scale": jnp.ones(n), "bias": jnp.zeros(n)}
            for i in range(layers)
        }
        return {
            "net/~/embed": {"embeddings": normal(next(k), WORDS, n, scale=0.02)},
            **named,
            **norms,
            "net/logits": {"w": normal(next(k), n, WORDS, scale=n**-0.5)},
        }

    def apply(p, tokens):
        x = p["net/~/embed"]["embeddings"][tokens]
        for i in range(sum(name.startswith("net/linear") for name in p)):
            linear = p[numbered("net/linear", i)]
            h = layer_norm(x, p[numbered("net/layer_norm", i)])
            x = x + jax.nn.relu(h @ linear["w"] + linear["b"])
        return x @ p["net/logits"]["w"]

    return Form(
        "haiku blocks",
        init,
        apply,
        TOKENS,
        **DEEPER,
        rows={
            "net/~/embed/embeddings": EMBEDDING,
            r"net/linear(_\d)?/w": HIDDEN_IN_LAYERS,
            r"net/(linear|layer_norm)(_\d)?/(b|bias|scale)": VECTOR_IN_LAYERS,
            "net/logits/w": OUTPUT,
        },
        reads={
            "net/~/embed/embeddings": TABLE,
            r"net/linear(_\d)?/w": MATRIX,
            ".*/(b|bias|scale)": GAIN,
            "net/logits/w": READOUT,
        },
    )


def haiku_mlp():
    """The number of the output layer grows with the layers before it."""

    def init(n, layers):
        k, sizes = keys(), (3, *(n for _ in range(layers + 1)), 5)
        return {
            numbered("linear", j): {
                "w": normal(next(k), i, o, scale=i**-0.5),
                "b": jnp.zeros(o),
            }
            for j, (i, o) in enumerate(itertools.pairwise(sizes))
        }

    def apply(p, x):
        for i in range(len(p)):
            layer = p[numbered("linear", i)]
            x = (jax.nn.relu(x) if i else x) @ layer["w"] + layer["b"]
        return x

    return Form(
        "haiku mlp",
        init,
        apply,
        INPUTS,
        **DEEPER,
        rows={
            "linear/w": INPUT,
            "linear/b": VECTOR,
            "linear_[1234]/w": HIDDEN_IN_LAYERS,
            "linear_[1234]/b": VECTOR_IN_LAYERS,
            "linear_5/w": OUTPUT,
            "linear_5/b": FIXED,
        },
        reads={
            "linear(_[1234])?/w": MATRIX,
            "linear_5/w": READOUT,
            r"linear(_\d)?/b": GAIN,
        },
    )


def equinox_mlp():
    """A whole `eqx.nn.MLP`, whose activation is a leaf; the output layer is the last number."""

    def init(n, layers):
        return eqx.nn.MLP(3, 5, n, layers + 1, key=jax.random.key(0))

    return Form(
        "equinox mlp",
        init,
        lambda model, x: jax.vmap(model)(x),
        INPUTS,
        **DEEPER,
        rows={
            "layers/0/weight": INPUT,
            "layers/0/bias": VECTOR,
            "layers/[1234]/weight": HIDDEN_IN_LAYERS,
            "layers/[1234]/bias": VECTOR_IN_LAYERS,
            "layers/5/weight": OUTPUT,
            "layers/5/bias": FIXED,
        },
        reads={
            "layers/[01234]/weight": TRANSPOSED,
            "layers/5/weight": Read("readout", (1,), (0,)),
            "layers/./bias": GAIN,
        },
    )


class EquinoxDecoder(eqx.Module):
    embed: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    head: eqx.nn.Linear

    def __init__(self, n):
        k = keys()
        self.embed = eqx.nn.Embedding(WORDS, n, key=next(k))
        self.norm = eqx.nn.LayerNorm(n)
        self.attention = eqx.nn.MultiheadAttention(n // HEAD, n, key=next(k))
        self.head = eqx.nn.Linear(n, WORDS, key=next(k))

    def __call__(self, tokens):
        x = jax.vmap(self.embed)(tokens)
        h = jax.vmap(self.norm)(x)
        x = x + self.attention(h, h, h, mask=np.tri(len(tokens), dtype=bool))
        return jax.vmap(self.head)(x)


def equinox_decoder():
    """A whole module: `[out, in]`, and numbers and functions among its leaves."""
    return Form(
        "equinox decoder",
        EquinoxDecoder,
        lambda model, tokens: jax.vmap(model)(tokens),
        TOKENS,
        **WIDTHS,
        rows={
            "embed/weight": EMBEDDING,
            "norm/.*": VECTOR,
            "attention/.*_proj/weight": HIDDEN,
            "head/weight": OUTPUT,
            "head/bias": FIXED,
        },
        reads={
            "embed/weight": TABLE,
            "norm/.*|head/bias": GAIN,
            "attention/.*_proj/weight": TRANSPOSED,
            "head/weight": Read("readout", (1,), (0,)),
        },
    )


# ---------------------------------------------------------------- factors in the model


def ntk():
    """Entries of size one, and products over the root of the fan-in."""

    def init(n):
        k, one = keys(), functools.partial(normal, scale=1.0)
        return {
            "first": {"w": one(next(k), 3, n), "b": one(next(k), n)},
            "hidden": [
                {"w": one(next(k), n, n), "b": one(next(k), n)} for _ in range(2)
            ],
            "last": {"w": one(next(k), n, 5), "b": one(next(k), 5)},
        }

    def dense(p, x):
        return x @ p["w"] / x.shape[-1] ** 0.5 + 0.1 * p["b"]

    def apply(p, x):
        x = jax.nn.relu(dense(p["first"], x))
        for layer in p["hidden"]:
            x = jax.nn.relu(dense(layer, x))
        return dense(p["last"], x)

    return Form(
        "ntk",
        init,
        apply,
        INPUTS,
        **WIDTHS,
        rows={
            "first/w": INPUT,
            "hidden/./w": hidden(factor=1 / 2),
            "last/w": to_fixed(factor=1 / 2),
            "first/b|hidden/./b": VECTOR,
            "last/b": FIXED,
        },
        reads={
            "first/w|hidden/./w": MATRIX,
            "last/w": READOUT,
            ".*/b": GAIN,
        },
    )


def equalized():
    """Equalized learning rates: weights times the root of 2 / fan-in, before they are used."""

    def init(n):
        k, one = keys(), functools.partial(normal, scale=1.0)
        return {
            "from_rgb": {"weight": one(next(k), 3, 3, 3, n), "bias": jnp.zeros(n)},
            "conv": {"weight": one(next(k), 3, 3, n, n), "bias": jnp.zeros(n)},
            "dense": {"weight": one(next(k), 16 * n, n), "bias": jnp.zeros(n)},
            "out": {"weight": one(next(k), n, 1), "bias": jnp.zeros(1)},
        }

    def weight(p):
        fan_in = p["weight"].size // p["weight"].shape[-1]
        return p["weight"] * (2 / fan_in) ** 0.5

    def conv(p, x):
        dims = "NHWC", "HWIO", "NHWC"
        x = jax.lax.conv_general_dilated(
            x, weight(p), (1, 1), "SAME", dimension_numbers=dims
        )
        return jax.nn.leaky_relu(x + p["bias"], 0.2)

    def dense(p, x):
        return x @ weight(p) + p["bias"]

    def apply(p, x):
        x = conv(p["conv"], conv(p["from_rgb"], x))
        h = jax.nn.leaky_relu(dense(p["dense"], x.reshape(len(x), -1)), 0.2)
        return dense(p["out"], h)

    convolution = Read("convolution", (0, 1, 2), (3,))
    return Form(
        "equalized",
        init,
        apply,
        np.linspace(-1, 1, 96, dtype=np.float32).reshape(2, 4, 4, 3),
        **WIDTHS,
        rows={
            "from_rgb/weight": INPUT,
            "(conv|dense)/weight": hidden(factor=1 / 2),
            "out/weight": to_fixed(factor=1 / 2),
            "(from_rgb|conv|dense)/bias": VECTOR,
            "out/bias": FIXED,
        },
        reads={
            "(from_rgb|conv)/weight": convolution,
            "dense/weight": MATRIX,
            "out/weight": Read("readout", (0,)),
            "(from_rgb|conv|dense)/bias": GAIN,
            "out/bias": Read("vector"),
        },
    )


FORMS = (
    nanodo(),
    gpt2(),
    gemma(),
    sinusoidal("lm1b", 0.5, tied(factor_out=1 / 2), (("embed", "forward"),)),
    sinusoidal("tied over the width", 1.0, tied(factor_out=1 / 4)),
    llama(),
    palm(),
    fused_heads(),
    wide_heads("scores unscaled", products, True),
    wide_heads(
        "scores over the root", lambda q, k: products(q, k) / q.shape[-1] ** 0.5, True
    ),
    wide_heads(
        "scores over the size", lambda q, k: products(q, k) / q.shape[-1], False
    ),
    wide_heads("cosines", cosines, False),
    transformer_xl(),
    albert(),
    lora("lora", lambda x, a, b: x @ a @ b),
    lora("lora, merged", lambda x, a, b: x @ (a @ b)),
    stacked_experts(),
    listed_experts(),
    winners(),
    scanned("scanned", 0),
    scanned("scanned along axis 1", 1),
    nnx_decoder(),
    haiku_blocks(),
    haiku_mlp(),
    equinox_mlp(),
    equinox_decoder(),
    ntk(),
    equalized(),
)
