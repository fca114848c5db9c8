"""The command line looks methods up, holds transforms to the laws, and speaks in one line."""

import functools
import importlib
import importlib.metadata
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from typer.testing import CliRunner

import gradkit as gk
from gradkit import testing
from gradkit._lab import coords, describe
from gradkit.catalogue import FAMILIES, METHODS
from gradkit.cli import app
from gradkit.glossary import TERMS

MINE = """
import sys

import jax
import jax.numpy as jnp
import optax
from flax import nnx

def good(learning_rate=0.1):
    return optax.sgd(learning_rate)

def bad():
    return optax.GradientTransformation(
        lambda params: None, lambda g, s, p=None: (jax.tree.map(jnp.sum, g), s)
    )

def needs(something):
    return optax.sgd(something)

def quits():
    sys.exit(0)

def raises():
    raise RuntimeError("one\\ntwo")

def three():
    return 3

def lazy():
    import my_helper
    return my_helper.rule()

def stale():
    def update(g, s, p=None):
        sys.exit(0)
    return optax.GradientTransformation(lambda p: None, update)

def broken():
    def init(params):
        raise ValueError("no such luck")
    return optax.GradientTransformation(init, lambda g, s, p=None: (g, s))

number = 3
params = {"blocks": [{"kernel": jnp.ones((6, 4)), "bias": jnp.ones(4)}]}
counts = {"bias": jnp.ones(4), "seen": jnp.ones(4, int)}
nothing = {}

def state():
    return nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Param)
"""
OTHERS = {
    "my_broken": "def",
    "my_quitter": "import sys; sys.exit(0)",
    "my_error": "import math\n\nmath.sqrt(-1)",
    "my_interrupt": "raise KeyboardInterrupt",
    "my_mover": "import os; os.chdir('/')\nfrom my_helper import rule",
    "my_helper": "import optax\ndef rule(): return optax.sgd(0.1)",
}


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
    assert [line.split()[0] for line in lines] == [m.name for m in METHODS]
    said = [re.fullmatch(r"\S+  +(?:([^:]+): )?([A-Z].*)\.", line) for line in lines]
    assert None not in said
    for method, found in zip(METHODS, said):
        assert found and found[1] in (None, *method.names) and ". " not in found[2]


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
        assert " bytes a parameter." in " ".join(page.split()) and "\nNeeds: " in page
    assert "see the glossary" not in " ".join(page.split())
    too_long = [line for line in page.splitlines() if len(line) > 80]
    assert all(" " not in line.strip() for line in too_long), too_long
    equations = page.partition("\nArgs:")[0].partition(")\n\n")[2]
    assert not set("$\\{}") & set(equations) and not re.search(
        r"frac(\b|\d)|operatorname|\bbig\b", equations
    )
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


def test_show_puts_the_glossary_in_its_place():
    page = run("show", "muon")
    words = " ".join(page.split())
    for name in "mask", "hidden", "batch_axes", "model", "adam_eps":
        assert f" {name}: {TERMS[name]}" in words
    moved = f"learning_rate: {TERMS['learning_rate']} For matrices, the spectral norm"
    assert moved in words
    names = re.findall(r"^    (\w+): ", page, re.MULTILINE)
    assert names == [*inspect.signature(gk.muon).parameters]
    assert "coefficients=newton_schulz.JORDAN)" in page


def test_show_explains_the_words_of_the_glossary():
    page = run("show", "glossary")
    for term, text in TERMS.items():
        assert f"{term}: {text}" in " ".join(page.split())
        assert run("show", term.upper()).startswith(f"{term}: ")
    assert run("show", "cols").startswith("size, rows, cols, ndim: ")
    assert run("show", "momentum").endswith("Methods: average_by_heavy_ball, sgd.\n")


def test_looking_up_starts_no_device():
    done = command("show", "adamw", JAX_PLATFORMS="none_such")
    assert done.returncode == 0 and done.stdout.startswith("adamw(")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of a user's own in the current folder, held to few laws."""
    (tmp_path / "my_rules.py").write_text(MINE)
    for name, source in OTHERS.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ["my_rules", *OTHERS]:
        monkeypatch.delitem(sys.modules, name, raising=False)
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


@pytest.mark.parametrize("spec", ["my_rules:lazy", "my_mover:rule"])
def test_check_finds_neighbours_whenever_they_are_imported(mine, spec):
    assert run("check", spec).split().count("pass") == 2


