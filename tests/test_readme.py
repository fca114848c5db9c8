"""The README's example runs and learns; its claims about names hold."""

import contextlib
import io
import pathlib
import re

import gradkit as gk

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMING = (ROOT / "docs/coming_from.md").read_text()


def examples(page: str) -> list[str]:
    """The Python of a page, as it stands there."""
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def printed(codes: list[str]) -> list[str]:
    """What each example prints, run in order in one namespace."""
    names: dict[str, object] = {}
    outs = []
    for code in codes:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "page.md", "exec"), names)
        outs.append(out.getvalue())
    return outs


def test_examples_run_and_learn():
    codes = examples(README)
    for code in codes:
        assert len([line for line in code.splitlines() if line.strip()]) <= 13
    training, _, table, reading, _, measured, swept = printed(codes)
    losses = [float(x) for x in training.strip("[]\n").split(",")]
    assert losses[-1] < 0.1 * losses[0]
    assert "hidden" in table and "256" in table and "Note" not in table
    assert "layers/1/weight" in reading and "readout of the model" in reading
    assert "'adam/learning_rate'" in measured and "'update_to_param'" in measured
    assert "Best: learning_rate=" in swept


def test_the_loop_of_the_guide_learns_and_goes_on_in_a_longer_chain():
    (said,) = printed(examples(COMING))
    losses = [float(line.split()[1]) for line in said.splitlines() if "{" in line]
    assert losses[-1] < 0.5 * losses[0]
    kept, fresh = map(
        int, re.search(r"kept (\d+), fresh (\d+), dropped 0", said).groups()
    )
    assert kept == 63 and fresh == 6  # the guard's two, and the clip's four of measure


def test_names_they_mention_exist():
    for name in re.findall(r"gk\.(\w+)", README + COMING):
        assert hasattr(gk, name), name


def test_pictures_it_shows_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (pathlib.Path(__file__).parents[1] / path).is_file(), path
