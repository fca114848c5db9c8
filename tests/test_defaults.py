"""The page of defaults is fresh, whole and true."""

import inspect
import pathlib
import re
import subprocess
import sys
from typing import Any

import optax
import pytest

import gradkit as gk
from gradkit.catalogue import METHODS

ROOT = pathlib.Path(gk.__file__).parents[1]
PAGE = (ROOT / "docs" / "defaults.md").read_text()
ROWS = [
    [cell.strip(" `*") for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "---" not in line
][1:]


def default(factory: Any, argument: str) -> Any:
    """A default, `inspect.Parameter.empty` where there is none."""
    parameters = inspect.signature(factory).parameters
    return parameters[argument].default if argument in parameters else inspect._empty


def is_said(cell: str, value: Any) -> bool:
    """Whether a cell of the page is this default."""
    if callable(value):
        return cell == value.__name__
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(cell) == pytest.approx(value)
    return cell == ("Jordan's" if value == gk.newton_schulz.JORDAN else str(value))


def test_the_page_is_fresh():
    tool = [sys.executable, str(ROOT / "tools" / "defaults.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_recipe_is_there_with_its_defaults():
    recipes = {m.name for m in METHODS if m.family == "recipe"}
    assert recipes <= {name for name, *_ in ROWS}
    for name, argument, ours, *_ in ROWS:
        assert is_said(ours, default(getattr(gk, name), argument)), (name, argument)
    for name in recipes:
        there = {argument for other, argument, *_ in ROWS if other == name}
        apart = set(inspect.signature(getattr(gk, name)).parameters) - there
        assert apart <= {"mask", "hidden", "batch_axes", "model", "key"}


def test_the_defaults_of_optax_are_true():
    compared = 0
    for name, argument, _, theirs, _ in ROWS:
        factory = getattr(optax, name, getattr(optax.contrib, name, None))
        value, _, called = theirs.partition(" [")
        value, called = value.strip("*"), re.sub(r"\W", "", called) or argument
        if not theirs:
            assert factory is None or default(factory, argument) is inspect._empty
            continue
        assert is_said(value, default(factory, called)), (name, argument)
        compared += 1
    assert compared > 50
