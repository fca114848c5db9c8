"""What the releases multiply by, parameter by parameter, from a parametrization inferred here."""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk

TABLES = json.loads(
    (pathlib.Path(__file__).parent / "golden/mup_tables.json").read_text()
)
LOOKED_UP = r"embed|place|wte|wpe"


def inferred(rows: list, *sizes: str, tied: str | None = None) -> gk.Parametrization:
    """From the recorded shapes, kernels in JAX's order; `sizes` are the first columns."""

    def tree(column: int) -> dict:
        found = {}
        for path, *shapes in rows:
            shape = shapes[column]
            if column or not re.search(r"\.[12]\.", path):  # the base has one layer
                table = re.search(LOOKED_UP, path)
                shape = shape if table else shape[::-1]
                found[path] = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
        return found

    roles = {tied: "tied"} if tied else {}
    if any(re.search(LOOKED_UP, path) for path, *_ in rows):
        roles[LOOKED_UP] = "embedding"
    trees = {name: tree(i) for i, name in enumerate(sizes)}
    return gk.infer_parametrization(**trees, roles=roles)


def approx(x: float) -> object:
    return pytest.approx(x, rel=1e-6)


@pytest.mark.parametrize("name", TABLES["mup"])
def test_mup(name):
    """Adam and SGD, of networks that grow in one size or in all of them, tied or not."""
    rows = TABLES["mup"][name]
    tied = "embed" if name.endswith("tied") else None
    grew = inferred(rows, "base", "delta", "target", tied=tied)
    adam, sgd = (gk.multipliers(grew, "mup", o) for o in ("adam", "sgd"))
    for path, *_, forward, adam_lr, adam_wd, sgd_lr, sgd_wd in rows:
        got = adam[path], sgd[path]
        assert [m.forward for m in got] == [approx(forward)] * 2, path
        assert [m.learning_rate for m in got] == [approx(adam_lr), approx(sgd_lr)], path
        assert [m.weight_decay for m in got] == [approx(adam_wd), approx(sgd_wd)], path


@pytest.mark.parametrize("optimizer, column", [("adam", 3), ("sgd", 4)])
def test_umup(optimizer, column):
    """The base has one residual layer, so that the depth is their number."""
    found = gk.multipliers(
        inferred(TABLES["umup"], "base", "target"), "umup", optimizer
    )
    for row in TABLES["umup"]:
        assert found[row[0]].learning_rate == approx(row[column]), row[0]


@pytest.mark.parametrize("branch", TABLES["completep"])
def test_completep(branch):
    """Its one eps is the hidden weights'; the paper's, outside of blocks, does not know the depth."""
    rows, rule = TABLES["completep"][branch], gk.RULES["completep"]
    grew = inferred(rows, "base", "target", tied="wte")
    found = gk.multipliers(grew, functools.partial(rule, branch=float(branch)))
    for path, _, _, lr, wd, eps in rows:
        inside = ".h." in path
        assert found[path].learning_rate == approx(lr), path
        assert found[path].weight_decay == approx(wd), path
        assert found[path].eps == approx(eps * (1 if inside else 3 ** float(branch))), (
            path
        )
    assert found["transformer.wte.weight"].forward == approx(1 / 2.5)
