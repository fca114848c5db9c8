"""Every transform, wrapper and recipe holds every law of `gradkit.testing`, or says why it cannot.

On what is made of parts that are held to all laws one by one, the laws that take longest are left
to `make check-full`; so are most of these on what compiles longest, and on what differs from
`transfer_by_mup` in its factors alone, and on kin of a method those that are of the transform as a
whole. What an optimizing compiler can break is tried on programs that are optimized; `make
check-full` tries all laws on these too.
"""

import functools
from typing import Any

import pytest
import xla
from entry import ENTRIES, MADE

from gradkit.catalogue import METHODS
from gradkit.testing import LAWS, Subject, check

LONG = {
    "checkpoint",
    "composition",
    "constant_gradient",
    "control_flow",
    "debug_nans",
    "jit",
    "keys",
    "linen",
    "live_hyperparameters",
    "manual_mesh",
    "nnx",
    "partition_norms",
    "reverse_mode",
    "sharding",
    "spmd_vmap",
    "trees",
    "vmap",
    "zero_gradient",
}
AS_A_WHOLE = {  # of how a state is carried, whatever is computed of it
    "checkpoint",
    "composition",
    "control_flow",
    "debug_nans",
    "keys",
    "linen",
    "nnx",
    "spmd_vmap",
}
OPTIMIZED = {"extreme_gradient", "jit"}
STATED = {"flops", "state_bytes"}  # formulas of the shapes
PRECONDITIONERS = {m.name for m in METHODS if m.family == "precondition"}
HEAVY = PRECONDITIONERS | {"project_by_random_subspace", "project_by_weight_norm"}
TRANSFERS = {m.name for m in METHODS if m.family == "transfer"} - {"transfer_by_mup"}
KIN = {  # states of the same kind as that of the method beside, other formulas
    "average_by_nesterov": "average_by_heavy_ball",
    "average_by_lion_kappa": "average_by_lion",
    "mask_by_disruption": "mask_by_gradient_magnitude",
    "mask_by_saliency": "mask_by_gradient_magnitude",
    "mask_by_small_weight": "mask_by_gradient_magnitude",
    "scale_by_adabound": "scale_by_adam",
    "scale_by_adamomentum": "scale_by_adam",
    "scale_by_amsbound": "scale_by_adam",
    "scale_by_amsgrad": "scale_by_adam",
    "scale_by_diffgrad": "scale_by_adam",
    "scale_by_innaprop": "scale_by_adam",
    "step_by_layer_dog": "step_by_dog",
    "step_by_momo_adam": "step_by_momo",
    "step_by_sania_adam": "step_by_sania_adagrad",
    "step_by_u_dog": "step_by_dog",
    "store_by_int4": "store_by_int8",
}


def is_slow(name: str, law: str) -> bool:
    """Whether the law is tried on the method by `make check-full` alone."""
    heavy = name in HEAVY and law not in ("jit", "manual_mesh", "sharding")
    at_defaults = law == "follows_float64"  # where it shows more, a test of its own
    kin = name in KIN and law in AS_A_WHOLE
    return at_defaults or kin or (law in LONG and (name in MADE | TRANSFERS or heavy))


def each() -> list[Any]:
    """Every method with every law."""
    return [
        pytest.param(
            name,
            law,
            id=f"{name}-{law}",
            marks=[pytest.mark.slow] * is_slow(name, law),
        )
        for name in ENTRIES
        for law in LAWS
    ]


@functools.lru_cache(maxsize=3)
def under_test(name: str, stated: bool, optimized: bool) -> Subject:
    """The entry's transform, with what its laws share; kept while its laws are tried.

    What is stated of shapes must hold of all; other laws are tried without the wide matrix.
    """
    entry = ENTRIES[name]
    shapes = {k: x for k, x in entry.shapes.items() if stated or k != "wide"}
    options = xla.OPTIMIZED if optimized else None
    return Subject(entry.factory, shapes, compiler_options=options)


def lacking(name: str) -> Subject:
    """The entry's transform, which is given by the law itself what it needs besides."""
    entry, whole = ENTRIES[name], under_test(name, False, False)
    if entry.extra is None:
        return whole
    return Subject(entry.bare, whole.shapes, entry.extra(whole.grads(0)))


@pytest.mark.parametrize("name,law", each())
def test_holds(name: str, law: str) -> None:
    xfail = {k: v for k, v in ENTRIES[name].xfail.items() if k == law}
    optimized = law in OPTIMIZED and name not in MADE | PRECONDITIONERS
    whole = under_test(name, law in STATED, optimized)
    subject = lacking(name) if law == "needs" else whole
    (row,) = check(subject, laws=[law], xfail=xfail)
    assert row.outcome == ("xfail" if xfail else "pass"), row.reason


def test_xfails_name_laws() -> None:
    for entry in ENTRIES.values():
        assert set(entry.xfail) <= set(LAWS), entry.name


def test_what_is_made_of_parts_is_tested() -> None:
    assert set(ENTRIES) >= MADE


def test_what_kin_leave_out_is_tried_on_another() -> None:
    assert set(ENTRIES) >= KIN.keys() | set(KIN.values())
    for other in KIN.values():
        assert not [law for law in AS_A_WHOLE if is_slow(other, law)], other
