"""Every notebook runs from top to bottom, and agrees with its text."""

import pathlib

import jupytext
import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
TEXTS = sorted(FOLDER.glob("*.py"))
STEPS = "GRADKIT_NOTEBOOK_STEPS"  # what a notebook that has a fast form reads
FAST = "20"
LONG = {"02_mup"}  # minutes on two cores, without a fast form


def forms():
    """Every notebook, and its fast form, which `make test` runs where there is one."""
    for text in TEXTS:
        has_fast = STEPS in text.read_text()
        slow = [pytest.mark.slow] if has_fast or text.stem in LONG else []
        yield pytest.param(text, None, id=text.stem, marks=slow)
        if has_fast:
            yield pytest.param(text, FAST, id=f"{text.stem}-fast")


@pytest.mark.parametrize(("text", "steps"), [*forms()])
def test_a_notebook_runs(text, steps, monkeypatch):
    if steps:
        monkeypatch.setenv(STEPS, steps)
    notebook = jupytext.read(text)
    here = {"metadata": {"path": str(FOLDER.parent)}}  # where gradkit can be imported
    nbclient.NotebookClient(notebook, timeout=900, resources=here).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("image/png" in out.get("data", {}) for out in outputs)


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_a_notebook_and_its_text_are_the_same(text):
    """If not: `jupytext --sync notebooks/*.py`, then run the notebook once."""
    pair = jupytext.read(text), nbformat.read(text.with_suffix(".ipynb"), as_version=4)
    ours, theirs = ([(c.cell_type, c.source) for c in one.cells] for one in pair)
    assert ours == theirs


def test_every_notebook_has_its_text():
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == [
        path.stem for path in TEXTS
    ]
