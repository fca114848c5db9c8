"""What flows through a function: every product of its parameters, found in its jaxpr.

The equations are evaluated one by one, calls, scans and branches from inside, so that nothing
in the function has to be marked. A `while_loop` or a kernel is run as it is, unseen.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from gradkit._core import tree, versions

PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")
SCALES = ("add", "sub", "mul", "div")
MOVES = ("reshape", "transpose", "broadcast_in_dim", "squeeze", "convert_element_type")
OPAQUE = ("while", "pallas_call", "shard_map", "custom_partitioning")


class Origin(NamedTuple):
    """What a value was last made from; a constant has none."""

    order: int  # of a site, from 1; -1 for a parameter, 0 for another input
    name: str
    itself: bool = False  # whether it is the site's activation, at most rearranged


Origins = Sequence[Origin | None]
Value = tuple[Any, Origin | None]


def activations(
    f: Callable[..., Any], params: Any, *args: Any
) -> list[tuple[str, jax.Array]]:
    """The name and activation of every site in `f(params, *args)`, in order.

    A site is a product with a parameter, named by its path; a product of two activations,
    named by both; or a sum of two, named `+` and the newer. A name met again is numbered.
    A number or a parameter that multiplies a product or is added, such as a bias, belongs to
    it. Inside a scan all turns are stacked; in a branch not taken all are zero.
    """
    jaxpr = jax.make_jaxpr(f)(params, *args)
    inputs = jax.tree.leaves(args)
    origins = [Origin(-1, path or "params") for path in tree.paths(params)]
    origins += [Origin(0, "input")] * len(inputs)
    body = Body(jaxpr, origins, itertools.count(1))
    _, found = body([*jax.tree.leaves(params), *inputs])
    met: collections.Counter[str] = collections.Counter()
    named = []
    for site, activation in zip(body.sites, found):
        met[site.name] += 1
        again = f" ({met[site.name]})" * (met[site.name] > 1)
        named.append((site.name + again, activation))
    return named


class Body:
    """A jaxpr as a function of arrays, that also returns the activations of its sites.

    Its `sites`, and what the outputs originate from, `ends`, are known after a call.
    """

    def __init__(self, jaxpr: Any, origins: Origins, order: Iterator[int]):
        """With the origins of the arrays it will be called with, and the count of all sites."""
        self.jaxpr, self.origins, self.order = jaxpr, origins, order
        self.found: dict[Origin, Any] = {}
        self.ends: Origins = []

    def __call__(self, xs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The outputs, and the activations."""
        self.found = {}
        outs = self.evaluate(self.jaxpr, zip(xs, self.origins))
        self.ends = [origin for _, origin in outs]
        return [x for x, _ in outs], list(self.found.values())

    @property
    def sites(self) -> list[Origin]:
        """In the order of the activations."""
        return list(self.found)

    @property
    def open(self) -> Any:
        """The jaxpr without its constants."""
        return getattr(self.jaxpr, "jaxpr", self.jaxpr)

    def settle(self, carries: range) -> None:
        """Carries that start as constants or parameters are what a turn makes of them."""
        avals = [v.aval for v in self.open.invars]
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        late = [i for i in carries if not _fed(self.origins[i])]
        while late:
            jax.eval_shape(lambda xs: self(xs), shapes)  # anew: jax knows `self`
            made = dict(zip(carries, self.ends))
            fed = {i: _used(made[i]) for i in late if _fed(made[i])}
            self.origins = [fed.get(i, origin) for i, origin in enumerate(self.origins)]
            late = [i for i in late if i not in fed] if fed else []

    def evaluate(self, jaxpr: Any, arguments: Iterable[Value]) -> list[Value]:
        """The outputs of a jaxpr, closed or not."""
        values = [(c, None) for c in getattr(jaxpr, "consts", ())] + [*arguments]
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        env: dict[Any, Value] = dict(zip([*jaxpr.constvars, *jaxpr.invars], values))

        def read(atom: Any) -> Value:
            return (atom.val, None) if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            env |= zip(eqn.outvars, self.equation(eqn, [*map(read, eqn.invars)]))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, eqn: Any, operands: list[Value]) -> list[Value]:
        """The outputs of one equation."""
        kind, p = eqn.primitive.name, eqn.params
        called = p.get("jaxpr", p.get("call_jaxpr"))
        xs, origins = [x for x, _ in operands], [origin for _, origin in operands]
        if kind == "scan":
            return self.scan(eqn, xs, origins)
        if kind == "cond":
            return self.branch(p["branches"], xs, origins)
        if called is None or kind in OPAQUE:
            return self.primitive(eqn, xs, origins)
        return self.evaluate(called, operands)

    def primitive(self, eqn: Any, xs: list[Any], origins: Origins) -> list[Value]:
        """The outputs of an equation that calls nothing, kept if it is a site."""
        kind = eqn.primitive.name
        out = versions.bind(eqn, xs)
        outs = out if eqn.primitive.multiple_results else [out]
        known = [origin for origin in origins if origin is not None]
        newest = max(known, default=None)
        name = _site(kind, known)
        if name is not None:
            newest = Origin(next(self.order), name, itself=True)
            self.found[newest] = outs[0]
        elif newest is not None and newest.itself:
            others = [(x, o) for x, o in zip(xs, origins) if o != newest]
            if kind in SCALES and all(_belongs(x, o) for x, o in others) and others:
                self.found[newest] = outs[0]
            elif kind not in MOVES:
                newest = _used(newest)
        return [(x, newest) for x in outs]

    def scan(self, eqn: Any, xs: list[Any], origins: Origins) -> list[Value]:
        """The outputs of a scan: what has an axis more outside than inside takes turns."""
        body = Body(eqn.params["jaxpr"], [*map(_used, origins)], self.order)
        turned = sum(map(_alike, eqn.invars, body.open.invars))  # from here
        carried = sum(map(_alike, eqn.outvars, body.open.outvars))
        carries = range(turned - carried, turned)
        consts, start = xs[: carries.start], xs[carries.start : turned]
        body.settle(carries)

        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            outs, found = body([*consts, *carry, *x])
            return outs[:carried], (outs[carried:], found)

        length, reverse = eqn.params["length"], eqn.params["reverse"]
        last, (ys, found) = jax.lax.scan(step, start, xs[turned:], length, reverse)
        self.found |= zip(body.sites, found)
        return list(zip([*last, *ys], map(_used, body.ends)))

    def branch(
        self, branches: Sequence[Any], xs: list[Any], origins: Origins
    ) -> list[Value]:
        """The outputs of the branch taken."""
        index, *xs = xs
        inside = [*map(_used, origins[1:])]
        bodies = [Body(b, inside, self.order) for b in branches]
        shapes = [jax.eval_shape(lambda xs, b=b: b(xs)[1], xs) for b in bodies]
        zeros = [[jnp.zeros(s.shape, s.dtype) for s in shape] for shape in shapes]

        def arm(i: int) -> Callable[..., Any]:
            def run(*xs: Any) -> Any:
                outs, found = bodies[i](xs)
                kept = [*zeros[:i], found, *zeros[i + 1 :]]
                return outs, [*itertools.chain.from_iterable(kept)]

            return run

        arms = [arm(i) for i in range(len(bodies))]
        outs, found = jax.lax.switch(index, arms, *xs)
        self.found |= zip((site for body in bodies for site in body.sites), found)
        ends = zip(*(body.ends for body in bodies))
        newest = [max(filter(None, each), default=None) for each in ends]
        return list(zip(outs, map(_used, newest)))


