"""The README's example runs and learns; its claims about names hold."""

import contextlib
import io
import pathlib
import re

import gradkit as gk

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def printed() -> list[str]:
    """What each example prints, run in order in one namespace."""
    names: dict[str, object] = {}
    outs = []
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        assert len([line for line in code.splitlines() if line.strip()]) <= 13
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "README.md", "exec"), names)
        outs.append(out.getvalue())
    return outs


def test_examples_run_and_learn():
    training, _, table, reading, _, measured, swept = printed()
    losses = [float(x) for x in training.strip("[]\n").split(",")]
    assert losses[-1] < 0.1 * losses[0]
    assert "hidden" in table and "256" in table and "Note" not in table
    assert "layers/1/weight" in reading and "readout of the model" in reading
    assert "'adam/learning_rate'" in measured and "'update_to_param'" in measured
    assert "Best: learning_rate=" in swept


def test_names_it_mentions_exist():
    for name in re.findall(r"gk\.(\w+)", README):
        assert hasattr(gk, name), name


def test_pictures_it_shows_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (pathlib.Path(__file__).parents[1] / path).is_file(), path
