"""What jaxprs are made of, in any version of JAX, and the one way through them."""

import abc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from jax.extend import core
from jax.interpreters import partial_eval

from gradkit._core.jaxpr.primitives import PARTED

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
    inner = [p for p in eqn.params.values() if hasattr(p, "eqns")]
    if len(inner) != 1:
        return None
    names, n = opened(inner[0]).invars, len(eqn.invars)
    same = len(names) == n and with_more_axes(names, eqn.invars, 0) == n
    return inner[0] if same else None


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

    A subclass says what is known of a constant, and of the results of each equation: of one that
    calls nothing, of a scan, a loop, and a choice of branches.
    """

    @abc.abstractmethod
    def constant(self, x: Any) -> V:
        """What is known of a literal, or of a constant of a jaxpr."""

    @abc.abstractmethod
    def primitive(self, eqn: Any, xs: list[V]) -> list[V]:
        """What is known of the results of an equation that calls nothing."""

    @abc.abstractmethod
    def parts(self, program: Any, eqn: Any, xs: list[V]) -> list[V]:
        """The same of one whose `program` each device runs on its parts of the operands."""

    @abc.abstractmethod
    def scan(self, eqn: Any, xs: list[V]) -> list[V]:
        """The same of a scan."""

    @abc.abstractmethod
    def while_loop(self, eqn: Any, xs: list[V]) -> list[V]:
        """The same of a loop."""

    @abc.abstractmethod
    def cond(self, eqn: Any, xs: list[V]) -> list[V]:
        """The same of a choice of branches."""

    def shared(self, x: V) -> V:
        """What is known of an array that several equations read."""
        return x

    def run(self, program: Any, args: Iterable[V]) -> list[V]:
        """The results of a jaxpr, closed or not."""
        jaxpr = opened(program)
        readers = Counter(
            x
            for eqn in jaxpr.eqns
            for x in {x for x in eqn.invars if not isinstance(x, core.Literal)}
        )
        readers.update(x for x in jaxpr.outvars if not isinstance(x, core.Literal))
        several = {x for x, n in readers.items() if n > 1}
        consts = map(self.constant, getattr(program, "consts", ()))
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        known |= {x: self.shared(known[x]) for x in several & known.keys()}
        for eqn in jaxpr.eqns:
            found = self.equation(eqn, self.read(known, eqn.invars))
            known |= {
                name: self.shared(x) if name in several else x
                for name, x in zip(eqn.outvars, found)
            }
        return self.read(known, jaxpr.outvars)

    def read(self, known: Mapping[Any, V], atoms: Iterable[Any]) -> list[V]:
        """What is known of names and literals."""
        return [
            self.constant(x.val) if isinstance(x, core.Literal) else known[x]
            for x in atoms
        ]

    def equation(self, eqn: Any, xs: list[V]) -> list[V]:
        """The results of one equation."""
        match eqn.primitive.name:
            case "scan":
                return self.scan(eqn, xs)
            case "while":
                return self.while_loop(eqn, xs)
            case "cond":
                return self.cond(eqn, xs)
        inner = called(eqn)
        if inner is None:
            return self.primitive(eqn, xs)
        if eqn.primitive.name in PARTED:
            return self.parts(inner, eqn, xs)
        return self.run(inner, xs)
