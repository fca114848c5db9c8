"""The catalogue, the files, the docstrings and the tests name the same methods."""

import ast
import collections
import inspect
import pathlib
import re
import subprocess
import sys

import pytest
from entry import ENTRIES

import gradkit as gk
from gradkit.catalogue import FAMILIES, METHODS, Method
from gradkit.glossary import TERMS

ROOT = pathlib.Path(gk.__file__).parents[1]
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
TRANSFORMS = [m for m in METHODS if m.kind in ("transform", "recipe")]
SECTIONS = ["Args:", "Paper:", "Departure:", "Limits:"]
COSTS = ["State:", "Flops:"]
CITED = re.compile(r"see the\s+glossary\.")


def docstring(method: Method) -> str:
    """The factory's docstring, indentation removed."""
    return inspect.getdoc(getattr(gk, method.name)) or ""


def test_every_method_has_one_test_entry():
    """Touch two of three: the oracle, under tests/oracles."""
    assert sorted(ENTRIES) == sorted(m.name for m in TRANSFORMS)


def test_every_method_has_one_file_and_every_file_one_method():
    """Touches one and three of three: the file, and its line in gradkit/catalogue.py."""
    rooms = {ROOT / "gradkit" / family.room for family in FAMILIES.values()}
    files = {p for room in rooms for p in room.glob("[!_]*.py")}
    assert {str(p.relative_to(ROOT)) for p in files} == {m.path for m in METHODS}


def test_names_are_unique_and_begin_with_their_verb():
    assert len({m.name for m in METHODS}) == len(METHODS)
    for m in METHODS:
        assert m.name.startswith(FAMILIES[m.family].verb)


def test_exports_are_fresh():
    tool = [sys.executable, str(ROOT / "tools" / "export.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_room_says_what_comes_in_and_goes_out():
    for room in {f.room for f in FAMILIES.values()}:
        text = ast.get_docstring(
            ast.parse((ROOT / "gradkit" / room / "__init__.py").read_text())
        )
        assert text and "In:" in text and "Out:" in text, room


@EACH
def test_factory_is_defined_in_its_file(method: Method):
    assert getattr(gk, method.name).__module__ == method.module


@EACH
def test_docstring_keeps_its_contract(method: Method):
    text = docstring(method)
    wanted = SECTIONS + (COSTS if method in TRANSFORMS else [])
    if not inspect.signature(getattr(gk, method.name)).parameters:
        wanted.remove("Args:")
    missing = [s for s in wanted if not re.search(f"^{s}", text, re.MULTILINE)]
    assert not missing, f"{method.name} lacks {missing}"
    assert text.split("\n")[0].endswith("."), "the first line is one sentence"
    assert method.paper == "none" or method.paper in text, "the paper's id is cited"
    assert "$$" in text or method.kind == "recipe", "the equations are there"
    assert ">>>" in text or method.kind == "recipe", "a doctest shows a law"
    assert text.count(">>>") <= 4


def explained(text: str) -> dict[str, str]:
    """What a docstring says of each argument: several may share a line that cites the glossary."""
    args = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, \n]*): (.*(?:\n {6,}.*)*)", args, re.MULTILINE)
    return {name: said for names, said in entries for name in re.split(r",\s+", names)}


@EACH
def test_docstring_names_every_argument(method: Method):
    parameters = inspect.signature(getattr(gk, method.name)).parameters
    said = explained(docstring(method))
    assert not set(parameters) ^ set(said), f"{method.name} explains {list(said)}"
    for name, text in said.items():
        if CITED.match(text):
            assert name in TERMS, f"the glossary has no {name}"
        together = [other for other in said if said[other] == text]
        assert len(together) == 1 or CITED.fullmatch(text), f"{together} share a line"


def test_the_glossary_explains_nothing_in_vain():
    arguments = list(TERMS)[: list(TERMS).index("EMA")]
    cited = {
        name
        for method in METHODS
        for name, text in explained(docstring(method)).items()
        if CITED.match(text)
    }
    assert cited >= set(arguments)
    assert gk.glossary.__doc__ is not None
    for term, text in TERMS.items():
        assert f"\n{term}\n" in gk.glossary.__doc__
        assert text.endswith(".") and "\n" not in text


@EACH
def test_factories_are_short(method: Method):
    """A call is one line of a recipe, however many arguments it passes on."""
    source = ast.parse((ROOT / method.path).read_text())
    (factory,) = [
        n
        for n in source.body
        if isinstance(n, ast.FunctionDef) and n.name == method.name
    ]
    body = factory.body[1:]
    if method.kind == "recipe":
        assert sum(len(ast.unparse(line).splitlines()) for line in body) <= 15
    assert body[-1].end_lineno - body[0].lineno < 120


def test_import_is_light_and_starts_no_backend():
    code = (
        "import gradkit, sys, jax._src.xla_bridge as bridge\n"
        "heavy = {'flax', 'matplotlib', 'sklearn', 'typer', 'rich', 'orbax'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not bridge.backends_are_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_methods_carry_the_names_people_search_for():
    lacking = [m.name for m in METHODS if m.kind != "recipe" and not m.known_as]
    assert not lacking
    owners = collections.Counter(name.lower() for m in METHODS for name in m.names)
    assert owners["agc"] == owners["muon"] - 1 == owners["zclip"] - 1 == 1
