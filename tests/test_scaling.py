"""The algebra of transfer: it gives every cell of the papers' tables, and its own laws hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.parametrization.scaling import (
    LAYOUTS,
    PLAIN,
    READOUT,
    derive,
    grown,
    kronecker,
)

N = 3.0  # the growth of every width; no power of 2, so that nothing is exact by luck
LAYERS = {  # from a width of 4 to one of 12, with inputs and outputs that stay
    "input": gk.Parameter((5, 12), (5, 4), "input", (0,), (1,)),
    "hidden": gk.Parameter((12, 12), (4, 4), "hidden", (0,), (1,)),
    "output": gk.Parameter((12, 2), (4, 2), "output", (0,), (1,)),
}
EVERETT = {  # Table 1: c of input, hidden, output; full alignment, then none
    ("standard", "adam"): ((0, 1, 1), (0, 1 / 2, 1 / 2)),
    ("ntk", "adam"): ((0, 1 / 2, 1 / 2), (0, 0, 0)),
    ("mup", "adam"): ((1 / 2, 1, 1 / 2), (1 / 2, 1 / 2, 0)),
    ("mean_field", "adam"): ((0, 1 / 2, 0), (0, 0, -1 / 2)),
    ("standard", "sgd"): ((-1 / 2, 1 / 2, 1), (-1 / 2, 0, 1 / 2)),
    ("ntk", "sgd"): ((-1 / 2, -1 / 2, 0), (-1 / 2, -1, -1 / 2)),
    ("mup", "sgd"): ((0, 0, 0), (0, -1 / 2, -1 / 2)),
    ("mean_field", "sgd"): ((-1, -1, -1), (-1, -3 / 2, -3 / 2)),
    ("standard", "adafactor"): ((0, 1 / 2, 1 / 2), (0, 0, 0)),
    ("ntk", "adafactor"): ((0, 1 / 2, 1 / 2), (0, 0, 0)),
    ("mup", "adafactor"): ((0, 1 / 2, 0), (0, 0, -1 / 2)),
    ("mean_field", "adafactor"): ((0, 1 / 2, 0), (0, 0, -1 / 2)),
}


def exponents(layout, optimizer, **options):
    """The power of `1 / N` that each layer's learning rate is multiplied by."""
    row = gk.OPTIMIZERS.get(optimizer, optimizer)
    rates = [grown(layout, p, row, **options).learning_rate for p in LAYERS.values()]
    return tuple(-np.log(rates) / np.log(N))


@pytest.mark.parametrize("table,optimizer", EVERETT)
def test_everett_table_1(table, optimizer):
    full, none = EVERETT[table, optimizer]
    layout = LAYOUTS[table]
    np.testing.assert_allclose(exponents(layout, optimizer), full, atol=1e-12)
    none_found = exponents(layout, optimizer, alignment=1 / 2)
    np.testing.assert_allclose(none_found, none, atol=1e-12)


@pytest.mark.parametrize("e_a,e_b", [(0, 0), (1, 1), (1, 0), (0.5, 0.5), (0.3, 0.8)])
def test_second_order_table(e_a, e_b):
    """SGD, K-FAC, one-sided K-FAC and Shampoo are its rows."""
    found = exponents(PLAIN, kronecker(e_a, e_b))
    np.testing.assert_allclose(found, (e_b - 1, e_b - e_a, 1 - e_a), atol=1e-12)


@pytest.mark.parametrize(
    "optimizer,c",
    [("sgd", (-1, 0, 1)), ("adam", (0, 1, 1)), ("spectral", (-1 / 2, 0, 1 / 2))],
)
def test_spectral_condition(optimizer, c):
    """In growth and in shape: fan_out / fan_in, 1 / fan_in, and the root of the first."""
    np.testing.assert_allclose(exponents(PLAIN, optimizer), c, atol=1e-12)
    large = gk.multipliers(gk.Parametrization(LAYERS), "spectral", optimizer)
    small = {k: p._replace(shape=p.base) for k, p in LAYERS.items()}
    before = gk.multipliers(gk.Parametrization(small), "spectral", optimizer)
    for (k, new), old, power in zip(large.items(), before.values(), c):
        assert new.learning_rate == pytest.approx(old.learning_rate * N**-power), k


@pytest.mark.parametrize("branch", [1 / 2, 0.7, 1.0])
def test_completep_table_1(branch):
    """Width m_N and depth m_L, as in the release's groups, with eps of the paper."""
    m_n, m_l = N, 5.0
    leaves = {
        "embedding": gk.Parameter((9, 12), (9, 4), "embedding", (0,), (1,)),
        "hidden": LAYERS["hidden"]._replace(depth=m_l),
        "bias": gk.Parameter((10, 12), (2, 4), "vector", (), (1,), (0,), depth=m_l),
        "final": gk.Parameter((12,), (4,), "vector", (), (0,)),
        "output": LAYERS["output"],
    }
    rule = functools.partial(gk.RULES["completep"], branch=branch)
    found = gk.multipliers(gk.Parametrization(leaves), rule)
    step, eps = m_l ** (branch - 1), m_n**-1 * m_l**-branch
    want = {  # init, forward, learning rate, weight decay, eps
        "embedding": (1, 1, 1, 1, 1 / m_n),
        "hidden": (m_n**-0.5, 1, step / m_n, m_n, eps),
        "bias": (1, 1, step, 0, eps),
        "final": (1, 1, 1, 0, 1 / m_n),
        "output": (1, 1 / m_n, 1, 1, 1 / m_n),
    }
    for k, row in want.items():
        np.testing.assert_allclose(found[k], row, rtol=1e-12, err_msg=k)


