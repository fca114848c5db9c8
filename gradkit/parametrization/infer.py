"""The parametrization of a model, from its shapes at two sizes and what it does with them."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from gradkit._core.jaxpr.axes import Labels
from gradkit._core.jaxpr.follow import follow
from gradkit._core.jaxpr.trace import Trace
from gradkit.parametrization import depth, factors, matching, notes
from gradkit.parametrization.matching import NAME
from gradkit.parametrization.parameter import KINDS, Parameter, Parametrization, is_of
from gradkit.parametrization.roles import Leaf, parameter

Axes = Mapping[str, tuple[int, ...]]


def infer_parametrization(
    init: Callable[..., Any] | None = None,
    *,
    base: Any,
    target: Any,
    delta: Any = None,
    apply: Callable[..., Any] | None = None,
    example: Any = None,
    roles: Mapping[str, str] | None = None,
    inputs: Axes | None = None,
    stacks: Axes | None = None,
) -> Parametrization:
    """Compare one model at two sizes: which axes are widths, and what sums over them.

    Nothing is computed: `init` and `apply` are only traced, for their shapes and equations.

    Args:
        init: from a size to parameters; a module that is a pytree will do. Without it, `base`,
            `target` and `delta` are trees of parameters, or of their shapes.
        base: the size where hyperparameters were tuned: a number, `init(base)`, or a mapping,
            `init(**base)`.
        target: the size to train.
        delta: a third size in which every width differs from `base`. Needed where `target`
            leaves a width as it is; without it what differs between the other two is a width.
        apply: the forward pass, without a gradient in it: `apply(params, example)`; with a
            tuple, `apply(params, *example)`. Arguments with the name of a size are given it.
            With it, each parameter is followed to the equations that use it; without, all axes
            but the last count as inputs.
        example: arrays, or their shapes.
        roles: the role, where the model leaves doubt, by path or by regular expression on it.
        inputs: the axes summed over, likewise.
        stacks: the axes that number layers, or experts, likewise.

    Returns: the `Parametrization`, to print, save, and pass to transforms.

    Raises: `ValueError` with the path of a leaf, and what to pass, where anything is in doubt.

    >>> shapes = lambda width: {"in": jnp.zeros((3, width)), "out": jnp.zeros((width, 2))}
    >>> grew = gk.infer_parametrization(shapes, base=4, target=8)
    >>> {path: (p.role, p.growth_in, p.growth_out) for path, p in grew.items()}
    {'in': ('input', 1.0, 2.0), 'out': ('output', 2.0, 1.0)}
    """
    old, new = matching.build(init, base), matching.build(init, target)
    third = new if delta is None else matching.build(init, delta)
    twins = matching.twins(new.shapes, old.shapes)
    sizes = _sizes(old, new, third, twins)
    grown = {path: each.grown for path, each in sizes.items()}
    declared = _declared(new.shapes, roles=roles, inputs=inputs, stacks=stacks)
    trace = at_base = None
    doubts: list[str] = []
    if apply is not None:
        trace = _trace(apply, new, example, grown)
        try:
            grown_at_base = {twins[path]: axes for path, axes in grown.items()}
            at_base = _trace(apply, old, example, grown_at_base)
        except ValueError as error:
            doubts.append(notes.not_compared(error))
    if trace and at_base:
        depths = depth.growth(trace, new.shapes, at_base, old.shapes, twins)
    else:
        depths = matching.depths(new.shapes, old.shapes)
    found = {}
    for path, each in sizes.items():
        said = (declared[path].get(name) for name in ("roles", "inputs", "stacks"))
        leaf = Leaf(path, each.target, each.base, grown[path], depths[path], *said)
        found[path] = parameter(leaf, trace)
        for axis in found[path].widths:
            if each.base[axis] == each.delta[axis]:
                must = "differ between base and delta in every width"
                got = (
                    f"axis {axis}: {[x[axis] for x in each]} in base, delta and target"
                )
                raise leaf.error(must, got, "Change every size in delta.")
    if not any(p.widths for p in found.values()):
        raise ValueError(
            f"{NAME}: base and target must differ in a width, got equal shapes. To keep the "
            "width, pass delta, a third size in which every width is another."
        )
    if apply is not None and trace and at_base:
        wide, more = _of_width_alone(apply, init, old, new, found, example, trace)
        found, of_factors = factors.joined(found, at_base, wide, twins)
        widened = any(p.growth_in != 1 or p.growth_out != 1 for p in found.values())
        other = trace if widened else _trace(apply, third, example, grown)
        growths = {
            (each.target if widened else each.delta)[axis] / each.base[axis]
            for path, each in sizes.items()
            for axis in found[path].widths
        }
        of_scores = notes.of_scores(at_base.scores, other.scores, growths - {1})
        doubts = [*more, *of_factors, *of_scores]
    doubts = [*notes.of_parameters(found, trace), *doubts]
    return Parametrization(found, tuple(dict.fromkeys(doubts)))


class Sizes(NamedTuple):
    """The shape of one leaf at each size."""

    base: tuple[int, ...]
    delta: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def grown(self) -> Labels:
        """The axes that differ between any two."""
        return frozenset(i for i, ns in enumerate(zip(*self)) if len({*ns}) > 1)


def _sizes(
    old: matching.Built,
    new: matching.Built,
    third: matching.Built,
    twins: Mapping[str, str],
) -> dict[str, Sizes]:
    """The shapes of every leaf of the target model, if models of these sizes are one."""
    if third is new:
        thirds = {path: path for path in new.shapes}
    else:
        thirds = matching.twins(new.shapes, third.shapes)
    matching.check_proportions(old, new, twins)
    if third is not new:
        at_base = matching.twins(third.shapes, old.shapes)
        matching.check_proportions(old, third, at_base)
    return {
        path: Sizes(old.shapes[twins[path]], third.shapes[thirds[path]], shape)
        for path, shape in new.shapes.items()
    }


def _trace(
    apply: Callable[..., Any],
    built: matching.Built,
    example: Any,
    grown: Mapping[str, Labels],
) -> Trace:
    """What `apply` does at one size, which it is told if it asks."""
    if example is None:
        raise ValueError(
            f"{NAME}: example must be given with apply, got None. Pass a batch, or its shapes."
        )
    asked = inspect.signature(apply).parameters.keys() & built.names.keys()
    asked = {name: built.names[name] for name in asked}
    args = example if type(example) is tuple else (example,)  # not a named one
    try:
        return follow(
            functools.partial(apply, **asked), built.params, *args, grown=grown
        )
    except Exception as error:
        raise ValueError(
            f"{NAME}: apply must run at size {built.size}, got {type(error).__name__}: {error}. "
            "Give it arguments with the names of the sizes."
        ) from error


def _of_width_alone(
    apply: Any,
    init: Any,
    old: matching.Built,
    new: matching.Built,
    found: Mapping[str, Parameter],
    example: Any,
    trace: Trace,
) -> tuple[Trace, list[str]]:
    """What the model does that grew in its widths and not in its depth, if it can be built.

    A factor that goes with the depth is what a rule for the depth asks for, and no width's.
    """
    if all(p.depth == 1 for p in found.values()):
        return trace, []
    differ = [k for k in new.names if old.names[k] != new.names[k]]

    def is_width(name: str) -> bool:
        built = matching.build(init, {**old.names, name: new.names[name]})
        twin = matching.twins(built.shapes, old.shapes)
        like = matching.twins(built.shapes, new.shapes)
        return any(
            shape[axis] != old.shapes[twin[path]][axis]
            for path, shape in built.shapes.items()
            for axis in found[like[path]].widths
        )

    try:
        if len(differ) < 2:
            raise ValueError("there is one size for both")
        widths = {name: new.names[name] for name in differ if is_width(name)}
        wide = matching.build(init, {**old.names, **widths})
        like = matching.twins(wide.shapes, new.shapes)
        grown = {path: frozenset(found[like[path]].widths) for path in wide.shapes}
        return _trace(apply, wide, example, grown), []
    except (ValueError, TypeError) as error:
        return trace, [notes.of_depth(error)]


def _declared(
    shapes: matching.Shapes, **arguments: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """By path and argument what is said of a leaf, by the first rule that names it."""
    found: dict[str, dict[str, Any]] = {path: {} for path in shapes}
    for name, rules in arguments.items():
        if not isinstance(rules or {}, Mapping):
            said = f"{name} must map paths, got {rules!r}"
            raise ValueError(f"{NAME}: {said}. Pass a dict by path.")
        for rule, value in (rules or {}).items():
            named = [path for path in shapes if is_of(rule, path, shapes)]
            if not named:
                said = f"{name} must match a leaf, got {rule!r}"
                raise ValueError(f"{NAME}: {said}. Choose from {sorted(shapes)}.")
            if name == "roles" and value not in KINDS:
                said = f"roles must be known, got {value!r}"
                raise ValueError(f"{NAME}: {said}. Choose from {[*KINDS]}.")
            for path in named:
                if name not in found[path]:
                    known = (
                        value if name == "roles" else _axes(name, path, shapes, value)
                    )
                    found[path][name] = known
    return found


def _axes(name: str, path: str, shapes: matching.Shapes, axes: Any) -> Labels | None:
    """The axes that are said of a leaf, counted from 0."""
    rank = len(shapes[path])
    if axes is None:
        return None
    if not (isinstance(axes, Iterable) and all(-rank <= axis < rank for axis in axes)):
        raise ValueError(
            f"{NAME}: {name} must be a tuple of axes of leaf {path}, got {axes!r} for shape "
            f"{shapes[path]}. Name the leaf itself, if others match too."
        )
    return frozenset(axis % rank for axis in axes)
