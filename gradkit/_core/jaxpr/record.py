"""What flows through a function: every product of its parameters, found in its jaxpr.

The equations are evaluated one by one, calls, scans and branches from inside, so that nothing
in the function has to be marked. What no result needs is left out. A `while_loop` or a kernel
is run as it is, unseen.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import versions
from gradkit._core.jaxpr import axes
from gradkit._core.jaxpr.axes import NONE, Labels
from gradkit._core.jaxpr.primitives import (
    LINEAR,
    MOVES,
    NUMBERS,
    PRODUCTS,
    SCALES,
    SUMS,
)
from gradkit._core.jaxpr.walk import Turns, Walker, needed, opened
from gradkit._core.paths import leaf_paths


class Origin(NamedTuple):
    """What a value was last made from; a constant has none."""

    order: int  # of a site, from 1; -1 for a parameter, 0 for another input
    name: str
    itself: bool = False  # whether it is the site's activation, at most rearranged


class Term(NamedTuple):
    """What a product of entries is of: of its sum, if nothing else reads it."""

    name: str
    own: Labels  # the axes along which both factors have entries of their own
    site: Origin | None = None  # of which a parameter is a part that is but multiplied
    before: Any = None  # the activation of `site` without it


class Value(NamedTuple):
    """An array, and what is known of it."""

    x: Any
    origin: Origin | None = None
    own: Labels = NONE  # the axes along which its entries may differ
    term: Term | None = None


def activations(
    f: Callable[..., Any], params: Any, *args: Any
) -> list[tuple[str, jax.Array]]:
    """The name and activation of every site in `f(params, *args)`, in order.

    A site is a product with a parameter, named by its path; a product of two activations,
    named by both; or a sum of two, named `+` and the newer. A name met again is numbered.
    Products are matrix products, convolutions, lookups, and sums over products of entries.
    A number or a parameter that multiplies a product or is added, such as a bias, belongs to
    it. Inside a scan all turns are stacked; in a branch not taken all are zero.
    """
    program = needed(jax.make_jaxpr(f)(params, *args))
    arrays = jax.tree.leaves((params, args))
    origins = [Origin(-1, path or "params") for path in leaf_paths(params)]
    origins += [Origin(0, "input")] * (len(arrays) - len(origins))
    inputs = [Value(x, o, _every(jnp.shape(x))) for x, o in zip(arrays, origins)]
    body = Body(program, inputs, itertools.count(1))
    _, found = body(arrays)
    met: collections.Counter[str] = collections.Counter()
    named = []
    for site, activation in zip(body.sites, found):
        met[site.name] += 1
        again = f" ({met[site.name]})" * (met[site.name] > 1)
        named.append((site.name + again, activation))
    return named


class Body(Walker[Value]):
    """A jaxpr as a function of arrays, that also returns the activations of its sites.

    Its `sites`, and what is known of the results, `ends`, are known after a call.
    """

    def __init__(self, program: Any, inputs: Sequence[Value], order: Iterator[int]):
        """With what is known of the arrays it will be called with, and the count of all sites."""
        self.program, self.inputs, self.order = program, [*inputs], order
        self.found: dict[Origin, Any] = {}
        self.ends: Sequence[Value] = []

    def __call__(self, xs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The outputs, and the activations."""
        self.found = {}
        given = (value._replace(x=x) for value, x in zip(self.inputs, xs))
        self.ends = self.run(self.program, given)
        return [value.x for value in self.ends], [*self.found.values()]

    @property
    def sites(self) -> list[Origin]:
        """In the order of the activations."""
        return list(self.found)

    def settle(self, carries: range) -> None:
        """Carries that start as constants or parameters are what a turn makes of them."""
        avals = [v.aval for v in opened(self.program).invars]
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        late = [i for i in carries if not _fed(self.inputs[i])]
        while late:
            jax.eval_shape(lambda xs: self(xs), shapes)  # anew: jax knows `self`
            made = dict(zip(carries, self.ends))
            fed = {i: _used(made[i]) for i in late if _fed(made[i])}
            self.inputs = [fed.get(i, value) for i, value in enumerate(self.inputs)]
            late = [i for i in late if i not in fed] if fed else []

    def constant(self, x: Any) -> Value:
        """A literal, or a constant of a jaxpr."""
        return Value(x, own=_every(jnp.shape(x)))

    def shared(self, x: Value) -> Value:
        """What several read is not the sum's alone."""
        return x._replace(term=None)

    def parts(self, program: Any, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of a program that sees parts of arrays, unseen."""
        del program
        return self.primitive(eqn, xs)

    def while_loop(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of a loop, unseen."""
        return self.primitive(eqn, xs)

    def primitive(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The outputs of an equation that calls nothing, kept if it is a site."""
        kind = eqn.primitive.name
        out = versions.bind(eqn, [value.x for value in xs])
        outs = [*out] if eqn.primitive.multiple_results else [out]
        if kind in MOVES:
            return [_moved(value, eqn, x) for value, x in zip(xs, outs)]
        if not outs:  # of a print, say
            return []
        name = self._summed(eqn, xs) or _site(kind, xs)
        newest = max((v.origin for v in xs if v.origin is not None), default=None)
        term = None if name else self._term(eqn, xs, jnp.shape(outs[0]))
        if name is not None:
            newest = Origin(next(self.order), name, itself=True)
            self.found[newest] = outs[0]
        elif newest is not None and newest.itself:
            if _scaled(kind, xs, newest):
                self.found[newest] = outs[0]
            else:
                newest = newest._replace(itself=False)
        return [Value(x, newest, _own(eqn, xs, x), term) for x in outs]

    def _summed(self, eqn: Any, xs: list[Value]) -> str | None:
        """The name of the site that a sum is, if it is one over a product of entries."""
        term = xs[0].term if eqn.primitive.name == "reduce_sum" else None
        if term is None or not term.own & {*eqn.params["axes"]}:
            return None
        if term.site is not None:  # of which the parameter was no part
            self.found[term.site] = term.before
        return term.name

    def _term(self, eqn: Any, xs: list[Value], shape: Sequence[int]) -> Term | None:
        """What a result of `shape` is a product of, entry by entry, before it is summed."""
        kind = eqn.primitive.name
        for x in (x for x in xs if x.term):
            linear = kind in LINEAR or kind == "mul" or (kind == "div" and x is xs[0])
            if linear and not any(other.origin for other in xs if other is not x):
                return _term_along(x, eqn, shape)
        name = _product(xs) if kind == "mul" else None
        own = frozenset.intersection(*(v.own for v in xs)) if name else NONE
        if name is None or not own:
            return None
        for site in (v.origin for v in xs if v.origin and v.origin.itself):
            return Term(name, own, site, self.found[site])
        return Term(name, own)

    def scan(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The outputs of a scan."""
        turns = Turns(eqn)
        consts, carry, rows = turns.split([*map(_used, xs)])
        carry = [value._replace(own=_every(jnp.shape(value.x))) for value in carry]
        inside = [value._replace(own=_row(value.own)) for value in rows]
        body = Body(eqn.params["jaxpr"], [*consts, *carry, *inside], self.order)
        body.settle(turns.carries)
        last, (ys, found) = jax.lax.scan(
            functools.partial(_turn, body, [v.x for v in consts], turns.carried),
            [value.x for value in carry],
            [value.x for value in rows],
            eqn.params["length"],
            eqn.params["reverse"],
        )
        self.found |= zip(body.sites, found)
        return [*map(_outside, [*last, *ys], body.ends)]

    def cond(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The outputs of the branch taken."""
        index, *rest = xs
        inside, arrays = [*map(_used, rest)], [value.x for value in rest]
        bodies = [Body(b, inside, self.order) for b in eqn.params["branches"]]
        shapes = [jax.eval_shape(lambda xs, b=b: b(xs)[1], arrays) for b in bodies]
        zeros = [[jnp.zeros(s.shape, s.dtype) for s in shape] for shape in shapes]
        arms = [
            functools.partial(_arm, body, i, zeros) for i, body in enumerate(bodies)
        ]
        outs, found = jax.lax.switch(index.x, arms, *arrays)
        self.found |= zip((site for body in bodies for site in body.sites), found)
        either = zip(*(body.ends for body in bodies))
        newest = [
            max(ends, key=lambda v: v.origin or Origin(-2, "")) for ends in either
        ]
        return [*map(_outside, outs, newest)]


def _turn(body: Body, consts: list[Any], n: int, carry: Any, row: Any) -> Any:
    """One turn of a scan with `n` carries: these, and results and activations beside them."""
    outs, found = body([*consts, *carry, *row])
    return outs[:n], (outs[n:], found)


def _arm(body: Body, i: int, zeros: list[list[Any]], *xs: Any) -> Any:
    """The branch `i`: its results and the activations of all, those of others `zeros`."""
    outs, found = body(xs)
    kept = [*zeros[:i], found, *zeros[i + 1 :]]
    return outs, [*itertools.chain.from_iterable(kept)]


def _every(shape: Sequence[int]) -> Labels:
    """All axes of more than one entry."""
    return frozenset(i for i, n in enumerate(shape) if n > 1)


def _row(own: Labels) -> Labels:
    """The axes of one row of an array."""
    return frozenset(i - 1 for i in own if i)


def _along(own: Labels, old: Sequence[int], eqn: Any, new: Sequence[int]) -> Labels:
    """The axes of a result of shape `new` that axes `own` of an operand have become."""
    old_axes = [axes.axis(frozenset({i}) & own, n) for i, n in enumerate(old)]
    found = axes.move(old_axes, eqn, new)
    if found is None:
        return _every(new)
    return frozenset(i for i, axis in enumerate(found) if axes.labels([axis]))


def _own(eqn: Any, xs: list[Value], out: Any) -> Labels:
    """The axes along which the entries of a result may differ."""
    new = jnp.shape(out)
    if not xs or eqn.primitive.name not in NUMBERS:
        return _every(new)
    return NONE.union(*(_along(v.own, jnp.shape(v.x), eqn, new) for v in xs))


def _moved(value: Value, eqn: Any, x: Any) -> Value:
    """What is known of a value that was moved to become `x`."""
    old, new = jnp.shape(value.x), jnp.shape(x)
    own = _along(value.own, old, eqn, new)
    return Value(x, value.origin, own, _term_along(value, eqn, new))


def _term_along(value: Value, eqn: Any, new: Sequence[int]) -> Term | None:
    """The term of an operand in a result of shape `new` that is linear in it."""
    term = value.term
    own = _along(term.own, jnp.shape(value.x), eqn, new) if term else NONE
    return term and term._replace(own=own)


def _used(value: Value) -> Value:
    """What is no longer the activation itself, nor waits to be summed."""
    origin = value.origin and value.origin._replace(itself=False)
    return value._replace(origin=origin, term=None)


def _outside(x: Any, end: Value) -> Value:
    """A result of a scan or a branch, from what is known of it inside."""
    return _used(end)._replace(x=x, own=_every(jnp.shape(x)))


def _fed(value: Value) -> bool:
    """Whether it depends on an input."""
    return value.origin is not None and value.origin.order >= 0


def _scaled(kind: str, xs: list[Value], site: Origin) -> bool:
    """Whether all that is done to an activation is of its own: numbers and parameters."""
    if kind not in SUMS | SCALES or (kind == "div" and xs[0].origin != site):
        return False
    others = [value for value in xs if value.origin != site]
    numbers = (not v.own if v.origin is None else v.origin.order < 0 for v in others)
    return bool(others) and all(numbers)


def _product(xs: list[Value]) -> str | None:
    """The name of a product, entry by entry, of an activation and something else but data."""
    held, fed = _apart(xs)
    if held:
        return held[0] if fed else None
    return _both([*fed.values()]) if len(fed) == 2 and 0 not in fed else None


def _site(kind: str, xs: list[Value]) -> str | None:
    """The name of the site that an operation on these is, if it is one."""
    held, fed = _apart(xs)
    if fed and (kind in PRODUCTS or (kind == "gather" and held)):
        return held[0] if held else _both([*fed.values()])
    if len(fed) == 2 and kind in SUMS - {"sub"}:
        return f"+ {[*fed.values()][1].removeprefix('+ ')}"
    return None


def _apart(xs: list[Value]) -> tuple[list[str], dict[int, str]]:
    """The names of parameters; those of inputs and sites by their order, the oldest first."""
    origins = [value.origin for value in xs if value.origin is not None]
    fed = {o.order: o.name for o in origins if o.order >= 0}
    return [o.name for o in origins if o.order < 0], dict(sorted(fed.items()))


def _both(names: list[str]) -> str:
    """Names with their common folder said once."""
    parts = [name.split("/") for name in names]
    folders = zip(*(part[:-1] for part in parts))
    shared = len([*itertools.takewhile(lambda names: len({*names}) == 1, folders)])
    ends = " · ".join("/".join(part[shared:]) for part in parts)
    return "/".join([*parts[0][:shared], ends])