@pytest.mark.parametrize(
    "rule, layout",
    [
        ("mup", READOUT),
        ("second_order_mup", PLAIN),
        ("abc_mup", LAYOUTS["mup"]),
        *((table, LAYOUTS[table]) for table in ("standard", "ntk", "mean_field")),
    ],
)
def test_a_rule_without_depth_is_the_growth_in_its_layout(rule, layout):
    found = gk.multipliers(gk.Parametrization(LAYERS), rule, "sgd")
    for k, p in LAYERS.items():
        assert found[k] == grown(layout, p, gk.OPTIMIZERS["sgd"]), k


@pytest.mark.parametrize("rule", ["mup", "second_order_mup", "abc_mup", "mean_field"])
def test_a_tied_table_is_as_large_an_output_in_any_layout(rule):
    """And one row of it is looked up, however many there are."""
    tied = {"wte": gk.Parameter((9, 12), (9, 4), "tied", (0,), (1,))}
    found = gk.multipliers(gk.Parametrization(tied), rule)["wte"]
    assert found.init * found.forward == pytest.approx(1 / N, rel=1e-12)
    assert gk.multipliers(gk.Parametrization(tied), "spectral")["wte"].init == 1


L = 5.0  # the growth of the depth
GROWN = {  # the layers above, of which the hidden one is in a block
    "input": LAYERS["input"],
    "hidden": LAYERS["hidden"]._replace(depth=L),
    "bias": gk.Parameter((12,), (4,), "vector", (), (0,), depth=L),
    "output": LAYERS["output"],
}
STEPS = [  # method, what it is given, what it multiplies the update of each by
    ("transfer_by_mup", {}, (1, 1 / N, 1, 1)),
    ("transfer_by_mup", {"optimizer": "sgd"}, (N, 1, N, N)),
    ("transfer_by_depth_mup", {}, (1, N**-1 * L**-0.5, L**-0.5, 1)),
    ("transfer_by_depth_mup", {"optimizer": "sgd"}, (N, 1, N, N)),
    ("transfer_by_residual_scaling", {}, (N, N, N, N)),
    (
        "transfer_by_residual_scaling",
        {"optimizer": "adam"},
        (1, (N * L) ** -0.5, L**-0.5, 1),
    ),
    ("transfer_by_completep", {}, (1, 1 / N, 1, 1)),
    ("transfer_by_completep", {"branch": 0.5}, (1, N**-1 * L**-0.5, L**-0.5, 1)),
    ("transfer_by_completep", {"optimizer": "sgd"}, (N, L, N * L, N)),
    ("transfer_by_alignment", {}, (1, 1 / N, 1, 1 / N)),
    ("transfer_by_alignment", {"table": "mup"}, (N**-0.5, 1 / N, 1, N**-0.5)),
    ("transfer_by_alignment", {"alignment": 0.5}, (1, N**-0.5, 1, N**-0.5)),
    (
        "transfer_by_alignment",
        {"table": "ntk", "optimizer": "sgd"},
        (N**0.5, N**0.5, N**0.5, 1),
    ),
    ("transfer_by_spectral", {}, (1 / 5, 1 / 12, 1, 1 / 12)),
    ("transfer_by_spectral", {"optimizer": "sgd"}, (12 / 5, 1, 12, 2 / 12)),
    ("transfer_by_umup", {}, (5**-0.5, (12 * L) ** -0.5, L**-0.5, 1)),
    ("transfer_by_second_order_mup", {}, (1, 1, 1, 1)),
    (
        "transfer_by_second_order_mup",
        {"input_exponent": 0.5, "output_exponent": 0},
        (N, N**0.5, N, N**-0.5),
    ),
    ("transfer_by_learned_mup", {}, (1, 1 / 12, 1, 1)),
    ("transfer_by_structure", {}, (1, 1 / N, 1, 1)),
    ("transfer_by_structure", {"dense": {"d|s": 36}}, (1, 3, 1, 1)),
    ("transfer_by_gradient_scale", {}, (N, N, N, N)),
    (
        "transfer_by_gradient_scale",
        {"rule": "standard"},
        (N**0.5, N**0.5, N**0.5, 1),
    ),
]


@pytest.mark.parametrize("method, given, factors", STEPS)
def test_every_transform_multiplies_by_its_table(method, given, factors):
    """And says its own name where it meets a leaf that it does not know."""
    tx = getattr(gk, method)(gk.Parametrization(GROWN), **given)
    ones = {k: jnp.ones(p.shape) for k, p in GROWN.items()}
    updates, state = tx.update(ones, tx.init(ones))
    for k, factor in zip(GROWN, factors):
        np.testing.assert_allclose(updates[k], factor, rtol=1e-6, err_msg=k)
    with pytest.raises(ValueError, match=f"gradkit.{method}: leaf other must be in"):
        tx.update({"other": jnp.ones(2)}, state)


