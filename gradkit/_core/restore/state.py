"""`restore_state`: restores a saved state into a transform that has changed."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.paths import leaf_paths, unboxed
from gradkit._core.restore.nodes import nodes, places, without_variables
from gradkit._core.restore.pairs import paired
from gradkit._core.restore.schema import with_classes
from gradkit._core.types import AnyTransform, Params

SHOWN = 6  # leaves that a message lists


class Restored(NamedTuple):
    """A restored state and what became of each leaf; it prints as a table."""

    state: optax.OptState
    kept: dict[str, str]  # path in `state` -> path in `old`
    fresh: dict[str, str]  # path in `state` -> why it is as `init` made it
    dropped: dict[str, str]  # path in `old` -> why it is not in `state`

    def __repr__(self) -> str:
        """The numbers of leaves, and a line for each leaf that did not fit."""
        counts = f"kept {len(self.kept)}, fresh {len(self.fresh)}"
        rows = [f"{counts}, dropped {len(self.dropped)} leaves"]
        rows += [f"fresh    {path}  {why}" for path, why in self.fresh.items()]
        rows += [f"dropped  {path}  {why}" for path, why in self.dropped.items()]
        return "\n".join(rows)


def restore_state(
    tx: AnyTransform,
    params: Params,
    old: Any,
    *,
    schema: str | None = None,
    strict: bool = False,
) -> Restored:
    """Restore the state of a transform that was changed after `old` was saved.

    What still fits is kept, everything else is as `tx.init(params)` makes it, and both are listed.
    Nothing is cast or reshaped. The rule never chooses between two candidates:

    1. The largest subtrees that occur exactly once in both states, with the same names, shapes
       and dtypes, are kept whole. So a wrapper put on or taken off, or a clip added before a
       recipe, changes nothing within the recipe.
    2. In the rest, the state of each transform is recognized by its field names, and by its class
       where that is known. Several of the same fields are matched by the shapes of their
       leaves. If candidates remain, they are kept only if all hold the same numbers, as
       counters do; otherwise the state is fresh, with a warning.
    3. Within such a state, leaves are matched by path. Leaves of one parameter are kept together
       or not at all. The leaves that belong to no parameter, such as counters, must all fit, or
       the whole state is fresh. Codes are kept only with their scales, and moments in a
       subspace only with its basis.

    Args:
        tx: the transform that continues, of gradkit or optax.
        params: its parameters.
        old: the saved state: live, from pickle, or the dicts, lists and arrays that Orbax and
            flax's `msgpack_restore` return without a target. Of an `nnx.Optimizer` it is
            `optimizer.opt_state`, or `opt_state` of what `nnx.state(optimizer)` was saved as. Its
            paths are without the key `value` of an NNX variable.
        schema: what `state_schema` returned for the old transform. Files do not keep class
            names; with the schema, states of the same fields are told apart by class, and a
            file that lacks a leaf is refused.
        strict: raise an error unless every leaf of both states is kept.

    Returns:
        `(state, kept, fresh, dropped)`: `state` is what `tx.update` takes, the others are what
        became of each leaf, by path. It prints as a table. Arrays that are kept are not copied.
        An `nnx.Optimizer` takes it by
        `nnx.update(optimizer, {"opt_state": nnx.state(restored.state)})`.

    Errors: a fresh or dropped leaf, if `strict`; a leaf that is in `schema` but not in `old`. A
        warning is given if a match is ambiguous, or if nothing is kept.
    Limits: leaves with the same name, shape and dtype count as the same: a different codec map, a
        normalization added before a momentum, or a transposed square matrix is not noticed.
        Counters belong to a state: fresh moments beside an old counter are not corrected for
        their bias.

    >>> old = gk.adamw().init(jnp.ones(2))
    >>> tx = gk.chain(gk.clip_by_ema_norm(), gk.accumulate(gk.adamw()))
    >>> print(sorted(gk.restore_state(tx, jnp.ones(2), old).kept.values()))
    ['0/count', '0/mu', '0/nu', '1/count', '2/count']
    """
    check.transform("restore_state", "tx", tx)
    check.given("restore_state", params, "init")
    made = tx.init(params)
    plain, source = nodes(unboxed(made)), nodes(unboxed(old))
    if schema is not None:
        source = with_classes(schema, source)
    source = without_variables(source, places(plain))
    pairs = paired(plain, source, unboxed(params), leaf_paths(unboxed(params)))
    arrays = {n.path: n.leaf for n in source.leaves().values()}
    leaves = [
        _array(arrays[pairs.kept[n.path]], n.leaf) if n.path in pairs.kept else n.leaf
        for n in plain.leaves().values()
    ]
    state = jax.tree.unflatten(jax.tree.structure(made), leaves)
    restored = Restored(state, pairs.kept, pairs.fresh, pairs.dropped)
    if strict and (pairs.fresh or pairs.dropped):
        lists = [f"fresh: {_listed(pairs.fresh)}"] if pairs.fresh else []
        lists += [f"dropped: {_listed(pairs.dropped)}"] if pairs.dropped else []
        text = f"old must be the state of this transform, got {'; '.join(lists)}"
        remedy = "Leave strict out to continue with fresh leaves."
        raise error(ValueError, "restore_state", f"{text}. {remedy}")
    if pairs.ambiguous:
        which = _listed({path: pairs.fresh[path] for path in pairs.ambiguous})
        text = f"leaves are fresh, as several of old may be theirs: {which}"
        _warn(f"{text}. Pass schema, or old as a live state.")
    elif pairs.fresh and not pairs.kept:
        _warn(f"no leaf of old is kept: {_listed(pairs.fresh)}. Is it the state alone?")
    return restored


def _array(x: Any, like: Any) -> Any:
    """`x`, on the device or in host memory as `like` is."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    space = jax.typeof(like).memory_space
    return x if jax.typeof(x).memory_space == space else jax.device_put(x, space)


def _listed(found: Mapping[str, str]) -> str:
    """The first `SHOWN` leaves, each with the reason, and the number of others."""
    first = [f"{path or 'the leaf'} ({why})" for path, why in found.items()][:SHOWN]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{', '.join(first)}{more}"


def _warn(text: str) -> None:
    warnings.warn(f"gradkit.restore_state: {text}", stacklevel=3)