def test_check_says_one_error_once(mine):
    said = run("check", "my_rules:broken", code=1)
    assert said.count("ValueError: no such luck") == 1
    assert said.count("got the error of jit") == 1
    first, second = said.splitlines()
    assert first.startswith("jit  ") and second.startswith("fixed_point  ")


def test_an_update_that_ends_python_breaks_laws(mine):
    said = run("check", "my_rules:stale", code=1)
    assert "SystemExit" in said and "pass" not in said


@pytest.fixture
def checked(monkeypatch):
    """The shapes that each check was of; no law is tried."""
    shapes = []

    def check(subject):
        shapes.append(subject.shapes)
        return testing.Table()

    monkeypatch.setattr(testing, "check", check)
    return shapes


def test_check_takes_parameters_of_ones_own(mine, checked):
    for name in "params", "state":
        run("check", "optax:sgd", "--params", f"my_rules:{name}")
    named = {"blocks/0/bias": (4,), "blocks/0/kernel": (6, 4)}
    assert checked == [named, {"bias": (4,), "kernel": (3, 4)}]
    laws = ["trees", "checkpoint"]
    assert all(
        row.outcome == "pass"
        for row in testing._table.check(gk.adamw, laws=laws, shapes=named)
    )


@pytest.mark.parametrize(
    "params, said",
    [
        ("my_rules:counts", "leaf seen of 'my_rules:counts' must be a real floating"),
        ("my_rules:nothing", "must hold parameters, got {}"),
        (
            "my_rules:needs",
            "makes no parameters: TypeError: needs() missing 1 required",
        ),
        (
            "my_rules:raises",
            "makes no parameters: RuntimeError: one two (my_rules.py, ",
        ),
        ("my_rules:param", "has no 'param'. Did you mean params?"),
        ("my_rules", "must read package.module:name"),
    ],
)
def test_check_refuses_what_are_no_parameters(mine, checked, params, said):
    message = run("check", "optax:sgd", "--params", params, code=2)
    assert said in message and message.count("\n") == 1
    assert not checked


def test_check_takes_the_shapes_that_a_method_is_for(mine):
    polar = "gradkit:normalize_by_polar"
    assert "must have at least 2 axes" in run("check", polar, code=1)
    assert run("check", polar, "--shapes", "3x2,2x2x2").split().count("pass") == 2
    assert "take at least 240 GB" in run(
        "check", polar, "--shapes", "100000x100000", code=2
    )
    said = run("check", polar, "--shapes", "3x2", "--params", "my_rules:params", code=2)
    assert "--shapes and --params" in said
    for shapes in "3x", "3x0", "a", "":
        said = run("check", polar, "--shapes", shapes, code=2)
        assert said == (
            f"gradkit: --shapes must read 6x4,3x5 or kernel=6x4,bias=4, got {shapes!r}.\n"
        )


