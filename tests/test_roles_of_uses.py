"""The role of a parameter, by the products, sums and lookups in which it meets data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from inferred import IMAGES, TOKENS, axes, infer, shape
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jax.sharding import SingleDeviceSharding

from gradkit._core.jaxpr.axes import labels, reshape, size, whole

HIDDEN = ("hidden", (0,), (1,), ())


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
    "of taken rows": lambda w, h: jnp.take(h, jnp.arange(len(h)), axis=0) @ w,
    "cond": lambda w, h: jax.lax.cond(h.sum() > 0, lambda: h @ w, lambda: h),
    "fori": lambda w, h: jax.lax.fori_loop(0, 3, lambda _, h: h @ w, h),
    "while": lambda w, h: jax.lax.while_loop(lambda h: h.sum() < 3, lambda h: h @ w, h),
    "barrier": lambda w, h: h @ jax.lax.optimization_barrier((w, h))[0],
    "half precision": lambda w, h: h @ w.astype(jnp.bfloat16).astype(h.dtype),
    "normalized": lambda w, h: h @ (w / jnp.linalg.norm(w, axis=0)),
    "standardized": lambda w, h: h @ ((w - w.mean(0)) / w.std(0)),
    "by its largest": lambda w, h: h @ (w / w.max(0)),
    "ranked": lambda w, h: h @ jnp.where(jnp.argmax(w, 0) > 0, w, -w),
    "masked": lambda w, h: h @ (w * jnp.tri(len(w))),
    "stacked": lambda w, h: (h @ jnp.stack([w, w]))[1],
    "tiled": lambda w, h: (h @ jnp.tile(w, (1, 2)))[:, : len(w)],
    "turned": lambda w, h: h @ w * jnp.abs(jnp.exp(np.complex64(1j) * h.astype("c8"))),
    "split": lambda w, h: jnp.concatenate([h @ x for x in jnp.split(w, 2, 1)], 1),
    "by hand": lambda w, h: (h[..., None] * w).sum(-2),
    "joined": lambda w, h: (h @ jnp.concatenate([w, w], 1))[:, : len(w)],
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_sums_over_the_contracted_axis_in_any_layout(name):
    product = PRODUCTS[name]
    assert sandwich(lambda p, h: product(p["w"], h), w=("w", "w")) == {"w": HIDDEN}
    found = sandwich(lambda p, h: product(p["w"].T, h), w=("w", "w"))
    assert found == {"w": ("hidden", (1,), (0,), ())}


def test_a_random_key_may_be_closed_over():
    key = jax.random.key(0)
    noisy = lambda p, h: h @ p["w"] + jax.random.normal(key, h.shape)
    assert sandwich(noisy, w=("w", "w")) == {"w": HIDDEN}


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


def test_a_vector_that_nobody_knows_the_use_of_is_one():
    """A kernel that normalizes, say, is given a gain."""
    assert sandwich(lambda p, h: called_back(h, p["g"]), g=("w",)) == {
        "g": ("vector", (), (0,), ())
    }


def test_what_devices_hold_of_a_parameter_is_of_its_axes():
    """Inside a `shard_map` a stack of two matrices is one."""
    mesh = jax.make_mesh((2,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))

    def middle(p, h):
        def part(h, w):
            return jax.lax.psum(h @ w.reshape(w.shape[1:]), "a")

        specs = dict(in_specs=(P(), P("a")), out_specs=P())
        return jax.shard_map(part, mesh=mesh, **specs)(h, p["w"])

    role, inputs, outputs, _ = sandwich(middle, w=(2, "w", "w"))["w"]
    assert (role, inputs, outputs) == ("hidden", (1,), (2,))


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


def test_a_product_of_three_parameters_is_followed_from_the_data():
    found = sandwich(
        lambda p, h: h @ (p["a"] @ p["b"] @ p["c"]), a=("w", 2), b=(2, 2), c=(2, "w")
    )
    assert found == {
        "a": ("output", (0,), (1,), ()),
        "b": ("fixed", (0,), (1,), ()),
        "c": ("input", (0,), (1,), ()),
    }


STATES = {
    "scan": lambda step, first, h: jax.lax.scan(
        lambda state, row: (step(state, row), None), first, h
    )[0],
    "while": lambda step, first, h: jax.lax.while_loop(
        lambda state: state.sum() < 3, lambda state: step(state, h[0]), first
    ),
}


@pytest.mark.parametrize("loop", STATES)
def test_a_learned_first_state_is_a_vector(loop):
    def middle(p, h):
        step = lambda state, row: jnp.tanh(row + state @ p["w"])
        return h + STATES[loop](step, p["first"], h)

    found = sandwich(middle, first=("w",), w=("w", "w"))
    assert found == {"first": ("vector", (), (0,), ()), "w": HIDDEN}


def test_a_branch_may_be_a_parameter():
    def middle(p, h):
        learned = lambda: jnp.broadcast_to(p["first"], h.shape)
        return jax.lax.cond(jnp.ones([]) > 0, learned, lambda: h)

    assert sandwich(middle, first=("w",)) == {"first": ("vector", (), (0,), ())}


def test_a_condition_uses_its_parameters():
    def middle(p, h):
        go_on = lambda h: (h * p["gain"]).sum() < 3
        return jax.lax.while_loop(go_on, lambda h: h @ p["w"], h)

    found = sandwich(middle, gain=("w",), w=("w", "w"))
    assert found == {"gain": ("output", (0,), (), ()), "w": HIDDEN}


def test_rows_that_the_program_picks_are_layers():
    found = sandwich(lambda p, h: h @ p["w"][0] @ p["w"][1], w=(2, "w", "w"))
    assert found == {"w": ("hidden", (1,), (2,), (0,))}


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


LOOKED_UP = {
    "all there is": lambda w, x: w[x],
    "times a constant": lambda w, x: w[x] @ jnp.ones((w.shape[1], 2)),
    "times another": lambda w, x: jnp.einsum("bw,bkw->bk", w[x[:, 0]], w[x]),
}


@pytest.mark.parametrize("name", LOOKED_UP)
def test_what_is_only_looked_up_is_an_embedding(name):
    apply = LOOKED_UP[name]
    found = infer(lambda w: {"w": shape(11, w)}, lambda p, x: apply(p["w"], x), TOKENS)
    assert axes(found) == {"w": ("embedding", (0,), (1,), ())}


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


MOVES = {
    "broadcast": lambda h: jax.lax.broadcast_in_dim(h, (1, *h.shape), (1, 2, 3)),
    "cast": lambda h: h.astype(jnp.bfloat16),
    "copied": jnp.copy,
    "put": lambda h: jax.device_put(h, jax.devices()[0]),
    "named": lambda h: checkpoint_name(h, "h"),
    "held": jax.lax.optimization_barrier,
    "rounded": lambda h: jax.lax.reduce_precision(h, 8, 7),
    "reshaped": lambda h: h.reshape(-1, h.shape[-1]),
    "sharded": lambda h: jax.lax.with_sharding_constraint(
        h, SingleDeviceSharding(jax.devices()[0])
    ),
    "squeezed": lambda h: jax.lax.squeeze(h[:, :1], [1]),
    "stopped": jax.lax.stop_gradient,
    "transposed": lambda h: h.transpose(1, 0, 2),
}


@pytest.mark.parametrize("move", MOVES)
def test_what_was_looked_up_is_so_wherever_it_is_moved(move):
    def apply(p, x):
        h = MOVES[move](p["w"][x])
        return h @ p["w"].T.astype(h.dtype)

    found = infer(lambda w: {"w": shape(11, w)}, apply, TOKENS)
    assert axes(found) == {"w": ("tied", (0,), (1,), ())}


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


# Doubt


def called_back(h, w):
    return jax.pure_callback(np.matmul, jax.ShapeDtypeStruct(h.shape, h.dtype), h, w)


solve = jax.scipy.linalg.solve_triangular
GAIN, ONE = "be a gain along its last axis only", "be used in one way"
LOOKED, PARTS = "be looked up in rows that do not grow", "not be taken apart along axis"
REFUSED = [  # what must hold, and what is done
    (GAIN, lambda w, h: (h[..., None] / w).sum(-2)),
    ("be used by apply", lambda w, h: h),
    (ONE, lambda w, h: h @ w + w[0]),
    (ONE, lambda w, h: h @ w @ w.T),
    (ONE, lambda w, h: w[jnp.argmax(h, -1)] + jnp.tensordot(w, h.T @ h, 2)),
    (ONE, lambda w, h: w[jnp.argmax(h, -1)] @ w.T + w[0]),
    (
        "sum over all or nothing of axis 0",
        lambda w, h: jnp.repeat(h[:, :4] @ w.reshape(4, -1)[:, :4], len(w) // 4, 1),
    ),
    (PARTS, lambda w, h: h + sum(w[i] for i in range(len(w)))),
    ("meet data.* got unknown triangular_solve", lambda w, h: solve(w, h.T).T),
    ("meet data.* got unknown pure_callback", lambda w, h: called_back(h, w)),
    (LOOKED, lambda w, h: w[jnp.argmax(h, -1)]),
    (LOOKED, lambda w, h: w[jnp.argmax(h, -1)] @ w.T),
]


@pytest.mark.parametrize("must, use", REFUSED)
def test_doubt_is_an_error_that_a_declaration_removes(must, use):
    def init(width):
        return {"in": shape(3, width), "w": shape(width, width)}

    def apply(p, x):
        return use(p["w"], x @ p["in"])

    with pytest.raises(
        ValueError, match=rf"leaf w must {must}.* (roles|stacks)=\{{'w'"
    ):
        infer(init, apply, IMAGES)
    found = infer(init, apply, IMAGES, roles={"w": "hidden"})
    assert axes(found)["w"] == HIDDEN
    found = infer(init, apply, IMAGES, inputs={"w": (-1,)})
    assert axes(found)["w"] == ("hidden", (1,), (0,), ())


VECTOR, TABLE = ("vector", (), (0, 1), ()), ("embedding", (0,), (1,), ())
PICKED = {  # what is done, and what it makes of "w"
    "row and all": (lambda w, x: w + w[0] + x, VECTOR),
    "row and column": (lambda w, x: w[0] + w[:, :1] + x, VECTOR),
    "row and lookup": (lambda w, x: w[x.astype(int)] + w[0], TABLE),
    "rows in turn and lookup": (
        lambda w, x: w[x[:, 0].astype(int)] + jax.lax.map(lambda row: row * x[0, 0], w),
        TABLE,
    ),
}


@pytest.mark.parametrize("name", PICKED)
def test_rows_of_what_is_used_whole_are_no_stack(name):
    use, want = PICKED[name]
    apply = lambda p, x: use(p["w"], x)
    found = infer(lambda w: {"w": shape(4, w)}, apply, shape(4, 1))
    assert axes(found)["w"] == want


DECLARED = [  # what is done, what is said of "w", and what that makes of it
    (lambda w, x: x @ w.T, dict(roles={"w": "vector"}), VECTOR),
    (lambda w, x: x @ w.T, dict(inputs={"w": (-2,)}), ("output", (0,), (1,), ())),
    (lambda w, x: x @ w.T, dict(inputs={"w": ()}), VECTOR),
    (lambda w, x: x + w[:4], dict(roles={"w": "fixed"}), ("fixed", *VECTOR[1:])),
]


@pytest.mark.parametrize("use, said, want", DECLARED)
def test_a_declaration_is_above_what_is_found(use, said, want):
    apply = lambda p, x: use(p["w"], x)
    found = infer(lambda w: {"w": shape(w, 3)}, apply, IMAGES, **said)
    assert axes(found)["w"] == want


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
