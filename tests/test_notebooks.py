"""Every notebook runs from top to bottom, and agrees with its text."""

import pathlib

import jupytext
import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
TEXTS = sorted(FOLDER.glob("*.py"))
LONG = {"02_mup"}  # minutes on two cores


def marked(text):
    """`text` as a parameter, left out of `make test` where it is long."""
    marks = [pytest.mark.slow] if text.stem in LONG else []
    return pytest.param(text, id=text.stem, marks=marks)


@pytest.mark.parametrize("text", [marked(text) for text in TEXTS])
def test_a_notebook_runs(text):
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
