"""An interpreter of jaxprs over abstract values, for every supported version of JAX."""

import abc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from jax.extend import core
from jax.interpreters import partial_eval

from gradkit._core.jaxpr.primitives import PARTED

V = TypeVar("V")  # abstract value of an array


def opened(program: Any) -> Any:
    """The open jaxpr of `program`, closed or not."""
    return getattr(program, "jaxpr", program)


def without_dead_code(program: Any) -> Any:
    """`program` without the equations that no result depends on."""
    jaxpr = program.jaxpr
    every = [True] * len(jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, every, instantiate=True)
    return core.ClosedJaxpr(jaxpr, program.consts)


def with_more_axes(inside: Iterable[Any], outside: Iterable[Any], more: int) -> int:
    """Count the arrays that have exactly `more` additional axes outside a jaxpr."""
    pairs = ((x.aval, y.aval) for x, y in zip(inside, outside))
    return sum(hasattr(x, "ndim") and x.ndim + more == y.ndim for x, y in pairs)


def callee(eqn: Any) -> Any:
    """The jaxpr that an equation calls on its operands; None if it calls none, or several."""
    inner = [p for p in eqn.params.values() if hasattr(p, "eqns")]
    if len(inner) != 1:
        return None
    names, n = opened(inner[0]).invars, len(eqn.invars)
    same = len(names) == n and with_more_axes(names, eqn.invars, 0) == n
    return inner[0] if same else None


class ScanLayout:
    """Layout of the operands of a scan: constants, carries, scanned arrays."""

    def __init__(self, eqn: Any):
        """Read the layout from the shapes in one equation."""
        inside = opened(eqn.params["jaxpr"])
        self.num_carry = with_more_axes(inside.outvars, eqn.outvars, 0)
        unscanned = len(eqn.invars) - with_more_axes(inside.invars, eqn.invars, 1)
        self.carries = range(unscanned - self.num_carry, unscanned)

    def split(self, xs: Sequence[V]) -> tuple[Sequence[V], Sequence[V], Sequence[V]]:
        """Split the operands into constants, carries and scanned arrays."""
        first, last = self.carries.start, self.carries.stop
        return xs[:first], xs[first:last], xs[last:]


class Walker(abc.ABC, Generic[V]):
    """Abstract interpreter of a jaxpr; calls are interpreted inline.

    A subclass defines the value of a constant and one transfer function for each kind of equation:
    from the values of the operands to those of the results.
    """

    @abc.abstractmethod
    def constant(self, x: Any) -> V:
        """Value of a literal, or of a constant of a jaxpr."""

    @abc.abstractmethod
    def primitive(self, eqn: Any, xs: list[V]) -> list[V]:
        """Transfer function of an equation without an inner jaxpr."""

    @abc.abstractmethod
    def per_device(self, program: Any, eqn: Any, xs: list[V]) -> list[V]:
        """Transfer function of `shard_map`: each device runs `program` on its shards."""

    @abc.abstractmethod
    def scan(self, eqn: Any, xs: list[V]) -> list[V]:
        """Transfer function of a scan."""

    @abc.abstractmethod
    def while_loop(self, eqn: Any, xs: list[V]) -> list[V]:
        """Transfer function of a while loop."""

    @abc.abstractmethod
    def cond(self, eqn: Any, xs: list[V]) -> list[V]:
        """Transfer function of a choice of branches."""

    def shared(self, x: V) -> V:
        """Value of an array that several equations read; `x` is its value for one of them."""
        return x

    def run(self, program: Any, args: Iterable[V]) -> list[V]:
        """Interpret a jaxpr, closed or not, on `args`; return the values of its results."""
        jaxpr = opened(program)
        readers = Counter(
            x
            for eqn in jaxpr.eqns
            for x in {x for x in eqn.invars if not isinstance(x, core.Literal)}
        )
        readers.update(x for x in jaxpr.outvars if not isinstance(x, core.Literal))
        reused = {x for x, n in readers.items() if n > 1}
        consts = map(self.constant, getattr(program, "consts", ()))
        env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
        env |= {x: self.shared(env[x]) for x in reused & env.keys()}
        for eqn in jaxpr.eqns:
            results = self.equation(eqn, self.read(env, eqn.invars))
            env |= {
                name: self.shared(x) if name in reused else x
                for name, x in zip(eqn.outvars, results)
            }
        return self.read(env, jaxpr.outvars)

    def read(self, env: Mapping[Any, V], atoms: Iterable[Any]) -> list[V]:
        """Values of variables and literals."""
        return [
            self.constant(x.val) if isinstance(x, core.Literal) else env[x]
            for x in atoms
        ]

    def equation(self, eqn: Any, xs: list[V]) -> list[V]:
        """Dispatch one equation to its transfer function."""
        match eqn.primitive.name:
            case "scan":
                return self.scan(eqn, xs)
            case "while":
                return self.while_loop(eqn, xs)
            case "cond":
                return self.cond(eqn, xs)
        inner = callee(eqn)
        if inner is None:
            return self.primitive(eqn, xs)
        if eqn.primitive.name in PARTED:
            return self.per_device(inner, eqn, xs)
        return self.run(inner, xs)
