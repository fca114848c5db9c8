"""Every transform, wrapper and recipe holds every law of `gradkit.testing`, or says why it cannot.

A recipe is a chain of transforms that are held to all laws one by one, and a form of
`subspace.project` differs from `project_by_svd` in its parts alone: on these the laws that take
longest are left to `make check-full`.
"""

import functools
from typing import Any

import pytest
from entry import ENTRIES

from gradkit.catalogue import METHODS
from gradkit.testing import LAWS, Subject, check

RECIPES = {method.name for method in METHODS if method.kind == "recipe"}
FORMS = {
    "project_by_dct",
    "project_by_fira",
    "project_by_grass_jump",
    "project_by_grass_walk",
    "project_by_power_iteration",
    "project_by_random",
    "project_by_range_finder",
    "project_by_subspace_momentum",
}
LONG = {
    "checkpoint",
    "composition",
    "control_flow",
    "jit",
    "linen",
    "nnx",
    "partition_norms",
    "sharding",
    "trees",
    "vmap",
    "zero_gradient",
}


def each() -> list[Any]:
    """Every method with every law."""
    return [
        pytest.param(
            name,
            law,
            id=f"{name}-{law}",
            marks=[pytest.mark.slow] if name in RECIPES | FORMS and law in LONG else [],
        )
        for name in ENTRIES
        for law in LAWS
    ]


@functools.lru_cache(maxsize=2)
def under_test(name: str) -> Subject:
    """The entry's transform, with what its laws share; kept while its laws are tried."""
    entry = ENTRIES[name]
    return Subject(entry.factory, entry.shapes)


@pytest.mark.parametrize("name,law", each())
def test_holds(name: str, law: str) -> None:
    excused = {k: v for k, v in ENTRIES[name].excused.items() if k == law}
    (row,) = check(under_test(name), laws=[law], excused=excused)
    assert row.outcome == ("excused" if excused else "pass"), row.reason


def test_forms_are_methods() -> None:
    assert {method.name for method in METHODS} >= FORMS


def test_excuses_name_laws() -> None:
    for entry in ENTRIES.values():
        assert set(entry.excused) <= set(LAWS), entry.name
