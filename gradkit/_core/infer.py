"""The parametrization of a model, from its shapes at two sizes and what it does with them."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from gradkit._core import notes, sizes
from gradkit._core.roles import Leaf, parameter
from gradkit._core.sizes import NAME
from gradkit._core.trace import Trace, follow
from gradkit._core.width import KINDS, Parameter, Parametrization

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
    old, new = sizes.build(init, base), sizes.build(init, target)
    third = new if delta is None else sizes.build(init, delta)
    twins = sizes.twins(new.shapes, old.shapes), sizes.twins(new.shapes, third.shapes)
    depths = sizes.depths(new.shapes, old.shapes)
    sizes.check_proportions(old, new)
    sizes.check_proportions(old, third)
    _check_declared(new.shapes, roles=roles, inputs=inputs, stacks=stacks)
    trace = None if apply is None else _trace(apply, new, example)

    def inferred(path: str) -> Parameter:
        shape, at_base = new.shapes[path], old.shapes[twins[0][path]]
        triples = [*zip(at_base, third.shapes[twins[1][path]], shape)]
        leaf = Leaf(
            path,
            shape,
            at_base,
            frozenset(i for i, ns in enumerate(triples) if len({*ns}) > 1),
            depths[path],
            _declared(roles, path, new.shapes),
            _axes("inputs", inputs, path, new.shapes),
            _axes("stacks", stacks, path, new.shapes),
        )
        p = parameter(leaf, trace)
        for axis in p.widths:
            if triples[axis][0] == triples[axis][1]:
                must = "differ between base and delta in every width"
                got = f"axis {axis}: {[*triples[axis]]} in base, delta and target"
                raise leaf.error(must, got, "Change every size in delta.")
        return p

    found = {path: inferred(path) for path in new.shapes}
    if not any(p.widths for p in found.values()):
        raise ValueError(
            f"{NAME}: base and target must differ in a width, got equal shapes. To keep the "
            "width, pass delta, a third size in which every width is another."
        )
    said = [*notes.of_parameters(found, trace)]
    if apply is not None and trace is not None:
        grown = any(p.growth_in != 1 or p.growth_out != 1 for p in found.values())
        try:
            at_base = _trace(apply, old, example).scores
            other = trace if grown else _trace(apply, third, example)
            said += notes.of_scores(at_base, other.scores)
        except ValueError as error:
            said.append(f"attention was not looked at: {str(error).splitlines()[0]}")
    return Parametrization(found, tuple(dict.fromkeys(said)))


def _trace(apply: Callable[..., Any], built: sizes.Built, example: Any) -> Trace:
    """What `apply` does at one size, which it is told if it asks."""
    if example is None:
        raise ValueError(
            f"{NAME}: example must be given with apply, got None. Pass a batch, or its shapes."
        )
    asked = inspect.signature(apply).parameters.keys() & built.names.keys()
    asked = {name: built.names[name] for name in asked}
    args = example if type(example) is tuple else (example,)  # not a named one
    try:
        program = jax.make_jaxpr(functools.partial(apply, **asked))(built.params, *args)
    except Exception as error:
        raise ValueError(
            f"{NAME}: apply must run at size {built.size}, got {type(error).__name__}: {error}. "
            "Give it arguments with the names of the sizes."
        ) from error
    return follow(program, built.params)


def _declared(rules: Mapping[str, Any] | None, path: str, paths: Iterable[str]) -> Any:
    """What is declared of `path`, by the first rule that names it."""
    named = (x for rule, x in (rules or {}).items() if _names(rule, path, paths))
    return next(named, None)


def _names(rule: str, path: str, paths: Iterable[str]) -> bool:
    """Whether a rule is the path or, itself none of the paths, matches it."""
    return rule == path if rule in paths else bool(re.search(rule, path))


def _axes(name: str, rules: Axes | None, path: str, shapes: sizes.Shapes) -> Any:
    """The axes declared of `path`, if any are."""
    axes, rank = _declared(rules, path, shapes), len(shapes[path])
    if axes is None:
        return None
    if not (isinstance(axes, Iterable) and all(-rank <= axis < rank for axis in axes)):
        raise ValueError(
            f"{NAME}: {name} must be a tuple of axes of leaf {path}, got {axes!r} for shape "
            f"{shapes[path]}. Name the leaf itself, if others match too."
        )
    return frozenset(axis % rank for axis in axes)


def _check_declared(paths: sizes.Shapes, **declared: Mapping[str, Any] | None) -> None:
    for name, rules in declared.items():
        if not isinstance(rules or {}, Mapping):
            said = f"{name} must map paths, got {rules!r}"
            raise ValueError(f"{NAME}: {said}. Pass a dict by path.")
        for rule, said in (rules or {}).items():
            if not any(_names(rule, path, paths) for path in paths):
                said = f"{name} must match a leaf, got {rule!r}"
                raise ValueError(f"{NAME}: {said}. Choose from {sorted(paths)}.")
            if name == "roles" and said not in KINDS:
                said = f"roles must be known, got {said!r}"
                raise ValueError(f"{NAME}: {said}. Choose from {[*KINDS]}.")
