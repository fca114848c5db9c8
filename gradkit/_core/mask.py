"""The mask of a weight decay: which parameters decay."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.call import error, refusal
from gradkit._core.types import Params

# A prefix of the tree of parameters with bools as leaves, or a function that makes one from them.
Mask = Any | Callable[[Params], Any] | None


def decayed(method: str, mask: Mask, params: Params) -> Params:
    """`params`, with zeros where `mask` is False, so that weight decay subtracts nothing there."""
    if mask is None:
        return params

    def masked(chosen: Any, branch: Params) -> Params:
        if not isinstance(chosen, bool | np.bool_):
            raise _wrong(method, repr(chosen))
        return branch if chosen else jax.tree.map(jnp.zeros_like, branch)

    check_mask(method, mask)
    if isinstance(mask, bool | np.bool_) and not jax.tree_util.all_leaves([params]):
        injected = 'optax.inject_hyperparams calls it: pass it static_args="mask"'
        raise _wrong(method, f"{mask} for all. If it was a function, {injected}")
    chosen = mask(params) if callable(mask) else mask
    try:
        return jax.tree.map(masked, chosen, params)
    except ValueError:
        raise _wrong(method, f"{chosen!r} for {jax.tree.structure(params)}") from None


def check_mask(method: str, mask: Mask) -> None:
    """Check that `mask` is a function, or a tree of bools."""
    if callable(mask):
        _check_takes_params(method, mask)
    leaves = [] if callable(mask) else jax.tree.leaves(mask)
    for x in leaves:
        if not isinstance(x, bool | np.bool_):
            raise _wrong(method, repr(x))


def _check_takes_params(method: str, mask: Callable[..., Any]) -> None:
    if refusal(mask, None):
        what = "mask must be a tree of bools or a function of the parameters"
        got = f"a function of {inspect.signature(mask)}"
        remedy = "Only gradkit.route and hidden= take a function of path and leaf."
        text = f"{what}, got {got}. {remedy}"
        raise error(TypeError, method, text)


def _wrong(method: str, got: str) -> Exception:
    requirement = "mask must be True or False for each parameter or branch of them"
    remedy = "Pass lambda params: jax.tree.map(lambda p: p.ndim > 1, params), say."
    return error(TypeError, method, f"{requirement}, got {got}. {remedy}")