@pytest.mark.parametrize("given, hidden", [({}, 1), ({"branch": 0.5}, L**-0.5)])
def test_completep_decays_matrices_by_their_depth_and_not_their_width(given, hidden):
    tx = gk.decay_by_completep(gk.Parametrization(GROWN), **given)
    ones = {k: jnp.ones(p.shape) for k, p in GROWN.items()}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, ones), tx.init(ones), ones)
    for k, share in zip(GROWN, (1, hidden, 0, 1)):
        np.testing.assert_allclose(updates[k], -0.01 * share, rtol=1e-6, err_msg=k)
    with pytest.raises(ValueError, match="decay_by_completep: params must be passed"):
        tx.update(ones, tx.init(ones))


@pytest.mark.parametrize("theta", [-0.7, 0.3, 1.0])
@pytest.mark.parametrize(
    "optimizer,factor", [("sgd", 2), ("adam", 1), ("adafactor", 0)]
)
def test_a_constant_may_move_from_the_weight_to_its_multiplier(
    theta, optimizer, factor
):
    """(a, b, c) and (a + theta, b - theta, c - 2 theta) train alike; c - theta for Adam."""
    row, by = gk.OPTIMIZERS[optimizer], N**-theta
    plain = derive(row, (12, 12), 0.4, 0.3)
    moved = derive(row, (12, 12), 0.4 * by, 0.3 / by)
    want = plain.learning_rate * by**-factor
    assert moved.learning_rate == pytest.approx(want, rel=1e-12)


def relative(inner):
    """Steps relative to the parameter's root mean square, as Adafactor's."""

    def scale(u, p):
        return u * jnp.sqrt(jnp.mean(p**2))

    def update(updates, state, params):
        u, state = inner.update(updates, state, params)
        return jax.tree.map(scale, u, params), state

    return optax.GradientTransformation(inner.init, update)


def polar(g):
    """The nearest matrix whose singular values are 1."""
    u, _, v = jnp.linalg.svd(g, full_matrices=False)
    return u @ v


DIRECTIONS = {
    "sgd": optax.identity(),
    "adam": gk.scale_by_adam(eps=0.0),
    "sign": optax.stateless(lambda g, p: jax.tree.map(jnp.sign, g)),
    "atan2": gk.scale_by_adam_atan2(),
    "adafactor": relative(gk.scale_by_adam(eps=0.0)),
    "normalized": gk.normalize_by_block(),
    "spectral": optax.stateless(lambda g, p: jax.tree.map(polar, g)),
    "muon": gk.normalize_by_polar(eps=0.0),
}


def outputs(layout, optimizer, steps=4):
    """What a small network says after each step, its weights kept as `layout` has it."""
    found = {k: grown(layout, p, gk.OPTIMIZERS[optimizer]) for k, p in LAYERS.items()}
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(16, 5))), jnp.asarray(rng.normal(size=(16, 2)))
    draw = {k: jnp.asarray(rng.normal(size=p.shape)) / 2 for k, p in LAYERS.items()}
    params = {k: found[k].init * w for k, w in draw.items()}

    def network(params):
        w = {k: found[k].forward * p for k, p in params.items()}
        return jnp.tanh(jnp.tanh(x @ w["input"]) @ w["hidden"]) @ w["output"]

    rates = {k: m.learning_rate for k, m in found.items()}
    tx = optax.with_extra_args_support(DIRECTIONS[optimizer])
    gradient = jax.grad(lambda p: jnp.mean((network(p) - y) ** 2))

    @jax.jit
    def step(params, state):
        u, state = tx.update(gradient(params), state, params)
        new = {k: params[k] - 0.1 * rates[k] * u[k] for k in params}
        return new, state, network(new)

    state, seen = tx.init(params), []
    for _ in range(steps):
        params, state, said = step(params, state)
        seen.append(said)
    return np.stack(seen)


@pytest.mark.parametrize("optimizer", DIRECTIONS)
@pytest.mark.parametrize(
    "layouts",
    [
        (READOUT, PLAIN, LAYOUTS["mup"], LAYOUTS["mean_field"]),
        (LAYOUTS["standard"], LAYOUTS["ntk"]),
    ],
    ids=["mup", "standard"],
)
def test_layouts_of_one_class_train_alike(optimizer, layouts):
    """The symmetry, in training: each says the same after every step, in float64."""
    with jax.enable_x64(True):
        first, *others = (outputs(layout, optimizer) for layout in layouts)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-8, atol=1e-10)


def test_classes_differ():
    """The test above can fail: muP and the standard parametrization do not train alike."""
    mup, standard = outputs(READOUT, "sgd"), outputs(LAYOUTS["standard"], "sgd")
    assert np.max(np.abs(mup - standard)) > 1e-2
