"""One network in many layouts is read as the same matrices, and takes the same steps."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import gradkit as gk
from gradkit import testing

WIDTH, HEADS, SIZE, VOCABULARY, LAYERS = 8, 2, 4, 11, 2
TOKENS = jnp.arange(6)[None] % VOCABULARY
LEAVES = {
    "q": (WIDTH, WIDTH),
    "k": (WIDTH, WIDTH),
    "v": (WIDTH, WIDTH),
    "o": (WIDTH, WIDTH),
}
MLP = dict.fromkeys(
    ("up", "gate", "down"), (WIDTH, WIDTH)
)  # of full rank, as SOAP wants it


@pytest.fixture(autouse=True)
def ranks_may_be_promoted():
    """As in the frameworks that models are written in."""
    with jax.numpy_rank_promotion("allow"):
        yield


def parameters(key):
    """By name, each `[in, out]`, with a first axis of layers."""
    sizes = {**LEAVES, **MLP, "gain": (WIDTH,), "bias": (WIDTH,)}
    found = {k: (LAYERS, *s) for k, s in sizes.items()}
    found |= {"table": (VOCABULARY, WIDTH), "head": (WIDTH, VOCABULARY)}
    keys = jax.random.split(key, len(found))
    return {k: jax.random.normal(key, found[k]) for k, key in zip(found, keys)}


def rms(x):
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)


def attended(q, k, v):
    """By heads, of arrays with a last axis of heads and sizes."""
    q, k, v = (a.reshape(*a.shape[:-1], HEADS, SIZE) for a in (q, k, v))
    scores = jnp.einsum("bthc,bshc->bhts", q, k) / SIZE
    return jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(scores), v).reshape(
        *q.shape[:-2], -1
    )


class Plain:
    """A list of layers, every matrix `[in, out]` and alone, as in Haiku."""

    def of(self, p):
        block = lambda i: {k: p[k][i] for k in (*LEAVES, *MLP, "gain", "bias")}
        return {f"layer_{i}": block(i) for i in range(LAYERS)} | {
            k: p[k] for k in ("table", "head")
        }

    def back(self, t):
        stack = lambda k: jnp.stack([t[f"layer_{i}"][k] for i in range(LAYERS)])
        return {k: stack(k) for k in (*LEAVES, *MLP, "gain", "bias")} | {
            k: t[k] for k in ("table", "head")
        }

    def block(self, b, x):
        h = rms(x) * b["gain"] + b["bias"]
        x = x + attended(h @ b["q"], h @ b["k"], h @ b["v"]) @ b["o"]
        h = rms(x)
        return x + (jax.nn.silu(h @ b["gate"]) * (h @ b["up"])) @ b["down"]

    def apply(self, t, tokens):
        x = t["table"][tokens]
        for i in range(LAYERS):
            x = self.block(t[f"layer_{i}"], x)
        return x @ t["head"]


class Fused(Plain):
    """Queries, keys and values in one matrix, and the two of the gated unit."""

    def of(self, p):
        p = dict(p)
        p["qkv"] = jnp.concatenate([p.pop(k) for k in "qkv"], -1)
        p["both"] = jnp.concatenate([p.pop(k) for k in ("gate", "up")], -1)
        layer = lambda i: {
            k: p[k][i] for k in ("qkv", "both", "o", "down", "gain", "bias")
        }
        return {"layers": [layer(i) for i in range(LAYERS)]} | {
            k: p[k] for k in ("table", "head")
        }

    def back(self, t):
        stack = lambda k: jnp.stack([layer[k] for layer in t["layers"]])
        found = {k: stack(k) for k in ("o", "down", "gain", "bias")}
        found |= zip("qkv", jnp.split(stack("qkv"), 3, -1))
        found |= zip(("gate", "up"), jnp.split(stack("both"), 2, -1))
        return found | {k: t[k] for k in ("table", "head")}

    def block(self, b, x):
        h = rms(x) * b["gain"] + b["bias"]
        x = x + attended(*jnp.split(h @ b["qkv"], 3, -1)) @ b["o"]
        gate, up = jnp.split(rms(x) @ b["both"], 2, -1)
        return x + (jax.nn.silu(gate) * up) @ b["down"]

    def apply(self, t, tokens):
        x = t["table"][tokens]
        for layer in t["layers"]:
            x = self.block(layer, x)
        return x @ t["head"]


class Torch(Fused):
    """The same as torch and Equinox keep it: `[out, in]`."""

    TURNED = ("qkv", "both", "o", "down")

    def _turned(self, t):
        layers = [
            {k: x.T if k in self.TURNED else x for k, x in layer.items()}
            for layer in t["layers"]
        ]
        return {"layers": layers, "table": t["table"], "head": t["head"].T}

    def of(self, p):
        return self._turned(super().of(p))

    def back(self, t):
        return super().back(self._turned(t))

    def apply(self, t, tokens):
        x = t["table"][tokens]
        for layer in t["layers"]:
            x = self.block(
                {k: v.T if k in self.TURNED else v for k, v in layer.items()}, x
            )
        return x @ t["head"].T


class Scanned(Plain):
    """Layers along an axis, in a scan."""

    axis = 0
    STACKED = (*LEAVES, *MLP, "gain", "bias")

    def _moved(self, t, source, to):
        return {
            k: jnp.moveaxis(x, source, to) if k in self.STACKED else x
            for k, x in t.items()
        }

    def of(self, p):
        return self._moved(p, 0, self.axis)

    def back(self, t):
        return self._moved(t, self.axis, 0)

    def apply(self, t, tokens):
        layers = {k: jnp.moveaxis(t[k], self.axis, 0) for k in self.STACKED}
        step = lambda x, layer: (self.block(layer, x), None)
        x, _ = jax.lax.scan(jax.checkpoint(step), t["table"][tokens], layers)
        return x @ t["head"]


class ScannedInside(Scanned):
    """Layers along the second axis, as MaxText has them."""

    axis = 1


class Heads(Plain):
    """Kernels with axes of heads and sizes, as Flax has them."""

    def of(self, p):
        cut = {k: p[k].reshape(LAYERS, WIDTH, HEADS, SIZE) for k in "qkv"}
        return super().of(p | cut | {"o": p["o"].reshape(LAYERS, HEADS, SIZE, WIDTH)})

    def back(self, t):
        return {
            k: x.reshape(LAYERS, WIDTH, WIDTH) if k in LEAVES else x
            for k, x in super().back(t).items()
        }

    def block(self, b, x):
        h = rms(x) * b["gain"] + b["bias"]
        q, k, v = (jnp.einsum("btn,nhc->bthc", h, b[name]) for name in "qkv")
        scores = jnp.einsum("bthc,bshc->bhts", q, k) / SIZE
        made = jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(scores), v)
        x = x + jnp.einsum("bthc,hcn->btn", made, b["o"])
        h = rms(x)
        return x + (jax.nn.silu(h @ b["gate"]) * (h @ b["up"])) @ b["down"]


LAYOUTS = {
    f.__name__: f() for f in (Plain, Fused, Torch, Scanned, ScannedInside, Heads)
}
RECIPES = {
    "muon": lambda model: gk.muon(0.02, weight_decay=0.1, model=model),
    "normuon": lambda model: gk.normuon(0.02, model=model),
    "soap": lambda model: gk.soap(3e-3, every=2, model=model),
    "galore": lambda model: gk.galore(1e-2, rank=3, every=2, model=model),
    "shampoo": lambda model: gk.shampoo(1e-2, model=model),
    "project": lambda model: gk.subspace.project(
        gk.scale_by_adam(),
        3,
        schedule=gk.subspace.every_n(2),
        residual=gk.subspace.pass_residual(),
        model=model,
    ),
}


def steps(layout, recipe):
    """The updates of three gradients, the same in every layout."""
    p = layout.of(parameters(jax.random.key(0)))
    tx = RECIPES[recipe](gk.read_model(layout.apply, p, TOKENS))
    state, found = tx.init(p), []
    for i in range(3):
        g = layout.of(parameters(jax.random.key(i + 1)))
        u, state = tx.update(g, state, p)
        p = optax.apply_updates(p, u)
        found.append(layout.back(u))
    return found


def test_the_layouts_are_one_network():
    p = parameters(jax.random.key(0))
    want = LAYOUTS["Plain"].apply(LAYOUTS["Plain"].of(p), TOKENS)
    for layout in LAYOUTS.values():
        np.testing.assert_allclose(
            layout.apply(layout.of(p), TOKENS), want, rtol=2e-4, atol=2e-4
        )
        jax.tree.map(np.testing.assert_array_equal, layout.back(layout.of(p)), p)


QUICK = {"muon", "galore"}  # others are left to make check-full
WITHIN = {"Fused", "Scanned"}  # parts of what Torch and ScannedInside are; so are they


@functools.cache
def plain(recipe):
    return steps(LAYOUTS["Plain"], recipe)


@pytest.mark.parametrize(
    "recipe,layout",
    [
        pytest.param(k, name, marks=[pytest.mark.slow] * is_slow)
        for k in RECIPES
        for name in LAYOUTS
        if name != "Plain"
        for is_slow in [k not in QUICK or name in WITHIN]
    ],
)
@pytest.mark.xdist_group("layouts")  # which share what the plain one does
def test_every_layout_takes_the_same_steps(recipe, layout):
    for a, b in zip(plain(recipe), steps(LAYOUTS[layout], recipe)):
        for k, x in a.items():
            scale = float(jnp.max(jnp.abs(x))) or 1.0
            np.testing.assert_allclose(b[k] / scale, x / scale, atol=1e-3, err_msg=k)


def test_names_would_not_have_told():
    """A fused matrix is orthogonalized as one, and torch's by its other side, without a model."""
    layout = LAYOUTS["Fused"]
    p = layout.of(parameters(jax.random.key(0)))
    tx = gk.muon(0.02)
    u, _ = tx.update(p, tx.init(p), p)
    named = layout.back(u)["gate"]
    assert not np.allclose(named, steps(layout, "muon")[0]["gate"], atol=1e-3)


