"""What is declared is used, what is used is declared, and all of it can be installed together."""

import ast
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata

import jupytext
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gradkit._core import versions

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = {"orbax": "orbax-checkpoint", "sklearn": "scikit-learn"}  # else the same name
TOOLS = {  # run, not imported
    "hatchling": "builds the wheel",
    "import-linter": "in make test",
    "ipykernel": "runs notebooks",
    "pyright": "in make test",
    "pytest-xdist": "-n auto in make test",
    "ruff": "in make test",
}
COMPARED = {"torch", "pytorch-optimizer", "opt-einsum"}  # by a Python that has them


def declared(requirements: list[str]) -> set[str]:
    """The packages that these requirements name."""
    return {canonicalize_name(Requirement(r).name) for r in requirements}


BASE, LAB, DEV = (
    declared(d) for d in (PROJECT["dependencies"], EXTRAS["lab"], EXTRAS["dev"])
)


def imported(*paths: pathlib.Path) -> set[str]:
    """The packages, besides Python's and those in this tree, that the files at `paths` import.

    By a statement, or by name: `load("flax.nnx")`.
    """
    names: set[str] = set()
    files = [f for p in paths for f in ([p] if p.is_file() else p.rglob("*.py"))]
    for node in (n for f in files for n in ast.walk(ast.parse(f.read_text()))):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
            case ast.Call(
                func=ast.Name(id="load" | "importorskip" | "import_module")
                | ast.Attribute(attr="importorskip" | "import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                names.add(module)
    tops = {name.partition(".")[0] for name in names}
    ours = {f.stem for f in files} | {f.parent.name for f in files} | {"gradkit"}
    packages = tops - sys.stdlib_module_names - ours
    return {canonicalize_name(MODULES.get(name, name)) for name in packages}


LIBRARY = [
    p for p in (ROOT / "gradkit").iterdir() if p.name not in ("_lab", "cli.py", "testing")
]  # fmt: skip
LABORATORY = [ROOT / "gradkit" / name for name in ("_lab", "cli.py", "testing")]
ROUND_IT = [
    ROOT / d for d in ("tests", "benchmarks", "notebooks", "tools", "conftest.py")
]


def test_what_the_library_imports_is_what_it_declares():
    files = [p for p in LIBRARY if p.is_dir() or p.suffix == ".py"]
    assert imported(*files) - BASE == {
        "matplotlib"
    }  # asked for where axes are not given


def test_what_the_command_line_imports_besides_is_the_extra_lab():
    assert imported(*LABORATORY) - BASE == LAB


def test_what_stands_round_the_library_imports_what_is_declared():
    used = imported(*ROUND_IT)
    assert used - BASE - LAB - DEV == COMPARED
    assert (used & DEV) | set(TOOLS) == DEV


def test_the_oldest_versions_are_those_declared():
    stated = {Requirement(r).name: Requirement(r) for r in PROJECT["dependencies"]}
    for name, oldest in versions.OLDEST.items():
        assert str(stated[name].specifier) == f">={oldest}"


def test_an_old_version_is_told_on_import(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(versions.jax, "__version__", "0.6.2")
    there = [type("Found", (), {"name": "jax-cuda12-plugin"})]
    monkeypatch.setattr(versions.importlib.metadata, "distributions", lambda: there)
    with pytest.raises(ImportError) as told:
        versions.check()
    assert str(told.value) == (
        f"gradkit: jax must be at least {versions.OLDEST['jax']}, got 0.6.2. "
        'Run `pip install -U "jax[cuda12]"` and start Python anew.'
    )


@pytest.mark.parametrize(
    "found", ["0.7.2", "0.7.10", "0.8.0rc1", "0.9.0.1", "0.13.0.dev20270101", "1.0"]
)
def test_a_version_that_is_new_enough_is_taken(found, monkeypatch):
    monkeypatch.setattr(versions.jax, "__version__", found)
    versions.check()


# What is installed together


def pins() -> dict[str, str]:
    """The version of every package that constraints.txt holds on this Python."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    here = [r for r in found if r.marker is None or r.marker.evaluate()]
    return {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in here
    }


def needed(requirement: Requirement) -> list[Requirement]:
    """What an installed package needs, with the extras that are asked of it."""
    extras = requirement.extras or {""}
    found = map(Requirement, metadata.requires(requirement.name) or [])
    return [
        r
        for r in found
        if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)
    ]


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_everything_an_extra_brings_is_pinned_to_what_all_can_use(extra):
    pinned, seen = pins(), set()
    waiting = [*map(Requirement, EXTRAS.get(extra, PROJECT["dependencies"]))]
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{requirement} has no pin"
        assert requirement.specifier.contains(pinned[name], prereleases=True), (
            f"{requirement} does not take {name}=={pinned[name]}"
        )
        waiting += needed(requirement)


@pytest.mark.slow
def test_pip_finds_what_every_extra_asks_for():
    what = f"{ROOT}[{','.join(EXTRAS)}]"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    subprocess.run([*pip, "--quiet", "-c", ROOT / "constraints.txt", what], check=True)


def install_cells() -> set[str]:
    """The cell of each notebook that installs the library."""
    notebooks = map(jupytext.read, (ROOT / "notebooks").glob("*.py"))
    return {next(c.source for c in n.cells if "SOURCE" in c.source) for n in notebooks}


def test_every_notebook_installs_the_library_alike():
    assert len(install_cells()) == 1


@pytest.mark.slow
def test_an_install_cell_keeps_the_jax_that_is_there(tmp_path: pathlib.Path):
    clone, (cell,) = tmp_path / "clone", install_cells()
    (clone / "notebooks").mkdir(parents=True)
    shutil.copytree(ROOT / "gradkit", clone / "gradkit")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    venv.create(tmp_path / "env", with_pip=True)

    def python(*args: str) -> str:
        run = [tmp_path / "env" / "bin" / "python", *args]
        return subprocess.check_output(run, cwd=clone / "notebooks", text=True)

    oldest = versions.OLDEST["jax"]
    python("-m", "pip", "install", "--quiet", f"jax=={oldest}")
    python("-c", cell)
    here = python("-c", "import gradkit, flax, jax; print(jax.__version__)")
    assert here.strip() == oldest


# What a user gets


SNIPPET = """
import jax.numpy as jnp
import gradkit as gk

tx = gk.chain(gk.clip_by_unit_norm(), gk.adamw(3e-4))
params = {"w": jnp.ones(3)}
state = tx.init(params)
updates, state = tx.update(params, state, params, value=1.0)
reveal_type(tx)
reveal_type(gk.muon(0.02, batch_axes=(0,)))
gk.adamw(3e-4, no_such_argument=1)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """An environment with the wheel of this tree, and beside it what is installed here."""
    home = tmp_path_factory.mktemp("user")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    version = "python{}.{}".format(*sys.version_info)
    packages = home / "env" / "lib" / version / "site-packages"
    (wheel,) = home.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "here.pth").write_text(str(pathlib.Path(pytest.__file__).parents[1]))
    return packages


def test_the_wheel_has_every_file_of_the_package(site):
    def files(folder: pathlib.Path) -> set[str]:
        found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        return {str(p) for p in found if "__pycache__" not in p.parts}

    assert files(site / "gradkit") == files(ROOT / "gradkit")
    assert "py.typed" in files(site / "gradkit")


def test_a_type_checker_sees_the_types_of_a_user_s_code(site):
    home = site.parents[3]
    (home / "snippet.py").write_text(SNIPPET)
    config = {"include": ["snippet.py"], "venvPath": ".", "venv": "env"}
    (home / "pyrightconfig.json").write_text(json.dumps(config))
    pyright = [sys.executable, "-m", "pyright", "--project", home]
    out = subprocess.run(pyright, capture_output=True, text=True).stdout
    assert (
        re.findall(r'Type of ".*" is "(.*)"', out)
        == ["GradientTransformationExtraArgs"] * 2
    )
    (error,) = re.findall(r"error: (.*)", out)
    assert "no_such_argument" in error
