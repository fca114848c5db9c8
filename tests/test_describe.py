"""What `gradkit.describe` and `gradkit describe` say of a transform is what JAX and XLA say."""

import functools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from typer.testing import CliRunner

import gradkit as gk
from gradkit.cli import app

PARAMS = {"kernel": jnp.ones((24, 16)), "bias": jnp.ones(16)}
HIDDEN = ["matrices/average_by_nesterov", "matrices/normalize_by_polar"]
STEP = ["step_by_learning_rate", "decay_by_weight"]


def negate() -> optax.GradientTransformation:
    return optax.GradientTransformation(
        lambda p: optax.EmptyState(),
        lambda g, s, p=None: (jax.tree.map(lambda x: -x, g), s),
    )


def joined() -> optax.GradientTransformation:
    return optax.chain(optax.clip(1.0), gk.lion(), negate())


def routed() -> optax.GradientTransformation:
    rest = gk.store_by_int8(optax.adam(1e-3), block=16)
    return gk.chain(
        gk.route(
            {"kernel": gk.chain(gk.scale_by_adam(), gk.scale_by_adam())}, default=rest
        ),
        gk.round_by_stochastic(),
    )


CASES = {
    "adamw": (lambda: gk.adamw(1e-3), ["scale_by_adam", *STEP]),
    "muon": (
        gk.muon,
        [*HIDDEN, *(f"matrices/{x}" for x in STEP), "adam/scale_by_adam"]
        + [f"adam/{x}" for x in STEP],
    ),
    "galore": (
        lambda: gk.galore(rank=4),
        ["matrices/project_by_svd", "adam/scale_by_adam", *STEP],
    ),
    "optax": (
        lambda: optax.adamw(1e-3),
        ["optax.scale_by_adam", "optax.add_decayed_weights", "optax.scale"],
    ),
    "joined": (
        joined,
        ["optax.clip", "lion/average_by_lion", *(f"lion/{x}" for x in STEP), "lambda"],
    ),
    "routed": (
        routed,
        [
            *("kernel/scale_by_adam", "kernel/scale_by_adam_2"),
            *("default/store_by_int8", "round_by_stochastic"),
        ],
    ),
    "lambda": (negate, ["lambda"]),
    "object": (lambda: optax.MultiSteps(optax.sgd(0.1), 2), ["optax.MultiSteps"]),
    "scheduled": (lambda: gk.adamw(1e-3, b2=lambda count: 0.9), ["adamw"]),
}


@functools.cache
def described(name: str) -> Any:
    with jax.numpy_dtype_promotion("standard"):
        return gk.describe(CASES[name][0](), PARAMS)


@pytest.mark.parametrize("name", CASES)
def test_parts_have_their_names_and_bytes(name: str):
    """Bytes are those of the arrays that live, and those of all parts are all."""
    found = described(name)
    assert [part.name for part in found.parts] == CASES[name][1]
    live = sum(x.nbytes for x in jax.tree.leaves(CASES[name][0]().init(PARAMS)))
    assert sum(part.state_bytes for part in found.parts) == live
    assert found.total.state_bytes == live
    assert found.total.bytes_a_parameter == live / (24 * 16 + 16)


@pytest.mark.parametrize("name", ["muon", "joined", "lambda"])
def test_the_total_is_what_xla_says_of_the_whole_update(name: str):
    tx = optax.with_extra_args_support(CASES[name][0]())
    update = jax.jit(lambda g, s, p: tx.update(g, s, p))
    cost: Any = update.lower(PARAMS, tx.init(PARAMS), PARAMS).compile().cost_analysis()
    total = described(name).total
    assert total.flops == cost["flops"] > 0
    assert total.bytes_accessed == cost["bytes accessed"] > 0
    assert total.compile_seconds > 0


def test_a_part_costs_what_it_costs_alone():
    """Where it is given the same: Adam first in a chain, and Muon's matrices in float32."""
    adam = described("adamw").parts[0]
    alone = gk.describe(gk.scale_by_adam(), PARAMS).total
    assert (adam.flops, adam.bytes_accessed) == (alone.flops, alone.bytes_accessed)
    kernel = {k: v for k, v in PARAMS.items() if k == "kernel"}
    polar = gk.describe(gk.normalize_by_polar(1e-7 / (1 - 0.95)), kernel).total
    assert described("muon").parts[1].flops == polar.flops


def test_parts_in_a_chain_get_float32():
    """As `gradkit.chain` widens parameters and gradients; what rounds gets bfloat16."""
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    (adam, _, decay), total = gk.describe(gk.adamw(1e-3), narrow)
    wide = described("adamw").parts[0]
    assert (adam.state_bytes, adam.flops) == (wide.state_bytes, wide.flops)
    assert decay.bytes_accessed == described("adamw").parts[2].bytes_accessed
    assert total.state_bytes == described("adamw").total.state_bytes
    (adam, _), _ = gk.describe(
        gk.chain(gk.scale_by_adam(), gk.round_by_kahan()), narrow
    )
    assert adam.flops == wide.flops


@pytest.mark.parametrize("chain", [gk.chain, optax.chain])
def test_a_part_gets_what_the_one_before_returns(chain: Any):
    """Updates in bfloat16 are read and written in half the bytes."""
    halved = lambda t: jax.tree.map(lambda x: x.astype(jnp.bfloat16), t)
    narrow = optax.stateless(lambda g, p: halved(g))
    first, last = gk.describe(chain(narrow, negate(), negate()), PARAMS).parts[1:]
    assert first.bytes_accessed == last.bytes_accessed
    alone = gk.describe(negate(), halved(PARAMS)).total
    assert last.bytes_accessed == alone.bytes_accessed < 6 * (24 * 16 + 16)