def test_flax_and_equinox_modules():
    class Attention(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Embed(VOCABULARY, WIDTH)(x)
            x = x + linen.MultiHeadDotProductAttention(num_heads=HEADS)(
                linen.LayerNorm()(x)
            )
            return linen.Dense(3)(x)

    module = Attention()
    params = module.init(jax.random.key(0), TOKENS)["params"]
    read = gk.read_model(lambda p, x: module.apply({"params": p}, x), params, TOKENS)
    kinds = {
        path.split("/")[-2] + "/" + path.split("/")[-1]: x.kind
        for path, x in read.items()
    }
    assert (
        kinds["Embed_0/embedding"] == "embedding"
        and kinds["Dense_0/kernel"] == "readout"
    )
    assert {kinds[f"{k}/kernel"] for k in ("query", "key", "value", "out")} == {
        "matrix"
    }
    query, out = (
        read[f"MultiHeadDotProductAttention_0/{k}/kernel"] for k in ("query", "out")
    )
    assert (query.inputs, query.outputs) == ((0,), (1, 2))
    assert (out.inputs, out.outputs) == ((0, 1), (2,))

    mlp = eqx.nn.MLP(3, 2, WIDTH, 2, key=jax.random.key(0))
    read = gk.read_model(lambda m, x: jax.vmap(m)(x), mlp, jnp.ones((4, 3)))
    weights = [read[f"layers/{i}/weight"] for i in range(3)]
    assert [(w.kind, w.inputs, w.outputs) for w in weights] == [
        ("matrix", (1,), (0,)),
        ("matrix", (1,), (0,)),
        ("readout", (1,), (0,)),
    ]
    params, rest = eqx.partition(mlp, eqx.is_inexact_array)
    tx = gk.muon(0.02, model=read)
    u, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.structure(u) == jax.tree.structure(params)
    s = jnp.linalg.svd(u.layers[1].weight, compute_uv=False)
    assert s.max() < 0.03 and s.min() > 0.01
    assert rest is not None

    net = nnx.MultiHeadAttention(HEADS, WIDTH, rngs=nnx.Rngs(0), decode=False)
    graph, state = nnx.split(net, nnx.Param)
    call = lambda state, x: nnx.merge(graph, state)(x)
    read = gk.read_model(call, state, jnp.ones((1, 5, WIDTH)))
    optimizer = nnx.Optimizer(net, gk.muon(0.02, model=read), wrt=nnx.Param)
    optimizer.update(net, nnx.grad(lambda m: m(jnp.ones((1, 5, WIDTH))).sum())(net))


def test_routes_show_it():
    layout = LAYOUTS["Torch"]
    p = layout.of(parameters(jax.random.key(0)))
    read = gk.read_model(layout.apply, p, TOKENS)
    rows = {row.path: row for row in gk.routes(gk.muon(0.02, model=read), p)}
    qkv = rows["layers/0/qkv"]
    assert (qkv.matrix, qkv.batch, qkv.transform) == ((WIDTH, WIDTH), (3,), "matrices")
    assert (
        rows["head"].transform == "adam" and rows["head"].why == "readout of the model"
    )
    assert rows["table"].why == "embedding of the model"


def test_a_mask_is_of_the_parameters():
    layout = LAYOUTS["Fused"]
    p = layout.of(parameters(jax.random.key(0)))
    read = gk.read_model(layout.apply, p, TOKENS)
    zero = jax.tree.map(jnp.zeros_like, p)
    by_rank = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    for mask in (by_rank, by_rank(p), True):
        tx = gk.muon(0.02, weight_decay=0.1, mask=mask, model=read)
        u, _ = tx.update(zero, tx.init(p), p)
        moved = jax.tree.map(lambda x: bool(jnp.any(x != 0)), u)
        assert moved == (
            jax.tree.map(lambda _: True, p) if mask is True else by_rank(p)
        )


def test_uneven_blocks_are_cut_where_the_model_cuts_them():
    """Grouped queries: two heads of queries, one of keys and one of values."""

    def apply(p, x):
        q, k, v = jnp.split(x @ p["qkv"], [8, 12], -1)
        scores = jnp.einsum("thc,sc->hts", q.reshape(-1, 2, 4), k)
        return (
            jnp.einsum("hts,sc->thc", jax.nn.softmax(scores), v).reshape(-1, 8)
            @ p["out"]
            @ p["head"]
        )

    p = {"qkv": jnp.ones((8, 16)), "out": jnp.ones((8, 8)), "head": jnp.ones((8, 3))}
    read = gk.read_model(apply, p, jnp.ones((5, 8)))
    assert read["qkv"].cut == (1, 1, (8, 4, 4))
    assert read["qkv"].pattern == "a0 a1=8+4+4 -> a0 a1"
    rows = [
        row.matrix for row in gk.routes(gk.muon(model=read), p) if "qkv" in row.path
    ]
    assert rows == [(8, 8), (8, 4), (8, 4)]


def test_interleaved_blocks():
    """Of each head its query, key and value, as in NeoX."""

    def apply(p, x):
        q, k, v = jnp.moveaxis((x @ p["qkv"]).reshape(-1, 2, 3, 4), 2, 0)
        scores = jax.nn.softmax(jnp.einsum("thc,shc->hts", q, k))
        return jnp.einsum("hts,shc->thc", scores, v).reshape(-1, 8) @ p["out"]

    p = {"qkv": jnp.ones((8, 24)), "out": jnp.ones((8, 3))}
    read = gk.read_model(apply, p, jnp.ones((5, 8)))
    assert read["qkv"].pattern == "a0 (group=2 part=3 a1) -> part a0 (group a1)"


def rotated(x):
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([-b, a], -1)


def pairs(x):
    a, b = x[..., ::2], x[..., 1::2]
    return jnp.stack([-b, a], -1).reshape(x.shape)


TOGETHER = {
    "halves": lambda q: q * 0.5 + rotated(q) * 0.5,
    "pairs": lambda q: q * 0.5 + pairs(q) * 0.5,
    "heads": lambda q: jnp.concatenate([jnp.tanh(h) for h in jnp.split(q, 2, -1)], -1),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_is_joined_again_is_one_matrix(name):
    apply = lambda p, x: TOGETHER[name](x @ p["w"]) @ p["u"] @ p["out"]
    p = {"w": jnp.ones((8, 8)), "u": jnp.ones((8, 8)), "out": jnp.ones((8, 3))}
    assert gk.read_model(apply, p, jnp.ones((5, 8)))["w"].cut is None


def test_it_is_kept_in_a_file_and_is_static(tmp_path):
    layout = LAYOUTS["Fused"]
    p = layout.of(parameters(jax.random.key(0)))
    read = gk.read_model(layout.apply, p, TOKENS)
    read.save(tmp_path / "read.json")
    again = gk.ModelReading.load(tmp_path / "read.json")
    assert again == read and hash(again) == hash(read) and str(again) == str(read)
    assert not jax.tree.leaves(read)
    assert "3 of 8 x 8" in str(read)


BAD = {
    "another type": (
        lambda read: gk.muon(model={"w": "matrix"}),
        TypeError,
        r"gradkit.muon: model must be what gradkit.read_model returns, got dict",
    ),
    "batch axes too": (
        lambda read: gk.soap(model=read, batch_axes=(0,)),
        ValueError,
        r"gradkit.soap: model must stand alone, got batch_axes too",
    ),
    "hidden too": (
        lambda read: gk.muon(model=read, hidden="w"),
        ValueError,
        r"gradkit.muon: model must stand alone, got hidden too",
    ),
    "another leaf": (
        lambda read: gk.muon(model=read).init({"v": jnp.ones((4, 4))}),
        ValueError,
        r"gradkit.muon: model must know every leaf, got v",
    ),
    "another shape": (
        lambda read: gk.muon(model=read).init(
            {"w": jnp.ones((4, 5)), "out": jnp.ones((4, 3))}
        ),
        ValueError,
        r"gradkit.muon: model must have read leaf w in its shape, got \(4, 4\) and \(4, 5\)",
    ),
    "unused": (
        lambda read: gk.read_model(
            lambda p, x: x, {"a/1/w": jnp.ones((2, 2))}, jnp.ones(2)
        ),
        ValueError,
        r"gradkit.read_model: leaf a/1/w must be used by apply.*kinds=\{'a/\\\\d\+/w\$': 'matrix'\}",
    ),
    "unknown kind": (
        lambda read: gk.read_model(
            lambda p, x: x, {"w": jnp.ones(2)}, jnp.ones(2), kinds={"w": "gain"}
        ),
        ValueError,
        r"gradkit.read_model: kinds must be known, got 'gain'",
    ),
    "idle kind": (
        lambda read: gk.read_model(
            lambda p, x: x, {"w": jnp.ones(2)}, jnp.ones(2), kinds={"v": "vector"}
        ),
        ValueError,
        r"gradkit.read_model: kinds must match a leaf, got 'v'",
    ),
    "an apply that fails": (
        lambda read: gk.read_model(
            lambda p, x: x @ p["w"], {"w": jnp.ones((2, 2))}, jnp.ones((3, 5))
        ),
        ValueError,
        r"gradkit.read_model: apply must run on params and the example, got TypeError",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_messages(name):
    call, kind, said = BAD[name]
    p = {"w": jnp.ones((4, 4)), "out": jnp.ones((4, 3))}
    read = gk.read_model(
        lambda p, x: jnp.tanh(x @ p["w"]) @ p["out"], p, jnp.ones((2, 4))
    )
    with pytest.raises(kind, match=said):
        call(read)


def test_doubt_is_lifted_by_a_kind():
    solve = jax.scipy.linalg.solve_triangular
    p = {"w": jnp.ones((4, 4)), "out": jnp.ones((4, 3))}
    apply = lambda p, x: solve(p["w"], x.T).T @ p["out"]
    with pytest.raises(
        ValueError, match=r"leaf w must meet data.*kinds=\{'w': 'matrix'\}"
    ):
        gk.read_model(apply, p, jnp.ones((2, 4)))
    read = gk.read_model(
        apply, p, jnp.ones((2, 4)), kinds={"w": "matrix", "out": "matrix"}
    )
    assert read["w"].is_matrix and read["out"].kind == "matrix"


XFAIL = {
    "trees": "a model has the leaves it has",
    "tree_map_params": "the inner state is a tree of matrices, not of parameters",
    "flops": "stated of the recipe",
    "state_bytes": "stated of the recipe",
    "reverse_mode": "as of the recipe",
}
# What entries are, no reading changes: of the recipe, left to make check-full as those are.
OF_VALUES = {"constant_gradient", "debug_nans", "follows_float64", "zero_gradient"}


@pytest.mark.parametrize(
    "law",
    [
        pytest.param(law, marks=[pytest.mark.slow] * (law in OF_VALUES))
        for law in testing.LAWS
        if law not in XFAIL
    ],
)
def test_the_laws_hold_of_what_reads_a_model(law):
    """Inside `optax.partition` and `masked` too, where it sees a few of the leaves it knows."""

    def apply(p, x):
        q, k, v = jnp.split(x @ p["qkv"], 3, -1)
        return (jax.nn.softmax(q @ k.T) @ v @ p["o"] + p["b"]) @ p["head"]

    shapes = {"qkv": (8, 24), "o": (8, 8), "b": (8,), "head": (8, 5)}
    p = {k: jnp.ones(s) for k, s in shapes.items()}
    read = gk.read_model(apply, p, jnp.ones((6, 8)))
    with jax.numpy_rank_promotion("raise"):
        make = lambda learning_rate=0.02: gk.muon(learning_rate, model=read)
        table = testing.check(make, shapes=shapes, laws=[law])
    assert table.ok, str(table)


def test_a_model_is_kept_when_some_leaves_are_masked():
    layout = LAYOUTS["Fused"]
    p = layout.of(parameters(jax.random.key(0)))
    read = gk.read_model(layout.apply, p, TOKENS)
    alone = gk.muon(0.02, model=read)
    u, _ = alone.update(p, alone.init(p), p)
    labels = jax.tree.map(lambda x: "frozen" if x.ndim < 2 else "moved", p)
    groups = {"moved": gk.muon(0.02, model=read), "frozen": optax.set_to_zero()}
    tx = optax.partition(groups, labels)
    some, _ = tx.update(p, tx.init(p), p)
    for layer, whole in zip(some["layers"], u["layers"]):
        np.testing.assert_allclose(layer["qkv"], whole["qkv"], rtol=1e-5, atol=1e-7)
        assert not layer["gain"].any()