@pytest.mark.parametrize(
    "spec, said",
    [
        ("my_rules", "must read package.module:name"),
        ("my_rules:", "must read package.module:name"),
        (":", "must read package.module:name"),
        ("..my_rules:good", "must read package.module:name"),
        ("my_rules.py:good", "must read package.module:name"),
        ("./my_rules:good", "must read package.module:name"),
        (
            "my_rules:nope",
            "cannot load 'my_rules:nope': module 'my_rules' has no 'nope'.",
        ),
        ("my_rules:Good", "module 'my_rules' has no 'Good'. Did you mean good?"),
        ("gradkit:adamv", "has no 'adamv'. Did you mean adamw"),
        ("my_quitter:rule", "it ends Python with sys.exit(0) (my_quitter.py, line 1)."),
        ("my_error:rule", "ValueError: math domain error (my_error.py, line 3)."),
        (
            "my_rules:quits",
            "makes no transform: it ends Python with sys.exit(0) (my_ru",
        ),
        (
            "my_rules:raises",
            "makes no transform: RuntimeError: one two (my_rules.py, l",
        ),
        ("my_rules:three", "it must return a pair of init and update, got 3."),
        ("[/no]:rule", "must read package.module:name"),
        ("[no]:rule", "No module named '[no]'"),
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


def test_ctrl_c_is_no_error_of_what_is_checked(mine):
    assert run("check", "my_interrupt:rule", code=130) == "gradkit: stopped.\n"


@pytest.fixture
def small(monkeypatch):
    """Two layers of equal entries, which compile sooner than the transformer."""

    def small(name, base, size, batch, start):
        first, last, other = (
            {"in": jnp.full((4, n), 0.1), "out": jnp.ones((n, 2))}
            for n in (base.width, size.width, 2 * base.width)
        )
        grew = gk.infer_parametrization(base=first, target=last, delta=other)
        output = gk.multipliers(grew)["out"].forward
        return gk.Experiment(
            lambda key: gk.rescale_init(last, grew, first),
            lambda p, x: jnp.mean(output * jnp.tanh(x @ p["in"]) @ p["out"]),
            lambda rate: coords.PARAMETRIZATIONS[name].tx(grew, rate),
            lambda key: batch(key)[:, :4] / 100,
        )

    monkeypatch.setattr(coords, "experiment", small)
    return "coords", "--widths", "16,64", "--parametrization", "MuP"


def test_coords_measures_shows_and_draws(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("text").write_text("What is at hand. " * 9)
    picture = pathlib.Path("[bold] of mk[v2].png")
    said = run(*small, "--data", "text", "--out", str(picture))
    assert "mup, 5 updates, by width: every site passes" in said
    assert re.search(r"in +n\^[+-]0.00 ± 0.00 +n\^[+-]0.00 ± 0.00", said)
    assert f"Picture: {picture}\n" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    seen = []
    monkeypatch.setattr(coords, "check", lambda plan, data, out: seen.append(data) or 1)
    run(*small, "--data", ".", "--out", str(picture))
    assert len(seen[0]) == 137  # nine tenths of the text, nothing of the picture


def test_coords_of_one_seed_has_no_interval(small):
    said = run(*small, "--seeds", "1")
    assert re.search(r"in +n\^[+-]0.00 +n\^[+-]0.00", said) and "nan" not in said


@pytest.mark.parametrize(
    "typed, said",
    [
        (
            "--data short",
            "too little data: 0 bytes to train on, which must be above 32",
        ),
        ("--data 33", "too little data: 29 bytes to train on"),
        ("--data empty", "too little data: 0 bytes to train on"),
        ("--out nowhere/x.png", "cannot write to nowhere/x.png: No such file"),
        ("--out notes.txt", "notes.txt is there and is no picture of gradkit coords"),
        ("--out empty", "empty is there and is no picture of gradkit coords"),
        ("--out link", "link is a link to gone, which is not there"),
        ("--out link/x.png", "link is a link to gone, which is not there"),
        ("--rate nan", "--rate must be from 1e-36 to 1e+36, got nan"),
        ("--rate inf", "--rate must be from 1e-36 to 1e+36, got inf"),
        ("--rate 1e300", "--rate must be from 1e-36 to 1e+36, got 1e+300"),
        ("--seeds 0", "--seeds must be above 0, got 0"),
        ("--seeds 1000000000", "--seeds 1000000000 would take at least"),
        (
            "--steps 1000000000000",
            "--steps 1000000000000 and --seeds 8 would take at l",
        ),
        (
            "--widths 16,1600000",
            "width 1600000, 2 layers, --steps 5 and --seeds 8 would",
        ),
        ("--parametrization mip", "no parametrization 'mip'. Did you mean mup? Choose"),
        ("--task byte", "no task of several sizes 'byte'. Did you mean bytes?"),
    ],
)
def test_coords_refuses_before_it_measures(tmp_path, monkeypatch, typed, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coords, "measure", None)
    pathlib.Path("empty").mkdir()
    for name, size in {"short": 1, "33": 33, "notes.txt": 100}.items():
        pathlib.Path(name).write_bytes(b"x" * size)
    pathlib.Path("link").symlink_to("gone")
    before = sorted(tmp_path.rglob("*"))
    message = run("coords", *typed.split(), code=2)
    assert said in message and message.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "command, said",
    [
        (["show", "adamv"], "no method 'adamv'. Did you mean adamw"),
        (["show", "scale_by_adm"], "Did you mean scale_by_adam"),
        (["show", "subspace.projekt"], "Did you mean project?"),
        (["show", "subspace.project.more"], "no method"),
        (["show", "lookahead"], "no method 'lookahead' here. optax has it: optax.look"),
        (["show", "SPAM"], "known as. Choose one."),
        (["list", "xyzzy"], "no method 'xyzzy'. gradkit list names them all."),
        (["show", "xyzzy"], "no method 'xyzzy'. gradkit list names them all."),
        (["show", "a\nb"], "no method 'a\\nb'."),
        (
            ["list", "--family", "clipp"],
            "Did you mean clip? Choose from normalize, clip",
        ),
        (["lsit"], "No such command 'lsit'. Did you mean 'list'? See gradkit --help."),
        (["list", "--nope"], "No such option: --nope. See gradkit list --help."),
        (["list", "agc", "more"], "Got unexpected extra argument"),
        (["race", "--steps", "x"], "Invalid value for '--steps'"),
        (["race", "--data", ""], "'--data': a path must be given, got nothing."),
        (["race", "--out", ""], "'--out': a path must be given, got nothing."),
        (["coords", "--out", ""], "'--out': a path must be given, got nothing."),
        (["check"], "Missing argument"),
    ],
)
def test_an_unknown_name_is_said_in_one_line(command, said):
    message = run(*command, code=2)
    assert said in message and message.count("\n") == 1


def test_names_are_found_in_any_case():
    assert run("show", "AdamW") == run("show", "adamw")
    assert run("list", "--family", "Clip") == run("list", "--family", "clip")


def test_show_says_of_what_kind_a_method_is():
    kinds = {
        "muon": "a recipe",
        "clip_by_zscore": "a transform of the family clip",
        "schedule_by_half_life": "a schedule",
        "check_coordinates": "a diagnostic",
    }
    for name, kind in kinds.items():
        assert run("show", name).endswith(f".py ({kind})\n")


def test_the_version_is_that_of_the_package():
    assert run("--version") == f"gradkit {importlib.metadata.version('gradkit')}\n"


def test_nothing_typed_is_answered_with_help():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2 and "Usage: gradkit" in result.stdout


def command(*typed: str, stdout: int = subprocess.PIPE, **environment: str) -> Any:
    """A command that has run in a process of its own."""
    line = [sys.executable, "-m", "gradkit", *typed]
    pipes = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run(line, env=os.environ | environment, **pipes)


@pytest.mark.parametrize("typed", ["--help", "list"])
def test_output_that_cannot_be_written_is_said_in_one_line(typed):
    with open("/dev/full", "wb") as full:
        done = command(typed, stdout=full.fileno())
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("gradkit: cannot read or write: ")


def test_a_reader_that_has_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = command("list", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_ascii_takes_every_sign():
    result = CliRunner(charset="ascii").invoke(app, ["show", "scale_by_adam"])
    assert result.exit_code == 0 and "+ \\u03b5)" in result.stdout


def test_ctrl_c_while_the_lab_is_imported_is_one_line(monkeypatch):
    class Finder:
        def find_spec(self, name, path, target=None):
            if name == "gradkit._lab.describe":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "gradkit._lab.describe", raising=False)
    monkeypatch.delattr("gradkit._lab.describe", raising=False)
    assert run("list", code=130) == "gradkit: stopped.\n"


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
        monkeypatch.delattr(name, raising=False)  # put back with its module
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    said = run("race", "--out", str(tmp_path / "out"), code=2)
    assert (
        said
        == 'gradkit: rich.console is not installed. Run pip install "gradkit[lab]".\n'
    )
    assert not (tmp_path / "out").exists()


def test_methods_are_found_by_what_people_call_them():
    assert run("show", "agc") == run("show", "AGC") == run("show", "clip_by_unit_norm")
    assert run("show", "GaLore") == run("show", "galore")
    assert run("list", "AutoClip").startswith("clip_by_percentile ")
    assert "optax has it: optax.contrib.sam" in run("list", "SAM", code=2)
    assert "average_params_by_ema " in run("list", "EMA")
    assert {line.split()[0] for line in run("list", "adagc").splitlines()} == {
        "adagc",
        "clip_by_ema_norm",
    }
    assert "Known as: AGC, adaptive gradient clipping, NFNets" in run("show", "agc")
    assert run("show", "subspace.project").startswith("subspace.project(inner, rank,")


def test_what_optax_has_is_there():
    for words, said in describe.ELSEWHERE.items():
        name = said.split(",")[0]
        found = functools.reduce(getattr, name.split(".")[1:], optax)
        assert callable(found) and words == words.lower()
    known = {name.lower() for method in METHODS for name in method.names}
    assert not known & describe.ELSEWHERE.keys()


INTERRUPTED = """
import builtins, sys

before = builtins.__import__

def interrupted(name, *args):
    if name == "gradkit.cli":
        raise KeyboardInterrupt
    return before(name, *args)

builtins.__import__ = interrupted
import _gradkit_command

_gradkit_command.main()
"""


def test_ctrl_c_is_answered_in_one_line_while_jax_is_imported():
    line = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "gradkit: stopped.\n")
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="gradkit")
    assert script.value == "_gradkit_command:main"
