"""The state of `gradkit.measure`, and `metrics`, which reads the numbers from it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_flatten_with_path

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.paths import unboxed
from gradkit._core.tuned import hyperparameters


class Event(NamedTuple):
    """How often an event has happened."""

    last: jax.Array  # 1 if it happened in the last update, else 0, int32 []
    happened: jax.Array  # updates in which it happened, int32 []
    updates: jax.Array  # updates in which its part ran, int32 []


class MeasureState(NamedTuple):
    """State of `measure`."""

    count: jax.Array  # updates so far, int32 []
    numbers: dict[str, jax.Array]  # each of the last update that had it, float32 []
    events: dict[str, Event]
    inner: optax.OptState


def metrics(state: optax.OptState) -> dict[str, jax.Array]:
    """Return the numbers of the last update that every `gradkit.measure` in a state has, by name.

    Args:
        state: of a `measure`, or of any transform of which a part is one: in a chain, in `route`,
            in a wrapper such as `optax.MultiSteps` or `accumulate`, in an `nnx.Optimizer`.

    Returns:
        A flat dict of float32 scalars for a logger, and the int32 `count` of updates. An event
        such as `clip_by_global_norm/clipped` is 1 if it happened in the last update, else 0, and
        `clip_by_global_norm/clipped_fraction` is the fraction of all updates in which it happened.
        Before the first update all are 0. Keys are `1/gradient_norm` where `state[1]` is that of
        the measured transform, and `gradient_norm` where it is the whole. The numbers of
        `gradkit.hyperparameters` are there under the same keys, unless a part reports a number of
        that name. Of a batch of states each has an axis for it.

    >>> tx = gk.measure(gk.chain(gk.clip_by_global_norm(1.0), gk.sgd(0.5)))
    >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> print(gk.metrics(state)["update_norm"], gk.metrics(state)["clip_by_global_norm/clipped"])
    0.5 1.0
    """
    check.live("metrics", state)
    measured = [*_measured(state, "")]
    if not measured:
        what = "state must have numbers of a gradkit.measure, got none"
        remedy = "Wrap the transform: tx = gradkit.measure(tx)."
        raise error(ValueError, "metrics", f"{what}. {remedy}")
    reported = {f"{path}{k}": x for path, one in measured for k, x in _entries(one)}
    names = {_last(k) for k in reported}
    tuned = hyperparameters(state).items()
    return reported | {k: x for k, x in tuned if _last(k) not in names}


def _last(key: str) -> str:
    """The name at the end of a key."""
    return key.rpartition("/")[2]


def _is_measured(x: Any) -> bool:
    return isinstance(x, MeasureState)


def _measured(state: Any, outer: str) -> Iterator[tuple[str, MeasureState]]:
    """Every state of `measure`, also those inside of others, behind the prefix of its keys.

    A tree like one, of scales of what a codec stores, has no numbers.
    """
    for keys, x in tree_flatten_with_path(state, is_leaf=_is_measured)[0]:
        if _is_measured(x) and jax.tree.leaves(x.count):
            own = f"{keystr(keys, simple=True, separator='/')}/" if keys else ""
            yield outer + own, x
            yield from _measured(x.inner, outer + own)


def _entries(one: MeasureState) -> Iterator[tuple[str, jax.Array]]:
    """The names and values of one `measure`."""
    yield from unboxed(one.numbers).items()
    for name, event in unboxed(one.events).items():
        happened, updates = event.happened, jnp.maximum(event.updates, 1)
        yield name, event.last.astype(jnp.float32)
        yield (
            f"{name}_fraction",
            happened.astype(jnp.float32) / updates.astype(jnp.float32),
        )
    yield "count", unboxed(one.count)