def _alike(outer: Any, inner: Any) -> bool:
    """Whether a scan's operand or result is the same inside."""
    return outer.aval.ndim == inner.aval.ndim


def _belongs(x: Any, origin: Origin | None) -> bool:
    """Whether what is added to an activation or multiplies it is a part of it."""
    return jnp.size(x) == 1 if origin is None else origin.order < 0


def _fed(origin: Origin | None) -> bool:
    """Whether what has this origin depends on an input."""
    return origin is not None and origin.order >= 0


def _used(origin: Origin | None) -> Origin | None:
    """The origin of what is no longer the activation itself."""
    return origin and origin._replace(itself=False)


def _site(kind: str, origins: list[Origin]) -> str | None:
    """The name of the site that an operation on these is, if it is one."""
    held = [o.name for o in origins if o.order < 0]
    fed = sorted({o.order: o.name for o in origins if o.order >= 0}.items())
    if fed and (kind in PRODUCTS or (kind == "gather" and held)):
        return held[0] if held else _both([name for _, name in fed])
    if len(fed) == 2 and kind in ("add", "add_any"):
        return f"+ {fed[1][1].removeprefix('+ ')}"
    return None


def _both(names: list[str]) -> str:
    """Names with their common folder said once."""
    parts = [name.split("/") for name in names]
    folders = zip(*(part[:-1] for part in parts))
    shared = len([*itertools.takewhile(lambda names: len({*names}) == 1, folders)])
    ends = " · ".join("/".join(part[shared:]) for part in parts)
    return "/".join([*parts[0][:shared], ends])
