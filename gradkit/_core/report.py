"""Numbers that the parts of a transform report while a `gradkit.measure` around them collects.

Where none collects, a report computes nothing. A part reports in the trace of the `measure`, or in
a branch that `through` runs; in any other branch, loop or nested `jit` its reports are dropped, as
no tracer may leave them.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import norms, numbers
from gradkit._core.numbers import Tree
from gradkit._core.versions import trace_state


class Report(NamedTuple):
    """One number or event of one update."""

    value: jax.Array  # float32 [] of a number, bool [] of an event
    made: (
        jax.Array
    )  # bool [], whether the part that reports it ran; `value` is 0 where not


@dataclasses.dataclass
class Reports:
    """All numbers and events of one update, by name."""

    trace: Any = dataclasses.field(default_factory=trace_state)
    prefix: str = ""  # the groups that the current part is in
    numbers: dict[str, Report] = dataclasses.field(default_factory=dict)
    events: dict[str, Report] = dataclasses.field(default_factory=dict)

    def name(self, name: str) -> str:
        """`name` behind its groups; the second part of this name is numbered `_2`."""
        part, slash, number = name.partition("/")
        taken = {*self.numbers, *self.events}
        names = (f"{self.prefix}{p}{slash}{number}" for p in _numbered(part))
        return next(x for x in names if x not in taken)

    def group(self, name: str) -> str:
        """The prefix of a group, which no report has so far."""
        taken = [*self.numbers, *self.events]
        prefixes = (f"{self.prefix}{group}/" for group in _numbered(name))
        return next(x for x in prefixes if not any(k.startswith(x) for k in taken))


_reports: ContextVar[Reports | None] = ContextVar("gradkit.reports", default=None)


def _numbered(name: str) -> Iterator[str]:
    """`name`, `name_2`, `name_3` and so on."""
    yield name
    n = 2
    while True:
        yield f"{name}_{n}"
        n += 1


def _open() -> Reports | None:
    """Where reports go; None if nothing collects in this trace."""
    reports = _reports.get()
    return reports if reports is not None and reports.trace == trace_state() else None


def is_collecting() -> bool:
    """Whether a report made here is collected."""
    return _open() is not None


@contextlib.contextmanager
def collecting() -> Iterator[Reports]:
    """In this context reports go to the `Reports` that it yields."""
    reports = Reports()
    token = _reports.set(reports)
    try:
        yield reports
    finally:
        _reports.reset(token)


def apart(t: Tree) -> Tree:
    """`t`, behind a barrier, so that XLA fuses what a report computes with nothing of an update.

    Another fusion may round otherwise.
    """
    return jax.lax.optimization_barrier(t)


def number(name: str, x: Any) -> None:
    """Report the number `x` of this update, such as `learning_rate`."""
    if (reports := _open()) is not None:
        value = jax.lax.stop_gradient(apart(jnp.asarray(x)).astype(jnp.float32))
        reports.numbers[reports.name(name)] = Report(value, jnp.array(True))


def event(name: str, happened: jax.Array) -> None:
    """Report whether an event, such as `guard_by_finite/skipped`, happened in this update."""
    if (reports := _open()) is not None:
        reports.events[reports.name(name)] = Report(apart(happened), jnp.array(True))


def skipping(method: str, good: jax.Array) -> None:
    """Report that a step is skipped where it is not `good`."""
    if is_collecting():
        event(f"{method}/skipped", ~good)


def clipping(method: str, factors: Tree) -> None:
    """Report whether a clip shortened anything, and the smallest factor it multiplied by.

    `factors` is a tree of arrays of factors, at most 1 each.
    """
    if is_collecting():
        xs = [jnp.asarray(1.0), *jax.tree.leaves(apart(factors))]
        event(f"{method}/clipped", jnp.any(jnp.stack([jnp.any(x < 1) for x in xs])))
        least = [jnp.min(x, initial=1).astype(jnp.float32) for x in xs]
        number(f"{method}/factor", jnp.min(jnp.stack(least)))


def sizes(gradient: Tree, update: Tree, params: Tree) -> None:
    """Report the norms of a gradient, an update and the parameters, unless these are None.

    Non-finite entries count as zero.
    """
    if not is_collecting():
        return
    update_norm = _norm(update)
    number("gradient_norm", _norm(gradient))
    number("update_norm", update_norm)
    if params is not None:
        param_norm = _norm(params)
        number("param_norm", param_norm)
        ratio = update_norm / jnp.where(param_norm > 0, param_norm, 1)
        number("update_to_param", jnp.where(param_norm > 0, ratio, 0))


def _norm(t: Tree) -> jax.Array:
    """The norm of all real and complex leaves, in float32."""
    parts = []
    for x in jax.tree.leaves(t):
        if numbers.is_real(x):
            parts.append(x)
        elif numbers.is_trained(x):
            parts += [jnp.real(x), jnp.imag(x)]
    return norms.of_tree(parts).astype(jnp.float32)


@contextlib.contextmanager
def group(name: str) -> Iterator[None]:
    """In this context names begin with that of a group of leaves, and a slash."""
    reports = _open()
    if reports is None:
        yield
        return
    outer = reports.prefix
    reports.prefix = reports.group(name)
    try:
        yield
    finally:
        reports.prefix = outer


def through(
    update: Callable[[Any], tuple[Tree, Any]],
    state: Any,
    run: Callable[[Callable[[Any], tuple[Tree, Any]], Any], tuple[Tree, Any]],
) -> tuple[Tree, Any]:
    """`run(update, state)`, which calls `update` in a branch, and else keeps the state.

    While a `measure` collects, what `update` reports goes through that branch with the state.
    """
    reports = _open()
    if reports is None:
        return run(update, state)

    def reporting(carry: Any) -> tuple[Tree, Any]:
        with collecting() as inside:
            u, after = update(carry[0])
        return u, (after, (inside.numbers, inside.events))

    kinds = jax.eval_shape(lambda: reporting((state, None))[1][1])
    not_made = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), kinds)
    u, (after, inside) = run(reporting, (state, not_made))
    for found, into in zip(inside, (reports.numbers, reports.events)):
        for k, report in found.items():
            into[reports.name(k)] = report
    return u, after
