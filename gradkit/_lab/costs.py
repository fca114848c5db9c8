"""The table that `gradkit describe` prints, and the calls and shapes that it is given."""

import ast
from typing import Any

import jax
import jax.numpy as jnp
from rich.text import Text

import gradkit as gk
from gradkit._lab import screen, spec
from gradkit._lab.complaint import Complaint, pick
from gradkit.catalogue import METHODS

KINDS = ("transform", "recipe")
HEAD = (
    "state\nbytes",
    "bytes a\nparameter",
    "flops",
    "bytes\naccessed",
    "compile\nseconds",
)


def show(call: str, shapes: str) -> None:
    """Print what each part of the transform that `call` makes costs, for these shapes."""
    leaves, tx = spec.shapes_of(shapes), transform(call)
    params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in leaves.items()}
    value = jax.ShapeDtypeStruct((), jnp.float32)
    with spec.refused(f"{call!r} cannot be described"):
        found = gk.describe(tx, params, value=value)
    table = screen.table()
    table.add_column("part", no_wrap=True)
    for title in HEAD:
        table.add_column(title, justify="right", overflow="fold")
    for part in (*found.parts, found.total):
        if part is found.total:
            table.add_section()
        table.add_row(*part.cells)
    to = screen.console()
    screen.show(f"{call} on {shapes}", table, to)
    for note in found.notes:
        name, _, said = note.partition(": ")
        to.print(Text.assemble((f"{name}: ", "bold"), said))


def transform(call: str) -> Any:
    """The transform that a call such as `muon(0.02)` or `optax:adamw(1e-3)` makes."""
    name, opening, _ = call.partition("(")
    args, kwargs = arguments(call, name) if opening else ((), {})
    if ":" in name:
        make = spec.find(name)
    else:
        known = [m.name for m in METHODS if m.kind in KINDS]
        everything = "gradkit list names them all; another's is module:factory."
        make = getattr(gk, pick("method", name, known, everything))
    if spec.is_transform(make) and not opening:
        return make
    with spec.refused(f"{call!r} makes no transform"):
        made = make(*args, **kwargs)
    if not spec.is_transform(made):
        raise Complaint(f"{call!r} must make a transform, got {made!r}.")
    return made


def arguments(call: str, name: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, which are numbers and strings; nothing is evaluated."""
    wrong = Complaint(
        f"{call!r} must read name(0.02, rank=8), with numbers and strings alone."
    )
    try:
        parsed = ast.parse(f"f{call.removeprefix(name)}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if not (isinstance(parsed, ast.Call) and isinstance(parsed.func, ast.Name)):
        raise wrong
    if any(k.arg is None for k in parsed.keywords):  # of **
        raise wrong
    try:
        values = [_literal(x) for x in parsed.args]
        named = {str(k.arg): _literal(k.value) for k in parsed.keywords}
    except ValueError:
        raise wrong from None
    return values, named


def _literal(x: ast.expr) -> Any:
    """The number, bool or string that is written there; anything else is a `ValueError`."""
    value = ast.literal_eval(x)
    if not isinstance(value, int | float | str):
        raise ValueError
    return value