def test_parts_of_matrices_get_matrices():
    """A kernel of two heads is one square matrix, which has as many flops as that."""
    heads = {"attention": {"query": {"kernel": jnp.ones((16, 2, 8))}}}
    square = {"attention": {"query": {"kernel": jnp.ones((16, 16))}}}
    ours, want = (gk.describe(gk.muon(), p).parts for p in (heads, square))
    assert [x.name for x in ours] == [x.name for x in want]
    assert ours[1].flops == want[1].flops > 0


def test_needs_and_summaries_are_those_of_docstrings():
    adam, step, decay = described("adamw").parts
    assert adam.summary.startswith("Divide the EMA") and not adam.needs
    assert decay.needs.startswith("params, unless `weight_decay` is 0.")
    assert not described("optax").parts[0].summary
    text = str(described("muon"))
    assert text.count("scale_by_adam: Divide") == 1 and text.count("adam/scale") == 1
    assert len({line.find("  ") > 0 for line in text.split("\n\n")[0].split("\n")}) == 1
    assert step.name in str(described("adamw")) and "total" in text


def test_nothing_is_allocated():
    """Of a layer of 4 TB, by shapes alone: each of its two moments has as many bytes."""
    params = {"kernel": jax.ShapeDtypeStruct((2**20, 2**20), jnp.float32)}
    before = {id(x) for x in jax.live_arrays()}
    total = gk.describe(gk.scale_by_adam(), params).total
    assert total.state_bytes == 2 * 4 * 2**40 + 4
    assert not [x for x in jax.live_arrays() if id(x) not in before and x.size > 2**16]


def test_each_part_is_compiled_once(monkeypatch: pytest.MonkeyPatch):
    """And so is the whole, unless it is the only part."""
    compiled = []
    whole = jax.stages.Lowered.compile

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        compiled.append(self)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", counted)
    gk.describe(gk.lion(), PARAMS)
    assert len(compiled) == 4
    gk.describe(negate(), PARAMS)
    assert len(compiled) == 5


def test_extra_arguments_are_passed_on():
    tx = gk.chain(gk.scale_by_oasis(), gk.step_by_learning_rate(0.1))
    found = gk.describe(tx, PARAMS, hessian_diagonal=PARAMS)
    assert "hessian_diagonal" in found.parts[0].needs
    with pytest.raises(ValueError, match="hessian_diagonal must be passed"):
        gk.describe(tx, PARAMS)
    with pytest.raises(
        TypeError, match=r"gradkit.describe: tx must be a transform.*adamw\(\)"
    ):
        gk.describe(gk.adamw, PARAMS)


def test_describing_leaves_a_transform_as_it_was():
    tx, other = gk.muon(), gk.muon()
    gk.describe(tx, PARAMS)
    a, b = (t.update(PARAMS, t.init(PARAMS), PARAMS)[0] for t in (tx, other))
    assert jax.tree.all(jax.tree.map(lambda x, y: jnp.all(x == y), a, b))


@pytest.mark.parametrize(
    "call,shapes,said",
    [
        ("muno(0.02)", "a=8x8", "no method 'muno'. Did you mean muon?"),
        (
            "muon(rate=3)",
            "a=8x8",
            "'muon(rate=3)' makes no transform: gradkit.muon: got",
        ),
        ("muon(0.02", "a=8x8", "'muon(0.02' must read name(0.02, rank=8)"),
        ("muon(open('x'))", "a=8x8", "with numbers and strings alone."),
        ("muon(2)()", "a=8x8", "with numbers and strings alone."),
        ("muon(*[1])", "a=8x8", "with numbers and strings alone."),
        ("muon(-1.0)", "a=8x8", "learning_rate must be at least 0, got -1.0."),
        ("optax:adamw", "a=8x8", "missing 1 required positional argument"),
        ("optax:nope(1)", "a=8x8", "cannot load 'optax:nope'"),
        ("scale_by_oasis()", "a=8x8", "hessian_diagonal must be passed to update"),
        ("muon", "x8", "--shapes must read 6x4,3x5 or kernel=6x4,bias=4"),
        ("muon", "a=8x8,a=4", "--shapes must read"),
        ("muon", "a=8xb", "--shapes must read"),
    ],
)
def test_what_cannot_be_described_is_one_line(call: str, shapes: str, said: str):
    done = CliRunner().invoke(app, ["describe", call, "--shapes", shapes])
    assert done.exit_code == 2, done.output
    assert said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("call", ["lion(1e-3, b1=0.8)", "optax:lion(1e-3)", "lion"])
def test_the_command_prints_parts_and_total(call: str):
    done = CliRunner().invoke(
        app, ["describe", call, "--shapes", "kernel=64x32,bias=32"]
    )
    assert done.exit_code == 0, done.output
    lines = {x.split()[0]: x.split() for x in done.stdout.splitlines() if x.strip()}
    first = "optax.scale_by_lion" if "optax" in call else "average_by_lion"
    assert int(lines[first][1].replace(",", "")) >= 4 * (64 * 32 + 32)
    assert int(lines["total"][1].replace(",", "")) >= 4 * (64 * 32 + 32)
    assert ("average_by_lion: Replace each gradient" in done.stdout) != (
        "optax" in call
    )


def test_help_has_an_example():
    command = [sys.executable, "-m", "gradkit", "describe", "--help"]
    told = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert "gradkit describe 'muon(0.02)' --shapes kernel=4096x4096" in told.stdout
