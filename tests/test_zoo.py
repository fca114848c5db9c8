"""Small forms of real architectures: what inference and reading make of every leaf of them."""

import functools
import inspect
import math
import re

import jax
import pytest
from zoo import graphs, recurrent, transformers, vision
from zoo.form import entry

import gradkit as gk

FORMS = {
    form.name: form
    for module in (transformers, vision, recurrent, graphs)
    for form in module.FORMS
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
WORDS = ("forward", "scores", "ranked", "before they meet data")


@pytest.fixture(autouse=True)
def ranks_may_be_promoted():
    """As in the frameworks that models are written in."""
    with jax.numpy_rank_promotion("allow"):
        yield


def sized(f, sizes):
    """`f`, told the sizes that it asks for."""
    names = sizes if isinstance(sizes, dict) else {}
    asked = inspect.signature(f).parameters.keys() & names.keys()
    return functools.partial(f, **{name: names[name] for name in asked})


def built(form, sizes):
    """The shapes of a model; what is no array stays as it is."""
    make = lambda: form.init(**sizes) if isinstance(sizes, dict) else form.init(sizes)
    arrays, others = [], []

    def leaves():
        found, structure = jax.tree.flatten(make())
        is_array = [hasattr(x, "dtype") for x in found]
        others[:] = structure, [None if a else x for a, x in zip(is_array, found)]
        return [x for a, x in zip(is_array, found) if a]

    arrays = iter(jax.eval_shape(leaves))
    structure, rest = others
    return structure.unflatten(next(arrays) if x is None else x for x in rest)


@every_form
def test_the_parametrization_is_that_of_the_table(form):
    found = gk.infer_parametrization(
        form.init,
        base=form.base,
        target=form.target,
        delta=form.delta,
        apply=form.apply,
        example=form.example,
        roles=form.roles,
    )
    adam = gk.multipliers(found, "mup", "adam")
    sgd = gk.multipliers(found, "mup", "sgd")
    for path, p in found.items():
        row = entry(form.rows, path)
        assert p.role == row.role, (path, p.why)
        grown = p.growth_in, p.growth_out, p.depth
        assert grown == pytest.approx(row[1:4]), (path, p.why)
        m = adam[path]
        said = m.init, m.learning_rate, m.forward, sgd[path].learning_rate
        assert said == pytest.approx((*row.adam, row.sgd)), (path, p.why)
    expected = [
        (where, "before they meet data" if word == "order" else word)
        for where, word in form.notes
    ]
    for note in found.notes:  # numbers of layers are stars in them
        text = note.replace("*", "0")
        assert any(
            re.search(where, text) and word in text for where, word in expected
        ), note
    for where, word in expected:
        told = (note.replace("*", "0") for note in found.notes)
        assert any(re.search(where, text) and word in text for text in told), where


@every_form
def test_the_reading_is_that_of_the_table(form):
    routers = {path: role for path, role in form.roles.items() if role == "router"}
    params = built(form, form.target)
    read = gk.read_model(
        sized(form.apply, form.target), params, form.example, kinds=routers
    )
    for path, x in read.items():
        said = x.kind, x.inputs, x.outputs, x.stacked, x.blocks
        assert said == tuple(entry(form.reads, path)), (path, x.why)
        rows, cols = (
            math.prod(x.shape[i] for i in axes) for axes in (x.inputs, x.outputs)
        )
        assert not x.is_matrix or min(rows, cols) > 1
    assert str(read).count("\n") < len(read) + 3
