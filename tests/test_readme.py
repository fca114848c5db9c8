"""The README's example runs and learns; its claims about names hold."""

import contextlib
import io
import pathlib
import re

import gradkit as gk

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def test_example_runs_and_learns():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    losses = [float(x) for x in out.getvalue().strip("[]\n").split(",")]
    assert losses[-1] < 0.1 * losses[0]


def test_names_it_mentions_exist():
    for name in re.findall(r"gk\.(\w+)", README):
        assert hasattr(gk, name), name


def test_pictures_it_shows_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (pathlib.Path(__file__).parents[1] / path).is_file(), path
