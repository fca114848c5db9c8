"""Every product, and what belongs to it, is found in any function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas

from gradkit._core.jaxpr import primitives, record

W = {
    "w": jnp.full((3, 3), 0.5),
    "layers": jnp.stack([jnp.eye(3)] * 4),
    "b": jnp.full((1, 1), 10.0),
    "v": jnp.arange(1.0, 4.0)[None],
}
X = jnp.ones((2, 3))


def sites(f, params=W, x=X):
    return {name: np.asarray(a) for name, a in record.activations(f, params, x)}


@jax.custom_vjp
def backwards(x):
    return x @ W["w"]


backwards.defvjp(lambda x: (backwards(x), None), lambda _, g: (g,))


@jax.custom_jvp
def forwards(w, x):
    return x @ w


forwards.defjvp(lambda primals, tangents: (forwards(*primals), tangents[1]))


convolution = functools.partial(
    jax.lax.conv_general_dilated, window_strides=(1,), padding="VALID"
)


@pytest.mark.parametrize(
    "inside",
    [
        lambda w, x: x @ w,
        jax.jit(lambda w, x: x @ w),
        jax.checkpoint(lambda w, x: x @ w),
        forwards,
        jax.vmap(lambda w, x: x @ w, (None, 0)),
        lambda w, x: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x),
        lambda w, x: jax.jit(jax.checkpoint(jax.vmap(lambda x: x @ w)))(x),
        lambda w, x: jax.lax.ragged_dot(x, w[None], jnp.array([2])),
        lambda w, x: 1 * convolution(x[..., None], w.T[..., None]).reshape(x.shape),
    ],
    ids=[
        *("plain", "jit", "remat", "custom_jvp", "vmap", "cond", "nested"),
        *("ragged", "convolution"),
    ],
)
def test_a_product_is_found_wherever_it_is(inside):
    found = sites(lambda p, x: jnp.sum(jnp.tanh(inside(p["w"], x))))
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], X @ W["w"])


def test_a_product_with_a_constant_is_of_the_activation():
    found = sites(lambda p, x: backwards(jnp.sin(x @ p["w"])).sum())
    assert list(found) == ["w", "w (2)"]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_stacks_its_turns(reverse):
    def f(p, x):
        block = lambda x, w: (x + x @ (2 * w.T), None)
        return jax.lax.scan(block, x, p["layers"], reverse=reverse)[0]

    found = sites(f)
    assert list(found) == ["layers", "+ layers"]
    turns = np.arange(4)[:: -1 if reverse else 1]
    powers = np.broadcast_to(3.0 ** turns[:, None, None], (4, 2, 3))
    np.testing.assert_array_equal(found["layers"], 2 * powers)
    np.testing.assert_array_equal(found["+ layers"], 3 * powers)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_branch_not_taken_is_zero(taken):
    def f(p, x):
        branches = [lambda: x @ p["w"], lambda: jnp.sin(x) @ p["w"] @ p["w"]]
        return jax.lax.switch(taken, branches)

    found = sites(f)
    assert [bool(a.any()) for a in found.values()] == [taken == 0] + [taken == 1] * 2


CALLS = {
    "scan": lambda f, h: jax.lax.scan(lambda h, _: (f(h), None), h, length=1)[0],
    "cond": lambda f, h: jax.lax.cond(h.sum() > 0, f, jnp.sin, h),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_scan_and_a_branch_end_the_sites_outside_and_inside(name):
    def f(p, x):
        return 2 * CALLS[name](lambda h: (3 * h) @ p["layers"][0], x @ p["w"])

    found = sites(f)
    np.testing.assert_array_equal(found["w"], X @ W["w"])
    np.testing.assert_array_equal(found["layers"].reshape(2, 3), 3 * (X @ W["w"]))


STARTS = {
    "of zeros": lambda p: jnp.zeros(3),
    "learned": lambda p: p["w"][0],
}


@pytest.mark.parametrize("start", STARTS)
def test_a_state_is_an_activation_after_its_first_turn(start):
    def f(p, x):
        turn = lambda h, row: (jnp.sin(row @ p["w"] + h @ p["layers"][0]), None)
        return jax.lax.scan(turn, STARTS[start](p), x)[0]

    found = sites(f)
    assert list(found) == ["w", "layers", "+ layers"]
    np.testing.assert_array_equal(found["w"], X @ W["w"])


def test_what_is_done_to_a_state_does_not_belong_to_the_turn_before():
    turn = lambda w, h, row: (row @ w, 2 * h)
    f = lambda p, x: jax.lax.scan(lambda *xs: turn(p["w"], *xs), jnp.zeros(3), x)
    found = sites(f)
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], X @ W["w"])


def test_a_state_of_a_state_is_one_after_two_turns():
    def f(p, x):
        turn = lambda h, row: ((h[1], row), h[0] @ p["w"])
        return jax.lax.scan(turn, (jnp.zeros(3), jnp.zeros(3)), x)[1]

    assert list(sites(f)) == ["w"]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("order", [1, -1])
def test_what_any_branch_makes_is_an_activation(start, order):
    def f(p, x):
        branches = [lambda: x[0] @ p["w"], lambda: STARTS[start](p)]
        return jax.lax.switch(0, branches[::order]) @ p["w"]

    assert list(sites(f)) == ["w", "w (2)"]


def test_a_print_is_no_site():
    def f(p, x):
        jax.debug.callback(lambda h: None, x @ p["w"])
        return x @ p["w"]

    assert list(sites(f)) == ["w", "w (2)"]  # who looks at a product uses it


OPAQUE = {
    "while": lambda h: jax.lax.while_loop(lambda h: h.sum() < 50, lambda h: 2 * h, h),
    "kernel": pallas.pallas_call(
        lambda x, y: y.__setitem__(..., 2 * x[...]), jax.typeof(X), interpret=True
    ),
    "sharded": jax.shard_map(
        lambda h: jax.lax.psum(2 * h, "x"),
        mesh=jax.make_mesh((1,), ("x",)),
        in_specs=jax.P(),
        out_specs=jax.P(),
    ),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_a_kernel_is_run_as_it_is(name):
    found = sites(lambda p, x: OPAQUE[name](x @ p["w"]) @ p["w"])
    assert list(found) == ["w", "w (2)"]
    np.testing.assert_array_equal(found["w"], X @ W["w"])
    np.testing.assert_array_equal(found["w (2)"], OPAQUE[name](X @ W["w"]) @ W["w"])


MOVES = {
    "broadcast_in_dim": lambda h: h[None],
    "convert_element_type": lambda h: h.astype(jnp.bfloat16),
    "copy": jnp.copy,
    "device_put": lambda h: jax.device_put(h, jax.devices()[0]),
    "expand_dims": lambda h: jnp.expand_dims(h, 0),
    "name": lambda h: checkpoint_name(h, "hidden"),
    "optimization_barrier": lambda h: jax.lax.optimization_barrier((X, h))[1],
    "reduce_precision": lambda h: jax.lax.reduce_precision(h, 8, 7),
    "reshape": lambda h: h.reshape(1, 6),
    "sharding_constraint": lambda h: jax.lax.with_sharding_constraint(
        h, jax.NamedSharding(jax.make_mesh((1,), ("x",)), jax.P())
    ),
    "squeeze": lambda h: jax.lax.squeeze(h[None], [0]),
    "stop_gradient": jax.lax.stop_gradient,
    "transpose": lambda h: h.T,
}


def test_every_move_is_tried():
    assert {*MOVES} == primitives.MOVES


@pytest.mark.parametrize("move", MOVES)
def test_an_activation_is_itself_wherever_it_is_moved(move):
    found = sites(lambda p, x: 2 * (MOVES[move](x @ p["w"]) + p["b"][0, 0]))
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"].ravel(), [23.0] * 6)


@pytest.mark.parametrize("move", MOVES)
def test_a_bias_belongs_to_it_wherever_it_is_moved(move):
    bias = lambda p: MOVES[move](p["v"] * jnp.ones_like(X)).reshape(-1)[:1, None]
    found = sites(lambda p, x: x @ p["w"] + bias(p).astype(x.dtype))
    np.testing.assert_array_equal(found["w"], np.full((2, 3), 2.5))


KEPT = {
    "times another": lambda p, x: (x @ p["w"]) * jnp.cos(x),
    "less another": lambda p, x: x @ p["w"] - jnp.cos(x),
    "taken": lambda p, x: (x @ p["w"])[jnp.array([0])],
}


@pytest.mark.parametrize("name", KEPT)
def test_an_activation_is_kept_as_it_was_when_it_is_used(name):
    found = sites(KEPT[name])
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], X @ W["w"])


def test_a_constant_that_multiplies_a_product_belongs_to_it():
    def f(p, x):
        y = jax.jit(lambda y: 3 * y)(jax.jit(lambda x: x @ p["w"] / 2)(x).T)
        return y * y

    np.testing.assert_array_equal(sites(f)["w"], 1.5 * (X @ W["w"]).T)
    biased = sites(lambda p, x: jax.nn.relu(x @ p["w"] + p["w"][:1]) / 2)
    np.testing.assert_array_equal(biased["w"], X @ W["w"] + 0.5)
    shifted = sites(lambda p, x: jax.nn.relu(x @ p["w"] - p["w"][:1]) / 2)
    np.testing.assert_array_equal(shifted["w"], X @ W["w"] - 0.5)
    mask = np.array([1.0, 0.0, 1.0], np.float32)[None]
    masked = sites(lambda p, x: x @ p["w"] * mask * 2.0)
    np.testing.assert_array_equal(masked["w"], X @ W["w"])


def test_attention_lookups_and_sums_have_names():
    def f(p, tokens):
        x = p["embed"][tokens] + p["places"][: len(tokens)]
        q, k, v = (x @ p["block"][name] for name in "qkv")
        return x + jax.nn.softmax(q @ k.T) @ v

    block = {name: jnp.ones((2, 2)) for name in "qkv"}
    params = {"embed": jnp.ones((5, 2)), "places": jnp.ones((9, 2)), "block": block}
    assert list(sites(f, params, jnp.arange(3))) == [
        "embed",
        "block/q",
        "block/k",
        "block/v",
        "block/q · k",
        "block/v · q · k",
        "+ block/v · q · k",
    ]


def test_sums_of_sums_and_of_gradients_are_named_by_what_is_added():
    assert list(sites(lambda p, x: x @ p["w"] + x + x)) == ["w", "+ w", "+ w (2)"]
    twice = lambda p, x: jax.vjp(lambda h: (h @ p["w"], jnp.sin(h) @ p["w"]), x)[1]
    found = sites(lambda p, x: twice(p, x)((x, x)))
    assert list(found) == ["w", "w (2)", "+ w"]


UNUSED = {
    "plain": lambda p, h: (h, h @ p["v"].T),
    "jit": jax.jit(lambda p, h: (h, h @ p["v"].T)),
    "remat": jax.checkpoint(lambda p, h: (h, h @ p["v"].T)),
    "cond": lambda p, h: jax.lax.cond(
        h.sum() > 0, lambda: (h, h @ p["v"].T), lambda: (h, h @ p["v"].T)
    ),
    "scan": lambda p, h: jax.lax.scan(lambda h, _: (h, h @ p["v"].T), h, length=2),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_nothing_uses_is_no_site(name):
    found = sites(lambda p, x: jnp.sum(UNUSED[name](p, x @ p["w"])[0]))
    assert list(found) == ["w"]


ADDED_UP = {  # each `jnp.tanh(x @ w) @ v`, or a multiple of it
    "sum": (1, lambda h, v: jnp.sum(h * v, -1)),
    "mean": (1 / 3, lambda h, v: jnp.mean(v * h, -1)),
    "multiple": (2, lambda h, v: (2 * (h * v)).sum(-1) + 0.0),
    "quotient": (0.5, lambda h, v: jnp.sum(h * v / 2, axis=1)),
    "jit": (1, lambda h, v: jax.jit(lambda y: y.sum(-1))(h * v)),
    "cast": (1, lambda h, v: jnp.sum((h * v).astype(jnp.float32).T, 0)),
    "split": (1, lambda h, v: jnp.sum((h * v).reshape(2, 3, 1), (1, 2))),
    "masked": (1, lambda h, v: jnp.sum(jnp.where(np.ones((2, 3), bool), h * v, 0), 1)),
    "named": (1, lambda h, v: jnp.sum(checkpoint_name(h * v, "scores"), 1)),
}


@pytest.mark.parametrize("name", ADDED_UP)
def test_a_sum_of_products_of_entries_is_a_product(name):
    times, add_up = ADDED_UP[name]
    found = sites(lambda p, x: add_up(jnp.tanh(x @ p["w"]), p["v"]) ** 2)
    assert list(found) == ["w", "v"]
    np.testing.assert_array_equal(found["w"], X @ W["w"])
    right = times * np.tanh(X @ W["w"]) @ W["v"][0]
    np.testing.assert_allclose(found["v"], right, rtol=1e-6)


def test_what_is_summed_with_a_parameter_keeps_its_own_size():
    """A parameter that multiplies a product belongs to it, but not one that is summed."""
    summed = sites(lambda p, x: jnp.sum(3 * (x @ p["w"]) * p["v"], -1))
    np.testing.assert_array_equal(summed["w"], 3 * X @ W["w"])
    np.testing.assert_array_equal(summed["v"], [27, 27])
    gain = sites(lambda p, x: x @ p["w"] * p["v"])
    np.testing.assert_array_equal(gain["w"], X @ W["w"] * W["v"])


def test_a_sum_of_products_of_two_activations_is_one_of_both():
    def f(p, x):
        q, k = jnp.tanh(x @ p["w"]), jnp.tanh(x @ p["layers"][0])
        return jnp.sum(q[:, None] * k[None], -1)

    found = sites(f)
    assert list(found) == ["w", "layers", "w · layers"]
    assert found["w · layers"].shape == (2, 2)


def standardized(x):
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1)


STATISTICS = {
    "layer norm": lambda p, h: standardized(standardized(h) * p["v"] + p["v"]),
    "gain": lambda p, h: standardized(h * p["v"]),
    "over others": lambda p, h: jnp.sum(jnp.tanh(h) * p["v"], 0),
    "of one number": lambda p, h: jnp.sum(jnp.tanh(h) * p["b"], -1),
    "square": lambda p, h: jnp.sum(h * h, -1),
    "softmax": lambda p, h: jax.nn.softmax(h * p["v"]),
    "loss": lambda p, h: -jnp.sum(X * jax.nn.log_softmax(h)),
    "read twice": lambda p, h: (lambda y: jnp.sum(y, -1) + y[:, 0])(
        jnp.sin(h) * p["v"]
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_no_products(name):
    found = sites(lambda p, x: STATISTICS[name](p, x @ p["w"]))
    assert list(found) == ["w"]


NUMBERS = {
    "of an array": (6, lambda h: h * jnp.full((2, 3), 4.0)),
    "computed": (3, lambda h: h * jnp.sqrt(jnp.float32(4.0))),
    "of entries": (1.5, lambda h: h * jnp.arange(3.0)[None]),
    "counted": (1.5, lambda h: h * jnp.cumsum(jnp.ones(3))[None]),
    "above": (1.5, lambda h: 3.0 / h),
    "below": (0.5, lambda h: h / 3.0),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_belongs_to_what_it_multiplies(name):
    right, times = NUMBERS[name]
    found = sites(lambda p, x: jnp.sin(times(x @ p["w"])))
    np.testing.assert_array_equal(found["w"], np.full((2, 3), right))


def test_what_is_recorded_is_recorded_in_jit_too():
    f = lambda p, x: jnp.sum(jax.nn.relu(x @ p["w"]) @ p["w"])
    jitted = jax.jit(lambda p, x: [a for _, a in record.activations(f, p, x)])(W, X)
    for a, b in zip(jitted, sites(f).values()):
        np.testing.assert_allclose(a, b, rtol=1e-6)
