"""Inference of a `Parametrization`: shapes at two sizes, and a trace of the model at each."""

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
    """Infer the role and growth of each parameter, by comparing one model at two sizes.

    Nothing is computed: `init` and `apply` are only traced, for their shapes and equations.

    Args:
        init: from a size to parameters; a module that is a pytree will do. Without it, `base`,
            `target` and `delta` are trees of parameters, or of their shapes.
        base: the size where hyperparameters were tuned: a number, `init(base)`, or a mapping,
            `init(**base)`.
        target: the size to train.
        delta: a third size in which every width differs from `base`. Needed where `target`
            leaves a width as it is. Without it, an axis that differs in the other two is a width.
        apply: the forward pass, without a gradient in it: `apply(params, example)`; with a
            tuple, `apply(params, *example)`. An argument named like a size is given that size.
            With `apply`, each parameter is followed to the equations that use it. Without it,
            all axes but the last count as inputs.
        example: arrays, or their shapes.
        roles: the role, where the model leaves doubt, by path or by a regular expression for it.
        inputs: the axes summed over, likewise.
        stacks: the axes that number layers, or experts, likewise.

    Returns: the `Parametrization`, to print, save, and pass to transforms.

    Raises: `ValueError` with the path of a leaf, and what to pass, where anything is in doubt.

    >>> shapes = lambda width: {"in": jnp.zeros((3, width)), "out": jnp.zeros((width, 2))}
    >>> grew = gk.infer_parametrization(shapes, base=4, target=8)
    >>> {path: (p.role, p.growth_in, p.growth_out) for path, p in grew.items()}
    {'in': ('input', 1.0, 2.0), 'out': ('output', 2.0, 1.0)}
    """
    base_model, target_model = matching.build(init, base), matching.build(init, target)
    delta_model = target_model if delta is None else matching.build(init, delta)
    base_paths = matching.twins(target_model.shapes, base_model.shapes)
    sizes = _sizes(base_model, target_model, delta_model, base_paths)
    grown = {path: shapes.grown for path, shapes in sizes.items()}
    declared = _declared(target_model.shapes, roles=roles, inputs=inputs, stacks=stacks)
    trace = base_trace = None
    doubts: list[str] = []
    if apply is not None:
        trace = _trace(apply, target_model, example, grown)
        try:
            grown_at_base = {base_paths[path]: axes for path, axes in grown.items()}
            base_trace = _trace(apply, base_model, example, grown_at_base)
        except ValueError as error:
            doubts.append(notes.not_compared(error))
    if trace and base_trace:
        depths = depth.growth(
            trace, target_model.shapes, base_trace, base_model.shapes, base_paths
        )
    else:
        depths = matching.depths(target_model.shapes, base_model.shapes)
    parameters = {}
    for path, shapes in sizes.items():
        declarations = (
            declared[path].get(name) for name in ("roles", "inputs", "stacks")
        )
        leaf = Leaf(
            path, shapes.target, shapes.base, grown[path], depths[path], *declarations
        )
        parameters[path] = parameter(leaf, trace)
        for axis in parameters[path].widths:
            if shapes.base[axis] == shapes.delta[axis]:
                must = "differ between base and delta in every width"
                got = f"axis {axis}: {[x[axis] for x in shapes]} in base, delta and target"
                raise leaf.error(must, got, "Change every size in delta.")
    if not any(p.widths for p in parameters.values()):
        raise ValueError(
            f"{NAME}: base and target must differ in a width, got equal shapes. To keep the "
            "width, pass delta, a third size in which every width is another."
        )
    if apply is not None and trace and base_trace:
        wide_trace, depth_notes = _of_width_alone(
            apply, init, base_model, target_model, parameters, example, trace
        )
        parameters, factor_notes = factors.joined(
            parameters, base_trace, wide_trace, base_paths
        )
        width_grew = any(
            p.growth_in != 1 or p.growth_out != 1 for p in parameters.values()
        )
        grown_trace = (
            trace if width_grew else _trace(apply, delta_model, example, grown)
        )
        growths = {
            (shapes.target if width_grew else shapes.delta)[axis] / shapes.base[axis]
            for path, shapes in sizes.items()
            for axis in parameters[path].widths
        }
        of_scores = notes.of_scores(
            base_trace.scores, grown_trace.scores, growths - {1}
        )
        doubts = [*depth_notes, *factor_notes, *of_scores]
    doubts = [*notes.of_parameters(parameters, trace), *doubts]
    return Parametrization(parameters, tuple(dict.fromkeys(doubts)))


