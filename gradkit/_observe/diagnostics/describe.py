"""The costs of a transform and of each of its parts: bytes of state, flops, time to compile."""

import collections
import inspect
import math
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import optax

from gradkit._core import check, numbers, table
from gradkit._core.factory import factory_of
from gradkit._core.routing import hidden
from gradkit._core.types import AnyTransform, Extra, Params


class Part(NamedTuple):
    """The costs of one part of a transform, or of all of it."""

    name: str  # with the groups and recipes that it is in: matrices/average_by_nesterov
    state_bytes: int
    bytes_a_parameter: float  # bytes of state for each parameter that it is given
    flops: float  # of one update, as XLA counts them; nan where it does not
    bytes_accessed: float  # read and written in one update, likewise
    compile_seconds: float  # to trace and compile the update
    needs: str  # params and extra arguments, as its docstring says; empty if not ours
    summary: str  # the first sentence of its docstring; empty if not ours

    @property
    def cells(self) -> tuple[str, ...]:
        """Its name and numbers as text, in the order of the printed table."""
        return (
            self.name,
            f"{self.state_bytes:,}",
            f"{self.bytes_a_parameter:.2f}",
            _short(self.flops),
            _short(self.bytes_accessed),
            f"{self.compile_seconds:.2f}",
        )


