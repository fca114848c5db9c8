"""What jaxprs are made of, in any version of JAX, and the one way through them."""

import abc
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from jax.extend import core
from jax.interpreters import partial_eval

V = TypeVar("V")  # what is known of an array


def opened(program: Any) -> Any:
    """A jaxpr without its constants."""
    return getattr(program, "jaxpr", program)


def needed(program: Any) -> Any:
    """A closed jaxpr without the equations that no result needs."""
    jaxpr = program.jaxpr
    every = [True] * len(jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, every, instantiate=True)
    return core.ClosedJaxpr(jaxpr, program.consts)


def with_more_axes(inside: Iterable[Any], outside: Iterable[Any], more: int) -> int:
    """How many arrays have so many `more` axes outside a jaxpr than inside."""
    pairs = ((x.aval, y.aval) for x, y in zip(inside, outside))
    return sum(hasattr(x, "ndim") and x.ndim + more == y.ndim for x, y in pairs)


def called(eqn: Any) -> Any:
    """The one jaxpr that an equation calls on its operands, if it does."""
    inner = [p for p in eqn.params.values() if hasattr(opened(p), "eqns")]
    if len(inner) != 1 or len(opened(inner[0]).invars) != len(eqn.invars):
        return None
    same = with_more_axes(opened(inner[0]).invars, eqn.invars, 0)
    return inner[0] if same == len(eqn.invars) else None


class Turns:
    """The operands and results of a scan: constants, carries, and what it takes in turns."""

    def __init__(self, eqn: Any):
        """Those of one equation."""
        inside = opened(eqn.params["jaxpr"])
        self.carried = with_more_axes(inside.outvars, eqn.outvars, 0)
        turned = len(eqn.invars) - with_more_axes(inside.invars, eqn.invars, 1)
        self.carries = range(turned - self.carried, turned)

    def split(self, xs: Sequence[V]) -> tuple[Sequence[V], Sequence[V], Sequence[V]]:
        """Constants, carries and rows among the operands."""
        first, last = self.carries.start, self.carries.stop
        return xs[:first], xs[first:last], xs[last:]


class Walker(abc.ABC, Generic[V]):
    """Follows what is known of arrays from equation to equation, into every call.

    A subclass says what is known of a constant, and of the results of each equation. Scans,
    loops and branches are its methods of these names.
    """

    @abc.abstractmethod
    def constant(self, x: Any) -> V:
        """What is known of a literal, or of a constant of a jaxpr."""

    @abc.abstractmethod
    def primitive(self, eqn: Any, xs: list[V]) -> list[V]:
        """What is known of the results of an equation that calls nothing."""

    def call(self, program: Any, eqn: Any, xs: list[V]) -> list[V]:
        """The same of one that calls a `program` on its operands."""
        del eqn
        return self.run(program, xs)

    def shared(self, x: V) -> V:
        """What is known of an array that several equations read."""
        return x

    def run(self, program: Any, args: Iterable[V]) -> list[V]:
        """The results of a jaxpr, closed or not."""
        jaxpr = opened(program)
        consts = map(self.constant, getattr(program, "consts", ()))
        readers = Counter(
            x for eqn in jaxpr.eqns for x in {*filter(_is_name, eqn.invars)}
        )
        readers.update(filter(_is_name, jaxpr.outvars))
        known: dict[Any, V] = {}

        def keep(names: Iterable[Any], xs: Iterable[V]) -> None:
            known.update(
                (name, self.shared(x) if readers[name] > 1 else x)
                for name, x in zip(names, xs)
            )

        def read(x: Any) -> V:
            return known[x] if _is_name(x) else self.constant(x.val)

        keep((*jaxpr.constvars, *jaxpr.invars), (*consts, *args))
        for eqn in jaxpr.eqns:
            keep(eqn.outvars, self.equation(eqn, [*map(read, eqn.invars)]))
        return [read(x) for x in jaxpr.outvars]

    def equation(self, eqn: Any, xs: list[V]) -> list[V]:
        """The results of one equation."""
        name = eqn.primitive.name
        if name in ("scan", "while", "cond"):
            return getattr(self, f"{name}_")(eqn, xs)
        inner = called(eqn)
        return self.primitive(eqn, xs) if inner is None else self.call(inner, eqn, xs)


def _is_name(x: Any) -> bool:
    return not isinstance(x, core.Literal)