class Sizes(NamedTuple):
    """The shape of one leaf at each size."""

    base: tuple[int, ...]
    delta: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def grown(self) -> Labels:
        """Axes whose lengths differ between any two sizes."""
        return frozenset(i for i, ns in enumerate(zip(*self)) if len({*ns}) > 1)


def _sizes(
    old: matching.Built,
    new: matching.Built,
    third: matching.Built,
    twins: Mapping[str, str],
) -> dict[str, Sizes]:
    """Shapes of every leaf of the target model at all sizes, after checking that they match."""
    if third is new:
        delta_paths = {path: path for path in new.shapes}
    else:
        delta_paths = matching.twins(new.shapes, third.shapes)
    matching.check_proportions(old, new, twins)
    if third is not new:
        base_paths = matching.twins(third.shapes, old.shapes)
        matching.check_proportions(old, third, base_paths)
    return {
        path: Sizes(old.shapes[twins[path]], third.shapes[delta_paths[path]], shape)
        for path, shape in new.shapes.items()
    }


def _trace(
    apply: Callable[..., Any],
    built: matching.Built,
    example: Any,
    grown: Mapping[str, Labels],
) -> Trace:
    """Trace `apply` at one size, with that size for each argument that is named like one."""
    if example is None:
        raise ValueError(
            f"{NAME}: example must be given with apply, got None. Pass a batch, or its shapes."
        )
    sizes_asked = inspect.signature(apply).parameters.keys() & built.names.keys()
    sizes_asked = {name: built.names[name] for name in sizes_asked}
    # A named tuple is one argument.
    args = example if type(example) is tuple else (example,)
    try:
        return follow(
            functools.partial(apply, **sizes_asked), built.params, *args, grown=grown
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
    parameters: Mapping[str, Parameter],
    example: Any,
    trace: Trace,
) -> tuple[Trace, list[str]]:
    """Trace the model at the target widths and the base depth, if it can be built.

    This separates factors that change with width from those that change with depth, which the
    rule for depth covers. Return the trace, and a note if it is of the target instead.
    """
    if all(p.depth == 1 for p in parameters.values()):
        return trace, []
    differ = [k for k in new.names if old.names[k] != new.names[k]]

    def is_width(name: str) -> bool:
        built = matching.build(init, {**old.names, name: new.names[name]})
        twin = matching.twins(built.shapes, old.shapes)
        like = matching.twins(built.shapes, new.shapes)
        return any(
            shape[axis] != old.shapes[twin[path]][axis]
            for path, shape in built.shapes.items()
            for axis in parameters[like[path]].widths
        )

    try:
        if len(differ) < 2:
            raise ValueError("there is one size for both")
        widths = {name: new.names[name] for name in differ if is_width(name)}
        wide = matching.build(init, {**old.names, **widths})
        like = matching.twins(wide.shapes, new.shapes)
        grown = {path: frozenset(parameters[like[path]].widths) for path in wide.shapes}
        return _trace(apply, wide, example, grown), []
    except (ValueError, TypeError) as error:
        return trace, [notes.of_depth(error)]


def _declared(
    shapes: matching.Shapes, **arguments: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Declarations of the user, by path and argument; the first matching rule wins."""
    declared: dict[str, dict[str, Any]] = {path: {} for path in shapes}
    for name, rules in arguments.items():
        if not isinstance(rules or {}, Mapping):
            message = f"{name} must map paths, got {rules!r}"
            raise ValueError(f"{NAME}: {message}. Pass a dict by path.")
        for rule, value in (rules or {}).items():
            matches = [path for path in shapes if is_of(rule, path, shapes)]
            if not matches:
                message = f"{name} must match a leaf, got {rule!r}"
                raise ValueError(f"{NAME}: {message}. Choose from {sorted(shapes)}.")
            if name == "roles" and value not in KINDS:
                message = f"roles must be known, got {value!r}"
                raise ValueError(f"{NAME}: {message}. Choose from {[*KINDS]}.")
            for path in matches:
                if name not in declared[path]:
                    declaration = (
                        value if name == "roles" else _axes(name, path, shapes, value)
                    )
                    declared[path][name] = declaration
    return declared


def _axes(name: str, path: str, shapes: matching.Shapes, axes: Any) -> Labels | None:
    """Declared axes of a leaf, counted from 0."""
    rank = len(shapes[path])
    if axes is None:
        return None
    if not (isinstance(axes, Iterable) and all(-rank <= axis < rank for axis in axes)):
        raise ValueError(
            f"{NAME}: {name} must be a tuple of axes of leaf {path}, got {axes!r} for shape "
            f"{shapes[path]}. Name the leaf itself, if others match too."
        )
    return frozenset(axis % rank for axis in axes)
