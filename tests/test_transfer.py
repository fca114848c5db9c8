"""Transfer against the releases' own numbers, its laws in training, and its errors."""

import dataclasses
import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

TABLE = json.loads((pathlib.Path(__file__).parent / "golden/mup_mlp.json").read_text())
SQUARE = gk.Parameter((8, 8), (2, 2), "hidden", (0,), (1,))


def shapes(key: str) -> dict[str, jax.ShapeDtypeStruct]:
    """The table's parameters in JAX's [in, out] layout."""
    return {
        row["param"]: jax.ShapeDtypeStruct(tuple(reversed(row[key])), jnp.float32)
        for row in TABLE["rows"]
    }


def mlp() -> gk.Parametrization:
    """The growth of the recorded model."""
    return gk.infer_parametrization(
        base=shapes("base_torch_shape"), target=shapes("torch_shape")
    )


def message(action) -> str:
    """The text of the error that `action` raises."""
    with pytest.raises(ValueError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_multipliers_are_those_of_mup(optimizer):
    """Learning rate and decay of both optimizers; initial size and multiplier of the model."""
    tx = gk.transfer_by_mup(mlp(), optimizer=optimizer)
    ones = {k: jnp.ones(s.shape, s.dtype) for k, s in shapes("torch_shape").items()}
    updates, _ = tx.update(ones, tx.init(ones))
    found = gk.multipliers(mlp(), "mup", optimizer)
    columns = {
        "learning_rate": f"{optimizer}_lr_mult",
        "weight_decay": f"{optimizer}_weight_decay_mult",
        "init": "default_init_std_target_over_base",
        "forward": "forward_output_mult",
    }
    for row in TABLE["rows"]:
        name = row["param"]
        assert jnp.allclose(updates[name], row[columns["learning_rate"]], rtol=1e-6), (
            name
        )
        for column, key in columns.items():
            got = getattr(found[name], column)
            assert got == pytest.approx(row[key], rel=1e-6), (name, column)


@pytest.mark.parametrize("kind", ["low_rank", "monarch", "kronecker", "btt"])
def test_factors_are_as_in_compute_better_spent(kind):
    """The release's lr_mult and initial size, of a layer from 16 to 36, its base from 8."""
    factors = {  # shape, axes summed over, axes of blocks
        "low_rank": [((16, 4), (0,), ()), ((4, 36), (0,), ())],
        "monarch": [((4, 9, 4), (2,), (0,)), ((4, 9, 9), (2,), (0,))],
        "kronecker": [((1, 4, 6, 2), (0, 1), ()), ((2, 4, 6, 1), (0, 1), ())],
        "btt": [((4, 4, 12), (1,), (0,)), ((6, 8, 6), (1,), (0,))],
    }[kind]
    leaves, want = {}, {}
    for i, (shape, inputs, stacks) in enumerate(factors):
        outputs = tuple(set(range(len(shape))) - set(inputs) - set(stacks))
        path = f"layer/{i}"
        leaves[path] = gk.Parameter(shape, shape, "hidden", inputs, outputs, stacks)
        d_in = math.prod(shape[axis] for axis in inputs)
        d_out = math.prod(shape[axis] for axis in outputs)
        std = np.sqrt(1 / d_in) * min(1, np.sqrt(d_out / d_in))
        want[path] = (16 / d_in / 2) * (8 / 16), std
    found = gk.Parametrization(leaves)
    tx = gk.transfer_by_structure(found, dense={"layer": 8})
    ones = {k: jnp.ones(p.shape) for k, p in leaves.items()}
    updates, _ = tx.update(ones, tx.init(ones))
    initial = gk.rescale_init(ones, found, rule="spectral")
    for path, (rate, std) in want.items():
        np.testing.assert_allclose(updates[path], rate, rtol=1e-6)
        np.testing.assert_allclose(initial[path], std, rtol=1e-6)


def test_experts_and_their_router():
    """Three-axis kernels, whose axis of experts is neither summed over nor produced."""
    leaves = {
        "up": gk.Parameter((4, 8, 8), (4, 2, 4), "expert", (1,), (2,), (0,)),
        "router": gk.Parameter((8, 4), (2, 4), "router", (0,), (1,)),
    }
    grew = gk.Parametrization(leaves)
    found = gk.multipliers(grew)
    np.testing.assert_allclose(found["up"][:3], (1 / 2, 1, 1 / 4))
    np.testing.assert_allclose(found["router"][:3], (1, 1 / 4, 1))
    assert gk.multipliers(grew, "umup")["router"].forward == 1 / 8
    ones = {path: jnp.ones(p.shape) for path, p in leaves.items()}
    for make, factor in [
        (gk.transfer_by_expert_mup, 1 / 4),
        (gk.transfer_by_learned_mup, 1 / 8),
    ]:
        updates, _ = make(grew).update(ones, make(grew).init(ones))
        np.testing.assert_allclose(updates["up"], factor)
        np.testing.assert_allclose(updates["router"], 1)


@pytest.mark.parametrize(
    "of, refused",
    [
        (dict(shape=(8, 4, 4), base=(4, 2, 2)), True),  # twice the experts
        (dict(shape=(4, 4, 4), base=(4, 2, 2)), False),
        (dict(shape=(4, 4, 4), base=(4, 2, 2), depth=3.0), False),  # in a list
        (dict(shape=(6, 4, 4), base=(2, 2, 2), depth=3.0), False),  # layers of experts
        (dict(shape=(6, 4, 4), base=(2, 2, 2), role="hidden"), False),  # of heads
        (dict(shape=(4, 8), base=(2, 4), role="router", stacks=()), True),
    ],
)
def test_more_experts_have_no_rule(of, refused):
    axes = dict(inputs=(0,), outputs=(1,)) if of.get("role") == "router" else {}
    fixed = dict(role="expert", inputs=(1,), outputs=(2,), stacks=(0,)) | axes
    router = gk.Parameter((4, 4), (2, 4), "router", (0,), (1,))
    leaves = {"moe/router": router, "moe/up": gk.Parameter(**(fixed | of))}
    grew = gk.Parametrization(leaves)
    if refused:
        text = message(lambda: gk.transfer_by_expert_mup(grew))
        assert text.startswith(
            "gradkit.transfer_by_expert_mup: leaf moe/up must have as"
        )
    else:
        gk.transfer_by_expert_mup(grew)


def test_schedules_cannot_clobber_the_multiplier():
    """The same factor at every learning rate, since it stands after the schedule."""
    grew = gk.Parametrization({"w": SQUARE})
    plain = gk.adamw(gk.schedule_by_linear_decay(1.0, steps=4), weight_decay=0.0)
    wide = gk.chain(plain, gk.transfer_by_mup(grew))
    params = {"w": jnp.ones((8, 8))}
    states = plain.init(params), wide.init(params)
    for _ in range(3):
        u, s = plain.update(params, states[0], params)
        v, r = wide.update(params, states[1], params)
        states = s, r
        assert jnp.allclose(v["w"], u["w"] / 4)


@pytest.mark.parametrize("first,share", [("transfer", 0.1), ("decay", 0.025)])
def test_the_order_in_a_chain_is_the_policy_of_decay(first, share):
    """After the transfer a decay is the same at any width; before it, it is multiplied too."""
    transfer = gk.transfer_by_mup(gk.Parametrization({"w": SQUARE}))
    decay = gk.decay_by_weight(0.1)
    steps = (transfer, decay) if first == "transfer" else (decay, transfer)
    params, none = {"w": jnp.ones((8, 8))}, {"w": jnp.zeros((8, 8))}
    tx = gk.chain(*steps)
    updates, _ = tx.update(none, tx.init(params), params)
    assert jnp.allclose(updates["w"], -share)


@pytest.mark.parametrize("rule", ["mup", "standard", "mean_field", "second_order_mup"])
def test_initial_sizes_are_the_base_s_times_the_multiplier(rule):
    rng = np.random.default_rng(0)
    draw = lambda key: {
        k: jnp.asarray(rng.normal(size=s.shape), jnp.float32)
        for k, s in shapes(key).items()
    }
    base, params, grew = draw("base_torch_shape"), draw("torch_shape"), mlp()
    base["fc1.bias"], params["fc1.bias"] = jnp.ones(64), jnp.ones(256)  # as a gain
    base["fc2.bias"] = jnp.zeros(64)
    size = lambda x: np.sqrt(np.mean(np.asarray(x, np.float64) ** 2))
    once = jax.jit(lambda p: gk.rescale_init(p, grew, base, rule))(params)
    twice = gk.rescale_init(once, grew, base, rule)
    numbers = gk.rescale_init(params, grew, jax.tree.map(size, base), rule)
    for k, m in gk.multipliers(grew, rule).items():
        np.testing.assert_allclose(size(once[k]), m.init * size(base[k]), rtol=1e-6)
        np.testing.assert_allclose(twice[k], once[k], rtol=1e-6)
        np.testing.assert_allclose(numbers[k], once[k], rtol=1e-6)
        if rule == "mup" and k == "fc1.bias":
            np.testing.assert_allclose(once[k], 1, rtol=1e-6)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    weight: jax.Array
    width: int = dataclasses.field(metadata={"static": True})


def test_initial_sizes_are_found_by_path():
    """Modules differ in what is static, and deep models have more layers."""

    def init(width, layers):
        weights = [jnp.full((width, width), 3.0 + i) for i in range(layers)]
        blocks = [Linear(w, width) for w in weights]
        return {"blocks": blocks, "turns": jnp.arange(3)}

    base, target = {"width": 2, "layers": 2}, {"width": 8, "layers": 3}
    grew = gk.infer_parametrization(init, base=base, target=target)
    found = gk.rescale_init(init(**target), grew, init(**base))
    of = [float(block.weight[0, 0]) for block in found["blocks"]]
    np.testing.assert_allclose(of, [1.5, 2.0, 1.5], rtol=1e-6)
    assert found["turns"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="rescale_init: params and base must have the"):
        gk.rescale_init(init(**target), grew, {"blocks": []})


def test_leaves_of_zeros_stay_zeros_and_dtypes_stay():
    zeros = {"w": jnp.zeros((8, 8), jnp.bfloat16)}
    found = gk.rescale_init(zeros, gk.Parametrization({"w": SQUARE}), {"w": 1})
    assert not jnp.any(found["w"]) and found["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(64, 64), (16, 256), (256, 16)])
def test_the_spectral_condition_holds(shape):
    """Weights and updates have spectral norms near sqrt(fan_out / fan_in)."""
    one = gk.Parametrization({"w": gk.Parameter(shape, shape, "hidden", (0,), (1,))})
    rng = np.random.default_rng(0)
    draw = {"w": jnp.asarray(rng.normal(size=shape), jnp.float32)}
    sign = {"w": jnp.sign(jnp.outer(draw["w"][:, 0], draw["w"][0]))}
    weights = gk.rescale_init(draw, one, rule="spectral")
    tx = gk.transfer_by_spectral(one)
    updates, _ = tx.update(sign, tx.init(sign))
    wanted = (shape[1] / shape[0]) ** 0.5
    assert 0.9 < jnp.linalg.norm(weights["w"], 2) / wanted < 2.1
    assert jnp.linalg.norm(updates["w"], 2) / wanted == pytest.approx(1, rel=1e-4)


def movement(width: int, optimizer: str, rule: str | None) -> np.ndarray:
    """How far hidden features and outputs of a network move in three steps."""
    n, base = width, 16
    sizes = {
        "in": gk.Parameter((5, n), (5, base), "input", (0,), (1,)),
        "hidden": gk.Parameter((n, n), (base, base), "hidden", (0,), (1,)),
        "out": gk.Parameter((n, 1), (base, 1), "output", (0,), (1,)),
    }
    grew = gk.Parametrization(sizes)
    found = gk.multipliers(grew, rule or "standard", optimizer)
    std = {"in": 1.0, "hidden": base**-0.5, "out": base**-0.5}

    def network(params, x):
        w = {k: found[k].forward * p for k, p in params.items()}
        hidden = jnp.tanh(x @ w["in"]) @ w["hidden"]
        return jnp.tanh(hidden), jnp.tanh(hidden) @ w["out"]

    size = lambda x: jnp.sqrt(jnp.mean(x**2))
    polar = lambda g: jnp.linalg.svd(g, full_matrices=False)
    direct = {
        "sgd": lambda g: g,
        "adam": jnp.sign,
        "spectral": lambda g: polar(g)[0] @ polar(g)[2],
    }[optimizer]

    @jax.jit
    def run(key):
        keys = dict(zip(std, jax.random.split(key, 3)))
        params = {
            k: found[k].init * std[k] * jax.random.normal(keys[k], s.shape)
            for k, s in sizes.items()
        }
        x, y = jax.random.normal(key, (8, 5)), jnp.ones((8, 1))
        loss = lambda p: jnp.mean((network(p, x)[1] - y) ** 2)
        rate = {k: 0.02 * (found[k].learning_rate if rule else 1) for k in params}

        def step(_, p):
            g = jax.grad(loss)(p)
            return {k: p[k] - rate[k] * direct(g[k]) for k in p}

        before = network(params, x)
        after = network(jax.lax.fori_loop(0, 3, step, params), x)
        return jnp.stack([size(b - a) for a, b in zip(before, after)])

    return np.mean([run(jax.random.key(i)) for i in range(4)], axis=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "spectral"])
def test_features_move_as_far_at_any_width(optimizer):
    """From width 16 to 128, under muP; not with one learning rate in the standard form."""
    ratio = lambda rule: movement(128, optimizer, rule) / movement(16, optimizer, rule)
    with jax.numpy_dtype_promotion("standard"):
        mup, plain = ratio("mup"), ratio(None)
    assert np.all((mup > 0.6) & (mup < 1.6)), mup
    assert not np.all((plain > 0.6) & (plain < 1.6)), plain


def test_errors_name_the_leaf_and_what_to_do():
    tied = gk.Parametrization({"wte": SQUARE._replace(role="tied")})
    plain = gk.Parametrization({"w": SQUARE})
    for make in (gk.transfer_by_umup, gk.transfer_by_alignment):
        text = message(functools.partial(make, tied))
        assert text.startswith(f"gradkit.{make.__name__}: leaf wte must have a role")
        assert "got role 'tied'" in text and text.endswith("or use transfer_by_mup.")
    text = message(lambda: gk.transfer_by_umup(plain, optimizer="muon"))
    assert "leaf w must have" in text and "optimizer 'muon'" in text
    text = message(lambda: gk.transfer_by_mup(plain, optimizer="adamw"))
    assert "optimizer must be one of sgd, adam" in text and "got 'adamw'" in text
    text = message(lambda: gk.transfer_by_alignment(plain, table="sp"))
    assert "table must be one of standard, ntk" in text and "got 'sp'" in text
    text = message(lambda: gk.multipliers(plain, "mu"))
    assert "gradkit.multipliers: rule must be one of mup" in text
    text = message(lambda: gk.transfer_by_expert_mup(plain))
    assert "must have experts or a router, got ['hidden']" in text
    text = message(lambda: gk.rescale_init({"w": jnp.ones((8, 8))}, plain))
    assert "base must be given" in text
    text = message(lambda: gk.rescale_init({"v": jnp.ones(2)}, plain, {"v": 1.0}))
    assert "leaf v must be in the parametrization" in text
    tx = gk.transfer_by_mup(plain)
    text = message(lambda: tx.update({"v": jnp.ones(2)}, optax.EmptyState()))
    assert "gradkit.transfer_by_mup: leaf v must be in the parametrization" in text


def test_completep_is_adamw_with_the_paper_s_groups():
    """Learning rate, weight decay and eps of each group, in torch's AdamW, step by step."""
    rate, decay, b1, b2, eps, branch = 0.1, 0.3, 0.9, 0.99, 1e-2, 0.75
    m_n, m_l = 3.0, 5.0
    groups = {  # parameter: its lr_scale, weight_decay and eps, as multiples
        "embedding": (1, 1, 1 / m_n),
        "hidden": (m_l ** (branch - 1) / m_n, m_n, m_l**-branch / m_n),
        "gain": (m_l ** (branch - 1), 0, m_l**-branch / m_n),
        "final": (1, 0, 1 / m_n),
    }
    leaves = {
        "embedding": gk.Parameter((7, 12), (7, 4), "embedding", (0,), (1,)),
        "hidden": gk.Parameter((12, 12), (4, 4), "hidden", (0,), (1,), depth=m_l),
        "gain": gk.Parameter((12,), (4,), "vector", (), (0,), depth=m_l),
        "final": gk.Parameter((12,), (4,), "vector", (), (0,)),
    }
    grew = gk.Parametrization(leaves)
    tx = gk.chain(
        gk.transfer_by_gradient_scale(
            grew, rule=functools.partial(gk.RULES["completep"], branch=branch)
        ),
        gk.scale_by_adam(b1, b2=b2, eps=eps),
        gk.step_by_learning_rate(rate),
        gk.transfer_by_completep(grew, branch=branch),
        gk.decay_by_completep(grew, weight_decay=rate * decay, branch=branch),
    )
    rng = np.random.default_rng(0)
    p = {k: rng.normal(size=leaf.shape) for k, leaf in leaves.items()}
    m, v = ({k: np.zeros_like(x) for k, x in p.items()} for _ in range(2))
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, p)
        state = tx.init(params)
        for t in range(1, 6):
            g = {k: 1e-2 * rng.normal(size=x.shape) for k, x in p.items()}
            updates, state = tx.update(jax.tree.map(jnp.asarray, g), state, params)
            params = gk.apply_updates(params, updates)
            for k, (lr, wd, e) in groups.items():
                p[k] = p[k] * (1 - rate * lr * decay * wd)
                m[k] = b1 * m[k] + (1 - b1) * g[k]
                v[k] = b2 * v[k] + (1 - b2) * g[k] ** 2
                root = np.sqrt(v[k] / (1 - b2**t)) + eps * e
                p[k] = p[k] - rate * lr * m[k] / (1 - b1**t) / root
                np.testing.assert_allclose(params[k], p[k], rtol=1e-10, err_msg=k)
