"""The command line looks methods up, holds transforms to the laws, and speaks in one line."""

import functools
import importlib
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from typer.testing import CliRunner

import gradkit as gk
from gradkit import testing
from gradkit._lab import coords
from gradkit.catalogue import FAMILIES, METHODS
from gradkit.cli import app

MINE = """
import jax
import jax.numpy as jnp
import optax

def good(learning_rate=0.1):
    return optax.sgd(learning_rate)

def bad():
    return optax.GradientTransformation(
        lambda params: None, lambda g, s, p=None: (jax.tree.map(jnp.sum, g), s)
    )

def needs(something):
    return optax.sgd(something)

number = 3
"""


def run(*arguments: str, code: int = 0) -> str:
    """What a command says: on stdout if it ends well, else on stderr."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stdout if code < 2 else result.stderr


@pytest.mark.parametrize("command", ["list", "show", "check", "coords", "race"])
def test_every_command_helps(command):
    assert command in run("--help")
    assert "Usage:" in run(command, "--help")


def test_list_names_every_method_once():
    lines = run("list").splitlines()
    assert [line.split()[:2] for line in lines] == [[m.name, m.family] for m in METHODS]
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("family", FAMILIES)
def test_list_can_be_of_one_family_and_json(family):
    records = json.loads(run("list", "--family", family, "--json"))
    assert [r["name"] for r in records] == [
        m.name for m in METHODS if m.family == family
    ]
    assert all(r["summary"] and r["file"] and r["kind"] for r in records)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_show_says_all_that_the_docstring_says(method):
    page = run("show", method.name)
    assert page.startswith(f"{method.name}(")
    assert f"\nFile: {method.path} " in page
    for title in ("Paper", "Departure", "Limits"):
        assert f"\n{title}: " in page
    if method.kind in ("transform", "recipe"):
        assert " bytes a parameter." in page and "\nNeeds: " in page
    equations = page.partition("\nArgs:")[0].partition(")\n\n")[2]
    assert not set("$\\{}") & set(equations) and not re.search("frac\\b", equations)
    assert ">>>" not in page


def test_show_turns_equations_into_text():
    page = run("show", "scale_by_adam")
    assert "    m_t = b_1 m_(t-1) + (1 - b_1) g_t\n" in page
    assert "    u_t = (m_t / (1 - b_1^t)) / (sqrt(v_t / (1 - b_2^t)) + ε)\n" in page
    assert "In a 1024 x 1024 matrix: 8 bytes a parameter." in page
    page = run("show", "shrink_by_nonconvex")
    assert (
        "    p\u0302 = p + Δ\n    u = -p + (0 if |p\u0302| <= shrinkage;\n        sign"
        in page
    )


def test_looking_up_starts_no_device():
    command = [sys.executable, "-m", "gradkit.cli", "show", "adamw"]
    environment = os.environ | {"JAX_PLATFORMS": "none_such"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout.startswith(b"adamw(")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of a user's own in the current folder, held to few laws."""
    (tmp_path / "my_rules.py").write_text(MINE)
    (tmp_path / "my_broken.py").write_text("def")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rules", raising=False)
    few = functools.partial(testing.check, laws=["jit", "fixed_point"])
    monkeypatch.setattr(testing, "check", few)


def test_check_prints_the_matrix_and_fails_where_a_law_does(mine, monkeypatch):
    jax.devices()  # flags are read once: those below set nothing in this process
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    assert run("check", "my_rules:good").split() == [
        "jit",
        "pass",
        "fixed_point",
        "pass",
    ]
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[1:] == ["--xla_force_host_platform_device_count=8"]
    said = run("check", "my_rules:bad", code=1)
    assert "fail" in said and len(said.splitlines()) == 2


def test_check_takes_the_shapes_that_a_method_is_for(mine):
    polar = "gradkit:normalize_by_polar"
    assert "must have at least 2 axes" in run("check", polar, code=1)
    assert run("check", polar, "--shapes", "3x2,2x2x2").split().count("pass") == 2
    for shapes in "3x", "3x0", "a":
        said = run("check", polar, "--shapes", shapes, code=2)
        assert f"--shapes must read 6x4,3x5 or the like, got {shapes}." in said


@pytest.mark.parametrize(
    "spec, said",
    [
        ("my_rules", "must read package.module:factory"),
        ("my_rules:", "must read package.module:factory"),
        ("my_rules:nope", "cannot load 'my_rules:nope'"),
        ("my_nothing:nope", "No module named 'my_nothing'"),
        ("my_broken:nope", "cannot load 'my_broken:nope'"),
        ("my_rules:number", "must be a transform or a factory of one, got 3"),
        ("my_rules:needs", "makes no transform: gradkit.testing: argument 'something'"),
    ],
)
def test_check_refuses_what_is_no_transform(mine, spec, said):
    message = run("check", spec, code=2)
    assert said in message and message.startswith("gradkit: ")
    assert message.count("\n") == 1


def test_coords_measures_shows_and_draws(monkeypatch, tmp_path):
    """Two layers of equal entries, which compile sooner than the transformer."""

    def small(name, base, size, batch, start):
        first, last, other = (
            {"in": jnp.full((4, n), 0.1), "out": jnp.ones((n, 2))}
            for n in (base.width, size.width, 2 * base.width)
        )
        grew = gk.infer_parametrization(base=first, target=last, delta=other)
        output = gk.multipliers(grew)["out"].forward
        return gk.Trial(
            lambda key: gk.rescale_init(last, grew, first),
            lambda p, x: jnp.mean(output * jnp.tanh(x @ p["in"]) @ p["out"]),
            lambda rate: coords.PARAMETRIZATIONS[name].tx(grew, rate),
            lambda key: batch(key)[:, :4] / 100,
        )

    monkeypatch.setattr(coords, "trial", small)
    (tmp_path / "text").write_text("What is at hand. " * 9)
    files = "--data", str(tmp_path / "text"), "--out", str(tmp_path / "coords.png")
    said = run("coords", "--widths", "16,64", "--parametrization", "mup", *files)
    assert "mup, 5 updates, by width: every site passes" in said
    assert re.search(r"in +n\^[+-]0.00 ± 0.00 +n\^[+-]0.00 ± 0.00", said)
    assert (tmp_path / "coords.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "command, said",
    [
        (["show", "adamv"], "no method 'adamv'"),
        (["list", "--family", "adam"], "no family 'adam'. Choose from normalize, clip"),
    ],
)
def test_an_unknown_name_is_said_in_one_line(command, said):
    message = run(*command, code=2)
    assert said in message and message.count("\n") == 1


def test_without_the_lab_the_command_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "gradkit.cli")
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as left:
        importlib.import_module("gradkit.cli")
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said == 'gradkit: typer is not installed. Run pip install "gradkit[lab]".\n'


def test_without_a_part_of_the_lab_a_race_says_what_to_install(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("gradkit._lab.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("gradkit._lab.start", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    said = run("race", "--out", str(tmp_path / "out"), code=2)
    assert (
        said
        == 'gradkit: rich.console is not installed. Run pip install "gradkit[lab]".\n'
    )
    assert not (tmp_path / "out").exists()
