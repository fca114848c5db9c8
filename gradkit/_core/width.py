"""How a model grew: per parameter, by how much its inputs and its outputs were multiplied."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from gradkit._core import tree


class Growth(NamedTuple):
    """Width multipliers of one parameter; 1 where a width does not grow."""

    inputs: float  # of what is summed over: fan-in
    outputs: float  # of what is produced: fan-out

    @property
    def role(self) -> str:
        """`hidden`, `input` (also biases and gains), `output` or `fixed`."""
        grows = (self.inputs != 1, self.outputs != 1)
        return {
            (True, True): "hidden",
            (False, True): "input",
            (True, False): "output",
            (False, False): "fixed",
        }[grows]


Parametrization = Mapping[str, Growth]  # by parameter path


def infer_parametrization(
    base: Any, target: Any, *, inputs: Mapping[str, tuple[int, ...]] | None = None
) -> Parametrization:
    """Compare two parameter trees of one model at two widths, leaf by leaf.

    Args:
        base: parameters at the width where the hyperparameters were tuned; arrays or
            `jax.eval_shape` results, only shapes are read.
        target: parameters at the width to train.
        inputs: which axes are summed over, by regular expression on the path. Without an entry
            all axes but the last are inputs, and a vector has none.

    Returns: `Growth` by parameter path.

    Raises: `ValueError` where the trees differ in anything but sizes, or where more than one
        input axis grows and `inputs` does not say that this is meant.

    >>> shapes = lambda w: {"in": jnp.zeros((3, w)), "out": jnp.zeros((w, 2))}
    >>> {k: g.role for k, g in gk.infer_parametrization(shapes(4), shapes(8)).items()}
    {'in': 'input', 'out': 'output'}
    """
    old = {tree.path(k): x for k, x in jax.tree_util.tree_leaves_with_path(base)}
    new = {tree.path(k): x for k, x in jax.tree_util.tree_leaves_with_path(target)}
    if old.keys() != new.keys():
        raise ValueError(
            "gradkit.infer_parametrization: base and target must have the same parameters, got "
            f"only in one: {sorted(old.keys() ^ new.keys())}. Build one model at two widths."
        )
    return {
        path: _growth(path, old[path].shape, new[path].shape, inputs or {})
        for path in new
    }


def _growth(
    path: str,
    base: tuple[int, ...],
    target: tuple[int, ...],
    inputs: Mapping[str, tuple[int, ...]],
) -> Growth:
    if len(base) != len(target) or not all(base):
        raise ValueError(
            f"gradkit.infer_parametrization: leaf {path} must have as many axes in base and "
            f"target, none of them empty, got {base} and {target}. Change widths only."
        )
    ratios = [b / a for a, b in zip(base, target)]
    declared = [axes for rule, axes in inputs.items() if re.search(rule, path)]
    if declared:
        summed = {axis % len(base) for axis in declared[0]}
    else:
        summed = set(range(len(base) - 1))
        if sum(ratios[axis] != 1 for axis in summed) > 1:
            raise ValueError(
                f"gradkit.infer_parametrization: leaf {path} must have one growing input axis, "
                f"got {base} and {target}. Say which axes are summed over: "
                f"inputs={{{path!r}: (0,)}}."
            )
    return Growth(
        math.prod(ratios[axis] for axis in summed),
        math.prod(r for axis, r in enumerate(ratios) if axis not in summed),
    )