def _short(x: float) -> str:
    """A count in three digits and a unit, such as 18.6M; exact below 10,000."""
    if not abs(x) >= 1e4:  # nor nan
        return f"{x:.0f}"
    power = min(int(math.log10(x)) // 3, 5)
    return f"{x / 1e3**power:.3g}{' kMGTP'[power]}"


class Description(NamedTuple):
    """The costs of every part of a transform, and of all of it; prints as a table."""

    parts: tuple[Part, ...]
    total: Part  # of one program, whose parts XLA may join

    def __str__(self) -> str:
        cells = [HEAD, *(part.cells for part in (*self.parts, self.total))]
        return "\n".join([table.aligned(cells), *[""] * bool(self.notes), *self.notes])

    @property
    def notes(self) -> list[str]:
        """One line for each factory of ours: what it does, and what its updates need."""
        lines = {
            part.name.rpartition("/")[2]: f"{part.summary} Needs {part.needs or PLAIN}"
            for part in reversed(self.parts)
            if part.summary
        }
        return [f"{name}: {said}" for name, said in reversed(lines.items())]


PLAIN = "nothing beyond the gradient and the state."
HEAD = ("part", "state bytes", "a parameter", "flops", "bytes accessed", "compile s")


class Given(NamedTuple):
    """The arguments of an update, as shapes and dtypes."""

    updates: Any
    state: Any
    params: Any
    extra: dict[str, Any]


def describe(tx: AnyTransform, params: Params, **extra: Extra) -> Description:
    r"""List the state bytes, flops, memory traffic and compile time of each part of a transform.

    $$\text{bytes} = \sum_{x \in \mathrm{init}(p)} \text{size}(x) \cdot \text{itemsize}(x)$$

    The update of each part, and of the whole, is compiled for these parameters but not run, and
    XLA analyses its cost; no array is made. Parts are those of `gradkit.chain` and `optax.chain`,
    of recipes, and of the groups of `route` and of recipes with `hidden=`. Any other transform,
    such as a wrapper, is one part with all that is inside it.

    Args:
        tx: any transform, ours or optax's.
        params: a tree of arrays or of `jax.ShapeDtypeStruct`s; gradients have the same dtypes.
        extra: the extra arguments that `tx` needs, such as `value`, also arrays or
            `jax.ShapeDtypeStruct`s.

    Returns:
        A `Description`, which prints as a table: `parts`, each with its `name`, `state_bytes`,
        `bytes_a_parameter` of those it is given, `flops`, `bytes_accessed`, `compile_seconds`,
        and `needs` and `summary` from its docstring; and their `total`.

    Paper: none.
    Departure: none.
    Limits: flops and traffic are those of the compiled program for the default backend. `Flops:`
        in a docstring counts the program before, in float32; a codec's may be a few times fewer
        than what is compiled. The total has less
        traffic than its parts have together, as XLA joins their loops, and a branch counts
        whether it is taken or not. A loop of unknown length counts once. A sharded parameter
        counts as a whole one. A compilation cache on disk makes compile times short. A recipe
        with a schedule for a number other than its learning rate is one part.

    >>> p = {"kernel": jax.ShapeDtypeStruct((64, 64), jnp.float32)}
    >>> [(x.name, x.state_bytes) for x in gk.describe(gk.lion(), p).parts]
    [('average_by_lion', 16384), ('step_by_learning_rate', 4), ('decay_by_weight', 4)]
    """
    check.transform("describe", "tx", tx)
    params, extra = jax.eval_shape(lambda t: t, (params, extra))
    state = jax.eval_shape(tx.init, params)
    whole = Given(params, state, params, extra)
    found = [*_parts("", tx, whole)]
    names = _numbered(name for name, *_ in found)
    parts = [_measured(name, x, given) for name, (_, x, given) in zip(names, found)]
    single = len(parts) == 1 and found[0][1] is _opened(tx)
    total = parts[0] if single else _measured("", tx, whole)
    return Description((*parts,), total._replace(name="total", needs="", summary=""))


def _parts(
    prefix: str, tx: AnyTransform, given: Given
) -> Iterator[tuple[str, AnyTransform, Given]]:
    """Every part that holds no others, with its name and the arguments of its update."""
    tx, held = _opened(tx), _held(_opened(tx).update)
    g, state, params, extra = given
    match _place(tx):
        case ("gradkit._core.chain", "chain.<locals>.update"):
            last, stages = held["last"], zip(held["txs"], state)
            g = numbers.wide(g)
            for i, (part, s) in enumerate(stages):
                p = numbers.wide(params) if i < last else params
                yield from _inside(prefix, part, inside := Given(g, s, p, extra))
                g = _updated(part, inside) if i + 1 < len(state) else g
        case (module, "chain.<locals>.update_fn") if module.startswith("optax."):
            fns = held["update_fns"]
            for i, (fn, s) in enumerate(zip(fns, state)):
                part = optax.GradientTransformationExtraArgs(optax.init_empty_state, fn)
                yield from _inside(prefix, part, inside := Given(g, s, params, extra))
                g = _updated(part, inside) if i + 1 < len(fns) else g
        case ("gradkit._core.routing.groups", "grouped.<locals>.update"):
            choices, groups = held["choose"](params), held["groups"]
            trees = groups(g, choices), state.inner, groups(params, choices)
            for name, part, u, s, p in zip(held["names"], held["inners"], *trees):
                inside = Given(u, s, p, extra)
                yield from _inside(f"{prefix}{name}/", part, inside)
        case ("gradkit._core.routing.hidden", "seen.<locals>.update"):
            seen = held["of_trees"](hidden._as_matrices, g, given)
            yield from _inside(prefix, held["inner"], seen)
        case _:
            yield f"{prefix}{_name(tx)}", tx, given


def _inside(
    prefix: str, tx: AnyTransform, given: Given
) -> Iterator[tuple[str, AnyTransform, Given]]:
    """The parts of a part; those of a recipe have its name before theirs."""
    make = factory_of(_opened(tx))
    is_recipe = make is not None and make.__module__.startswith("gradkit._recipes.")
    outer = f"{make.__name__}/" if make is not None and is_recipe else ""
    for name, part, own in _parts("", tx, given):
        yield f"{prefix}{outer}{name}", part, own


def _opened(tx: AnyTransform) -> AnyTransform:
    """The transform without what a user's call of its factory, or optax, has put around it."""
    held = _held(tx.update)
    match _place(tx):
        case ("gradkit._core.factory", "_public.<locals>.update"):
            return _opened(_held(held["run"])["made"])
        case (module, "with_extra_args_support.<locals>.update") if "optax" in module:
            return _opened(held["tx"])
        case _:
            return tx


def _place(tx: AnyTransform) -> tuple[str, str]:
    """The module and the qualified name of the update."""
    update: Any = tx.update
    return getattr(update, "__module__", "") or "", getattr(update, "__qualname__", "")


def _held(f: Any) -> dict[str, Any]:
    """The variables that a function holds from where it was made, by name."""
    if not inspect.isfunction(f):
        return {}
    names = f.__code__.co_freevars
    return {name: cell.cell_contents for name, cell in zip(names, f.__closure__ or ())}


def _name(tx: AnyTransform) -> str:
    """The factory's name; of another library's transform the function that made it."""
    make = factory_of(tx)
    if make is not None:
        return make.__name__
    module, place = _place(tx)
    maker = place.partition(".")[0] or type(tx.update).__name__
    maker = "lambda" if place.endswith("<lambda>") else maker
    return f"optax.{maker}" if module.startswith("optax.") else maker


def _numbered(names: Iterable[str]) -> Iterator[str]:
    """The names; the second of the same name ends in `_2`."""
    counts: collections.Counter[str] = collections.Counter()
    for name in names:
        counts[name] += 1
        yield name if counts[name] == 1 else f"{name}_{counts[name]}"


def _update(tx: AnyTransform) -> Any:
    tx = optax.with_extra_args_support(tx)
    return jax.jit(lambda g, s, p, extra: tx.update(g, s, p, **extra))


def _updated(tx: AnyTransform, given: Given) -> Any:
    """The shapes and dtypes of the updates that the next part is given."""
    return jax.eval_shape(_update(tx), *given)[0]


def _measured(name: str, tx: AnyTransform, given: Given) -> Part:
    """Compile the update of a part, and read what it costs."""
    start = time.perf_counter()
    compiled = _update(tx).lower(*given).compile()
    seconds = time.perf_counter() - start
    cost: Any = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) and cost else cost
    flops, traffic = (
        float(cost.get(key, 0)) if cost else math.nan
        for key in ("flops", "bytes accessed")
    )
    size = _bytes(given.state)
    entries = sum(math.prod(x.shape) for x in jax.tree.leaves(given.params))
    make = factory_of(tx)
    doc = (inspect.getdoc(make) or "") if make is not None else ""
    needs = re.search(r"^Needs:(.*?)(?=^\S|^$|\Z)", doc, re.DOTALL | re.MULTILINE)
    return Part(
        name,
        size,
        size / max(entries, 1),
        flops,
        traffic,
        seconds,
        " ".join(needs[1].split()) if needs else "",
        doc.partition("\n")[0],
    )


def _bytes(t: Any) -> int:
    """The bytes of all arrays of a tree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(t))
