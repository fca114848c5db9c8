"""First parameters and adapters: the model that they make, and the first step that they ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

SHAPES = {"a": {"kernel": (7, 5), "bias": (5,)}, "b": {"kernel": (5, 6)}}


def drawn(shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    is_shape = lambda x: isinstance(x, tuple)
    draw = lambda s: jnp.asarray(rng.normal(size=s), jnp.result_type(float))
    return jax.tree.map(draw, shapes, is_leaf=is_shape)


def equal(got, want, tolerance=1e-10):
    close = lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance)
    jax.tree.map(close, got, want)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


# Fixup


def branch(weights, x):
    for w in weights[:-1]:
        x = jnp.maximum(x @ w, 0)
    return x @ weights[-1]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_branch_of_fixup_moves_by_its_part_of_the_step(depth):
    """The first step on the sum of L branches moves the model as that on one branch alone."""
    rng = np.random.default_rng(depth)
    weights = [jnp.asarray(rng.uniform(size=(4, 4))) for _ in range(depth)]
    x, slope = (jnp.asarray(rng.uniform(size=4)) for _ in range(2))

    def moved(count):
        names = [[f"{i}/{j}" for j in range(depth)] for i in range(count)]
        params = {
            str(i): {str(j): w for j, w in enumerate(weights)} for i in range(count)
        }
        params = gk.init_by_fixup(params, branches=names)
        model = lambda p: sum(branch([*b.values()], x) for b in p.values())
        before, grads = model(params), jax.grad(lambda p: model(p) @ slope)(params)
        after = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        assert not np.any(before)
        return model(after)

    alone = moved(1)
    assert np.linalg.norm(alone) > 1e-3
    equal(moved(16), alone)


def test_fixup_scales_and_clears_what_it_is_told():
    shapes = {k: (2, 3) for k in ("stem", "one", "two", "three", "alone", "head")}
    params = drawn(shapes)
    branches = [["one", "two", "three"], ["alone"]]
    made = gk.init_by_fixup(params, branches=branches, outputs=["head"], stacked=8)
    factor = {"stem": 1.0, "one": 0.5, "two": 0.5}  # 16^(-1/4)
    equal(made, {k: factor.get(k, 0.0) * p for k, p in params.items()})
    jitted = jax.jit(lambda p: gk.init_by_fixup(p, branches=branches, stacked=8))(
        params
    )
    equal(jitted["one"], made["one"])


# LoRA-GA


def full_step(made, gradients, rate):
    """How far one step of gradient descent on the factors moves the weights, to first order."""
    loss = lambda a, b: sum(
        jnp.vdot(g, w)
        for g, w in zip(
            jax.tree.leaves(gradients),
            jax.tree.leaves(made._replace(a=a, b=b).weights()),
        )
    )
    steps = jax.grad(loss, (0, 1))(made.a, made.b)
    moves = lambda t, d: jax.tree.map(lambda x, g: x - t * rate * g, d[0], d[1])
    at = lambda t: made._replace(
        a=moves(t, (made.a, steps[0])), b=moves(t, (made.b, steps[1]))
    ).weights()
    return jax.jvp(at, (0.0,), (1.0,))[1]


def test_lora_ga_begins_as_the_model_and_steps_along_its_gradient():
    """The first step of the weights is the best approximation of the gradient of twice the rank."""
    params, gradients = drawn(), drawn(seed=1)
    alpha, gamma, rank = 3.0, 5.0, 2
    made = gk.init_by_lora_ga(
        params, gradients=gradients, rank=rank, alpha=alpha, gamma=gamma
    )
    equal(made.weights(), params)
    assert isinstance(made.a["a"]["bias"], optax.MaskedNode)
    moved = full_step(made, gradients, 0.1)
    for layer in ("a", "b"):
        g = np.asarray(gradients[layer]["kernel"])
        u, s, vt = np.linalg.svd(g, full_matrices=False)
        best = (u[:, : 2 * rank] * s[: 2 * rank]) @ vt[: 2 * rank]
        size = g.shape[1] ** 0.5 / gamma * alpha**2 / rank
        equal(moved[layer]["kernel"], -0.1 * size * best)
        a, b = made.a[layer]["kernel"], made.b[layer]["kernel"]
        equal(np.abs(u[:, :rank].T @ a), g.shape[1] ** 0.25 / gamma**0.5 * np.eye(rank))
        equal(b @ b.T, g.shape[1] ** 0.5 / gamma * np.eye(rank))
        equal(made.scale, alpha / rank**0.5)


def test_lora_ga_of_stacked_matrices_is_that_of_each():
    shapes = {"w": (3, 5, 6), "v": (5, 6)}
    params, gradients = drawn(shapes), drawn(shapes, 1)
    made = gk.init_by_lora_ga(params, gradients=gradients, rank=2, matrices="w")
    assert isinstance(made.a["v"], optax.MaskedNode)
    for i in range(3):
        one = gk.init_by_lora_ga(
            {"w": params["w"][i]}, gradients={"w": gradients["w"][i]}, rank=2
        )
        equal((made.a["w"][i], made.b["w"][i]), (one.a["w"], one.b["w"]))
    jitted = jax.jit(
        lambda p, g: gk.init_by_lora_ga(p, gradients=g, rank=2, matrices="w")
    )
    equal(jitted(params, gradients).weights(), params)


def test_adapters_of_narrow_weights_are_in_float32():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), drawn())
    made = gk.init_by_lora_ga(params, gradients=params, rank=1)
    assert made.a["a"]["kernel"].dtype == jnp.float32
    assert made.params["a"]["kernel"].dtype == jnp.bfloat16
    assert made.weights()["a"]["kernel"].dtype == jnp.bfloat16
    bad = jax.tree.map(lambda p: p.at[0].set(jnp.nan), drawn())
    make = lambda g: gk.init_by_lora_ga(drawn(), gradients=g, rank=1)
    made = jax.jit(make)(bad)  # not known: entries count as 0
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(made))
    with pytest.raises(ValueError, match="leaf a/kernel of gradients must be finite"):
        make(bad)
    known = jax.jit(lambda p: gk.init_by_lora_ga(p, gradients=drawn(), rank=1))
    equal(known(drawn()).weights(), drawn())


# EVA


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    falls = lambda n, power: np.arange(1, n + 1) ** -power
    x = rng.normal(size=(4, 10, 7)) * falls(7, 2.0) + 3.0
    y = rng.normal(size=(40, 5)) * falls(5, 0.1)
    return {"a/kernel": x, "b/kernel": y}


@pytest.mark.parametrize("rank,rho", [(1, 1.0), (2, 2.0), (2, 1.5), (3, 5 / 3)])
def test_eva_gives_ranks_to_what_varies(rank, rho):
    params, given = drawn(), inputs()
    made = gk.init_by_eva(params, activations=given, rank=rank, rho=rho, alpha=4.0)
    equal(made.weights(), params)
    found = []
    for path, x in given.items():
        x = x.reshape(-1, x.shape[-1])
        values, vectors = np.linalg.eigh(np.cov(x.T))
        part = values[::-1] / values.sum()
        found += [(p, path) for p in part[: round(rank * rho)]]
        a = made.a[path[0]]["kernel"]
        n = 0 if isinstance(a, optax.MaskedNode) else a.shape[1]
        if n:
            equal(np.abs(vectors[:, ::-1][:, :n].T @ a), np.eye(n), 1e-8)
            assert made.b[path[0]]["kernel"].shape == (
                n,
                params[path[0]]["kernel"].shape[1],
            )
    kept = sorted(found, reverse=True)[: 2 * rank]
    for path in given:
        a = made.a[path[0]]["kernel"]
        n = 0 if isinstance(a, optax.MaskedNode) else a.shape[1]
        assert n == sum(owner == path for _, owner in kept)
    equal(made.scale, 4.0 / rank)


def test_a_layer_that_varies_little_has_no_adapter():
    x = np.zeros((6, 7))
    given = {"a/kernel": x, "b/kernel": inputs()["b/kernel"]}
    made = gk.init_by_eva(drawn(), activations=given, rank=2)
    assert isinstance(made.a["a"]["kernel"], optax.MaskedNode)
    assert made.a["b"]["kernel"].shape == (5, 4)
    equal(made.weights(), drawn())


def test_there_are_no_directions_along_which_inputs_do_not_vary():
    still = jnp.full((9, 7), 0.1, jnp.float32) + jnp.arange(7, dtype=jnp.float32)[None]
    with pytest.raises(ValueError, match="must vary over their rows, got constants"):
        gk.init_by_eva(drawn(), activations={"a/kernel": still})
    line = still * jnp.arange(9, dtype=jnp.float32)[:, None]  # of rank one
    made = gk.init_by_eva(drawn(), activations={"a/kernel": line}, rank=3)
    a = made.a["a"]["kernel"]
    assert a.shape == (7, 1)
    way = still[:1].T / jnp.linalg.norm(still[0])
    equal(np.abs(a), np.abs(way), 1e-5)


# SVFit and SVFT


@pytest.mark.parametrize("rank,bandwidth", [(None, 0), (3, 0), (4, 2)])
def test_singular_values_are_trained_by_the_gradient_between_the_vectors(
    rank, bandwidth
):
    """The gradient by entry (i, i + d) is that of u_i' G v_(i+d)."""
    params, gradients = drawn(), drawn(seed=1)
    made = gk.init_by_singular_values(params, rank=rank, bandwidth=bandwidth)
    equal(made.weights(), params)

    def loss(bands):
        pairs = zip(
            jax.tree.leaves(gradients),
            jax.tree.leaves(made._replace(bands=bands).weights()),
        )
        return sum(jnp.vdot(g, w) for g, w in pairs)

    slopes = jax.grad(loss)(made.bands)
    for layer in ("a", "b"):
        u, vt = (np.asarray(t[layer]["kernel"]) for t in (made.left, made.right))
        between = u.T @ np.asarray(gradients[layer]["kernel"]) @ vt.T
        r = rank or 5
        want = np.zeros((2 * bandwidth + 1, r))
        for d in range(-bandwidth, bandwidth + 1):
            for i in range(max(0, -d), min(r, r - d)):
                want[bandwidth + d, i] = between[i, i + d]
        equal(slopes[layer]["kernel"], want)
        w = np.asarray(params[layer]["kernel"])
        left, s, right = np.linalg.svd(w, full_matrices=False)
        equal(made.params[layer]["kernel"], (left[:, r:] * s[r:]) @ right[r:])
        s = s[:r]
        equal(made.bands[layer]["kernel"][bandwidth], s)
        assert np.sum(np.abs(made.bands[layer]["kernel"])) == pytest.approx(s.sum())


