"""Powers of activations are right, and those of muP and CompleteP are flat."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import gradkit as gk
from gradkit._core.measure import fit
from gradkit._core.measure.coordinates import Coordinates
from gradkit._lab import coords
from gradkit.cli import app


def test_exponents_are_exact_on_power_laws():
    sizes = np.array([16, 32, 128])
    values = np.stack([3 * sizes**0.5, 7.0 / sizes, 0.0 * sizes], axis=1)
    np.testing.assert_allclose(fit.exponents(sizes, values), [0.5, -1, np.nan])


def test_students_interval():
    found = fit.mean(np.array([1.0, 2.0, 3.0]))
    assert found.value == 2.0
    np.testing.assert_allclose(found.high - 2.0, 4.302653 / 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(found.high + found.low, 4.0)


def linear(n: int, spread: float = 0.0) -> gk.Experiment:
    """One layer whose update by SGD grows as its number of inputs."""

    def init(key):
        noise = spread * jax.random.normal(jax.random.fold_in(key, n), ())
        return {"w": (1 + noise) * jnp.ones((n, 3))}

    def loss(p, x):
        return jnp.sum(x @ p["w"]) ** 2

    return gk.Experiment(init, loss, gk.sgd, lambda key: jnp.ones((1, n)))


def test_powers_table_and_failures():
    found = gk.check_coordinates(
        functools.partial(linear, spread=0.02), [2, 4, 8], 1e-4
    )
    assert found.activation.shape == found.change.shape == (3, 3, 6, 1)
    power = found.powers(1)["w"]
    np.testing.assert_allclose(power.activation.value, 1, atol=0.05)
    np.testing.assert_allclose(power.change.value, 2, atol=0.05)
    assert power.change.low < power.change.value < power.change.high
    assert found.failures() == {"w": "change grows"} and not found.ok()
    assert found.table().count("\n") == 1 and "change grows" in found.table()
    assert found.failures(step=0) == {"w": "does not move"}


def test_a_failure_says_what_goes_wrong():
    sizes = np.array([2.0, 4.0, 8.0])[:, None, None, None]
    powers = {"flat": (0, 0), "fades": (-1, 0), "small": (0, -1), "large": (1, 0)}
    grown = [sizes ** np.array([p[i] for p in powers.values()]) for i in (0, 1)]
    found = Coordinates((2, 4, 8), tuple(powers), *grown)
    assert found.failures() == {"small": "change vanishes", "large": "grows"}


def test_intervals_judge():
    """A site fails whose whole interval is beyond the threshold, and of one seed its power."""
    sizes = np.array([2.0, 4.0, 8.0])[:, None, None, None]
    powers = {  # of the change, seed by seed
        "sure": (0.3, 0.31, 0.29),
        "spans zero": (0.42, -0.18, 0.12),
        "spans the threshold": (-0.2, -0.16, -0.12),
        "surely vanishes": (-0.2, -0.21, -0.19),
    }
    change = sizes ** np.array([*powers.values()]).T[None, :, None]
    found = Coordinates((2, 4, 8), tuple(powers), np.ones_like(change), change)
    right = {"sure": "change grows", "surely vanishes": "change vanishes"}
    assert found.failures() == right
    assert found.table().count("more seeds would tell") == 2
    assert {*found.failures(tolerance=0.25)} == {"sure"}
    one = found._replace(activation=change[:, :1], change=np.ones_like(change[:, :1]))
    assert one.failures() == {"sure": "grows", "spans zero": "grows"}
    assert "more seeds" not in one.table()


def test_a_failure_tells_of_zeros_at_the_start():
    sizes = np.array([2.0, 4.0, 8.0])[:, None, None]
    shape = (3, 1, 2, 3)
    activation, change = np.ones(shape), np.ones(shape)
    change[..., 0], change[..., 1] = 0, sizes**-1
    activation[:, :, 0, 1] = 0
    found = Coordinates((2, 4, 8), ("key", "query", "head"), activation, change)
    assert found.failures() == {
        "key": "does not move (below query, which starts at zero)",
        "query": "change vanishes (starts at zero)",
    }


def shallow(kind: str, n: int) -> gk.Experiment:
    """A readout in muP: a product, beside one that nothing uses; or an unscaled sum."""

    def init(key):
        x, y = (jax.random.normal(key, shape) for shape in ((8, n), (n,)))
        return {"a": x / 8**0.5, "v": y / 32**0.5}

    def loss(p, batch):
        h = jnp.tanh(batch[0] @ p["a"])
        unused = h @ p["v"]
        out = unused * 32 / n if kind == "scaled" else jnp.sum(h * p["v"][None], -1)
        return jnp.mean((out - batch[1]) ** 2)

    def batch(key):
        x, y = jax.random.split(key)
        return jax.random.normal(x, (16, 8)), jax.random.normal(y, (16,))

    adam = functools.partial(gk.adamw, weight_decay=0.0)
    return gk.Experiment(init, loss, adam, batch)


@pytest.mark.parametrize(
    "kind, failures", [("scaled", {}), ("sum", {"v": "change grows"})]
)
def test_a_readout_as_a_sum_is_judged_and_what_is_unused_is_not(kind, failures):
    make = functools.partial(shallow, kind)
    found = gk.check_coordinates(make, [32, 256], 2**-8, steps=1)
    assert found.sites == ("a", "v")
    assert found.failures() == failures


def test_what_diverges_does_not_pass():
    found = gk.check_coordinates(linear, [2, 4], 1e30, steps=3)
    assert found.failures() == {"w": "diverges"} and "diverges" in found.table()


def test_messages():
    with pytest.raises(ValueError, match="sizes must be at least two, got \\[4\\]"):
        gk.check_coordinates(linear, [4], 0.1)

    def deep(layers: int) -> gk.Experiment:
        return gk.Experiment(
            lambda key: [jnp.eye(2)] * layers,
            lambda p, x: jnp.sum(functools.reduce(jnp.matmul, p, x)),
            gk.sgd,
            lambda key: jnp.ones((1, 2)),
        )

    with pytest.raises(ValueError, match=r"same names at every size.*'1'"):
        gk.check_coordinates(deep, [1, 2], 0.1)
    last = lambda layers, site: "last" if int(site) == layers - 1 else None
    found = gk.check_coordinates(deep, [1, 2], 0.1, steps=1, seeds=1, rename=last)
    assert found.sites == ("last",)


@pytest.fixture(scope="module")
def transformers():
    """What activations of the built-in transformer do over the width."""
    random = np.random.default_rng(0)
    words = [
        bytes(random.integers(97, 123, size=n)) for n in random.integers(1, 9, 200)
    ]
    chosen = random.zipf(1.5, size=9999) % len(words)
    text = b" ".join(words[i] for i in chosen)
    data = jnp.asarray(np.frombuffer(text, np.uint8))

    @functools.cache
    def found(name: str) -> Any:
        plan = coords.plan("bytes", name, "32,128", "1", steps=5, seeds=4)
        return coords.measure(plan, name, data, Console(quiet=True))

    return found


@pytest.mark.parametrize(
    "name", ["mup", pytest.param("spectral", marks=pytest.mark.slow)]
)
def test_every_activation_of_a_transformer_is_flat_over_the_width(transformers, name):
    """No interval excludes it; at widths this small a single power may still be off."""
    powers = transformers(name).powers()
    assert len(powers) == 12
    for site, (activation, change) in powers.items():
        assert activation.low < 0.1, site
        assert change.low < 0.1 and change.high > -0.1, site
    assert np.median([abs(power.change.value) for power in powers.values()]) < 0.1


@pytest.mark.slow
def test_the_standard_parametrization_is_not(transformers):
    powers = transformers("sp").powers()
    assert powers["head/kernel"].change.low > 0.1
    assert powers["blocks/0/query/kernel"].change.low > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mup", "sp"])
def test_the_built_in_model_passes_in_mup_alone(name):
    """Over widths that are not below the number of directions in its batch."""
    plan = coords.plan("bytes", name, "64,128,256", "2", steps=5, seeds=8)
    found = coords.measure(plan, name, coords.text_data(None), Console(quiet=True))
    assert found.ok() == (name == "mup"), found.table()


def over_the_depth(name: str, seeds: int) -> Any:
    """What activations of the built-in transformer do in the parametrization `name`."""
    plan = coords.plan("bytes", name, "64", "2,4,8,16", steps=5, seeds=seeds)
    return coords.measure(plan, name, coords.text_data(None), Console(quiet=True))


@pytest.mark.slow
def test_every_activation_of_a_transformer_is_flat_over_the_depth():
    """Those of the first block, which sees the same in all, to a power of 0.01."""
    found = over_the_depth("completep", 8)
    assert len(found.sites) == 21
    assert found.ok(), found.table()
    first = {s: p for s, p in found.powers().items() if s.startswith("first block")}
    assert len(first) == 8
    for site, (_, change) in first.items():
        assert abs(change.value) < 0.01 or "/up/" in site, found.table()


@pytest.mark.slow
def test_it_is_not_by_the_standard_parametrization():
    failures = over_the_depth("sp", 4).failures()
    assert {"+ half way", "+ last block", "head/kernel"} < failures.keys()


def residual(name: str, layers: int) -> gk.Experiment:
    """A scanned residual network; what a block adds is divided by the depth."""
    rules = {"completep": gk.transfer_by_completep, "mup": gk.transfer_by_mup}
    branch = 4 / layers if name == "completep" else 1.0

    def init(layers, width, key=None):
        keys = jax.random.split(jax.random.key(0) if key is None else key, 3)
        return {  # what blocks add is learned: there is no random part that fades
            "first": jax.random.normal(keys[0], (8, width)) * 8**-0.5,
            "layers": jnp.zeros((layers, width, width)),
            "last": jax.random.normal(keys[2], (width, 4)) * width**-0.5,
        }

    def apply(params, x):
        def block(x, w):
            h = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True))
            return x + branch * (jax.nn.relu(h) @ w), None

        return (
            jax.lax.scan(block, x @ params["first"], params["layers"])[0]
            @ params["last"]
        )

    base = {"layers": 4, "width": 16}
    grew = gk.infer_parametrization(
        init,
        base=base,
        target=base | {"layers": layers},
        delta=base | {"width": 32},
        apply=apply,
        example=jnp.zeros((1, 8)),
    )
    return gk.Experiment(
        lambda key: init(layers, 16, key),
        lambda params, x: jnp.mean((apply(params, x) - x[:, :4]) ** 2),
        lambda rate: gk.chain(gk.adamw(rate, weight_decay=0.0), rules[name](grew)),
        lambda key: jax.random.normal(key, (32, 8)),
    )


@pytest.mark.parametrize("name, flat", [("completep", True), ("mup", False)])
def test_completep_is_flat_over_the_depth(name, flat):
    make = functools.partial(residual, name)
    added = {"layers"} if name == "completep" else {}
    scale = lambda layers, site: layers / 4 if site in added else 1.0
    found = gk.check_coordinates(make, [4, 32], 2**-11, seeds=4, scale=scale)
    assert found.sites == ("first", "layers", "+ layers", "last")
    assert found.ok() == flat, found.table()


def test_over_depths_what_is_at_the_same_share_of_the_depth_is_compared():
    plan = coords.plan("bytes", "completep", "64", "2,4", steps=1, seeds=1)
    shared = {
        "head/kernel": "head/kernel",
        "+ blocks/1/down/kernel": "+ half way",
        "+ blocks/3/down/kernel": "+ last block",
        "+ blocks/0/down/kernel": None,
        "+ blocks/0/out/kernel": None,
        "+ blocks/2/out/kernel": "+ middle block/out/kernel",
        "blocks/0/out/kernel": "first block/out/kernel",
        "blocks/1/out/kernel": None,
        "blocks/0/query/kernel · key/kernel": "first block/query/kernel · key/kernel",
        "blocks/2/value/kernel": "middle block/value/kernel",
        "blocks/2/up/kernel": "middle block/up/kernel",
        "blocks/3/key/kernel": None,
    }
    assert {site: plan.rename(4, site) for site in shared} == shared
    scale = functools.partial(plan.scale, "completep", 4)
    assert scale("blocks/3/out/kernel") == scale("blocks/0/down/kernel") == 2
    assert scale("+ blocks/3/out/kernel") == scale("blocks/0/up/kernel") == 1
    assert plan.scale("sp", 4, "blocks/3/out/kernel") == 1
    odd = coords.plan("bytes", "completep", "64", "2,3", steps=1, seeds=1)
    assert odd.rename(3, "+ blocks/0/down/kernel") is None
    assert odd.rename(3, "+ blocks/2/down/kernel") == "+ last block"


@pytest.fixture
def measured(monkeypatch):
    """The command line, with what it would measure at hand: sp fails, all others pass."""

    def measure(plan, name, data, screen):
        screen.print(f"measured {name}")
        sizes = np.asarray(plan.sizes, float)[:, None, None, None]
        grown = np.broadcast_to(sizes ** float(name == "sp"), (len(sizes), 2, 3, 1))
        return Coordinates(plan.sizes, ("head",), grown, grown)

    monkeypatch.setattr(coords, "measure", measure)
    return functools.partial(CliRunner().invoke, app)


def test_the_command_shows_draws_and_fails_where_a_parametrization_does(
    measured, tmp_path
):
    picture = tmp_path / "coords.png"
    passes = measured(["coords", "--parametrization", "mup", "--out", str(picture)])
    assert passes.exit_code == 0, passes.output
    assert "mup, 5 updates, by width: every site passes" in passes.stdout
    assert "n^+0.00 ± 0.00" in passes.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    fails = measured(["coords", "--depths", "2,4"])
    assert fails.exit_code == 1
    assert "sp, 5 updates, by layers: 1 of 1 sites fail" in fails.stdout
    assert "n^+1.00 ± 0.00  change grows" in fails.stdout


@pytest.mark.parametrize(
    "typed, said",
    [
        ("--widths 32,64 --depths 2,4", "either --widths or --depths must be several"),
        ("--widths 32", "either --widths or --depths must be several numbers"),
        ("--widths 20,40", "--widths must be multiples of 16, got 20,40"),
        ("--widths 32,x", "--widths must be different whole numbers above 0"),
        (
            "--parametrization mu",
            "no parametrization 'mu'. Did you mean mup? Choose from sp, mup",
        ),
        ("--task digits", "no task of several sizes 'digits'. Choose from bytes."),
        ("--steps 0", "--steps must be above 0, got 0"),
        ("--data nowhere", "no data at nowhere"),
    ],
)
def test_the_command_says_what_it_cannot_do(measured, typed, said):
    result = measured(["coords", *typed.split()])
    assert result.exit_code == 2
    assert said in result.stderr and result.stderr.count("\n") == 1