def test_training_values_is_training_in_a_fixed_basis():
    """Gradient descent on singular values is that on weights, projected onto `u_i v_i'`."""
    w, target = drawn({"w": (6, 4)}), drawn({"w": (6, 4)}, 1)
    loss = lambda p: jnp.sum((p["w"] - target["w"]) ** 4)
    made = gk.init_by_singular_values(w, rank=3)
    u, vt, rest = made.left["w"], made.right["w"], w["w"]
    values = made.bands
    for _ in range(5):
        slope = jax.grad(lambda b: loss(made._replace(bands=b).weights()))(values)
        values = jax.tree.map(lambda x, g: x - 1e-2 * g, values, slope)
        g = jax.grad(loss)({"w": rest})["w"]
        rest = rest - 1e-2 * u @ jnp.diag(jnp.diag(u.T @ g @ vt.T)) @ vt
    equal(made._replace(bands=values).weights()["w"], rest)


def test_singular_values_of_stacks_and_under_jit():
    params = drawn({"w": (2, 4, 6), "v": (3, 3)})
    make = lambda p: gk.init_by_singular_values(p, rank=2, bandwidth=1, matrices="w")
    made = jax.jit(make)(params)
    equal(made.weights(), params)
    assert made.bands["w"].shape == (2, 3, 2)
    one = gk.init_by_singular_values({"w": params["w"][1]}, rank=2, bandwidth=1)
    equal(made.left["w"][1], one.left["w"])


# What is refused

W = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
REFUSED = {
    "stacked must be a whole number": lambda: gk.init_by_fixup(W, branches=[["w"]], stacked=0),
    "branches must be one or more": lambda: gk.init_by_fixup(W, branches=[]),
    "branch 0 must be a sequence of paths, got 'w'": lambda: gk.init_by_fixup(W, branches=["w"]),
    "outputs must be a sequence of paths, got 'b'": lambda: (
        gk.init_by_fixup(W, branches=[["w"]], outputs="b")
    ),
    "a weight must be in one branch": lambda: gk.init_by_fixup(W, branches=[["w"], ["w"]]),
    "must be paths of parameters, got 'x'": lambda: gk.init_by_fixup(W, branches=[["x"]]),
    "rank must be at most half of the smaller side of leaf w, 3, got 2": lambda: (
        gk.init_by_lora_ga(W, gradients=W, rank=2)
    ),
    "gradients must be a tree like params": lambda: gk.init_by_lora_ga(W, gradients={"w": W["w"]}),
    "alpha must be above 0, got 0": lambda: gk.init_by_lora_ga(W, gradients=W, alpha=0.0),
    "gamma must be one number, got 'x'": lambda: gk.init_by_lora_ga(W, gradients=W, gamma="x"),
    "matrices must be found in the path": lambda: (
        gk.init_by_lora_ga(W, gradients=W, rank=1, matrices="kernel")
    ),
    "leaf b must have at least 2 axes": lambda: (
        gk.init_by_lora_ga(W, gradients=W, rank=1, matrices="b")
    ),
    "params must have a leaf of two axes": lambda: (
        gk.init_by_singular_values({"b": W["b"]})
    ),
    "rank must be at most the smaller side of leaf w, 3, got 4": lambda: (
        gk.init_by_singular_values(W, rank=4)
    ),
    "bandwidth must be below the rank of leaf w, 2, got 2": lambda: (
        gk.init_by_singular_values(W, rank=2, bandwidth=2)
    ),
    "bandwidth must be a whole number of at least 0, got -1": lambda: (
        gk.init_by_singular_values(W, bandwidth=-1)
    ),
    "rho must be at least 1, got 0.5": lambda: (
        gk.init_by_eva(W, activations={"w": jnp.ones((9, 4))}, rho=0.5)
    ),
    "activations must be of one kernel or more": lambda: gk.init_by_eva(W, activations={}),
    "kernel b must have two axes, got shape (3,). Choose from ['w']": lambda: (
        gk.init_by_eva(W, activations={"b": jnp.ones((9, 3))})
    ),
    "activations must be by paths of parameters, got 'x'. Choose from ['w']": lambda: (
        gk.init_by_eva(W, activations={"x": jnp.ones((9, 3))})
    ),
    "activations must be arrays by path, got a dict at 'q'. Choose from ['q/kernel']": lambda: (
        gk.init_by_eva({"q": {"kernel": W["w"]}}, activations={"q": {"kernel": W["w"]}})
    ),
    "the inputs of w must be finite": lambda: (
        gk.init_by_eva(W, activations={"w": jnp.full((9, 4), jnp.inf)})
    ),
    "leaf w of params must be finite": lambda: (
        gk.init_by_singular_values({"w": jnp.full((4, 3), jnp.nan)})
    ),
    "the inputs of w must be [..., 4], of two rows or more": lambda: (
        gk.init_by_eva(W, activations={"w": jnp.ones((9, 3))})
    ),
    "activations must be known before tracing": lambda: (
        jax.jit(lambda x: gk.init_by_eva(W, activations={"w": x}).weights())(jnp.ones((9, 4)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_named(said):
    with pytest.raises((ValueError, TypeError)) as caught:
        REFUSED[said]()
    text = str(caught.value)
    assert text.startswith("gradkit.init_by_") and said in text, text
    assert text.endswith(".") or "static_args" in text
