"""Leaves of any shape as batches of matrices, worked as such and handed back."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from gradkit._core import check, tree, view
from gradkit._core.factory import factory
from gradkit._core.stacked import stacked
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Transform,
    Updates,
    wrapper,
)


class Leaf(NamedTuple):
    """One leaf of a tree, and how it is seen."""

    x: Any
    pattern: view.Pattern | None  # None where it is left as it is
    names: list[str]  # its path, or one below it for each block


@factory
def view_by_pattern(
    inner: AnyTransform, *, patterns: Mapping[str, str] = MappingProxyType({})
) -> Transform:
    r"""Let `inner` see every leaf as a batch of matrices, and put back what it makes of them.

    $$u = \mathrm{view}^{-1}(\mathrm{inner}(\mathrm{view}(g), \; \mathrm{view}(p)))$$

    A view moves entries, and cuts fused matrices apart. Leaves of two axes or more become
    `[batch, rows, cols]`, so that any method or recipe of matrices can be inside, whatever
    layouts a model mixes. Where it takes `batch_axes` these are `(0,)` here, by themselves:

        attn/qkv         in (qkv=3 head=8 d) -> (qkv head) in d   each head a matrix
        attn/grouped     in out=512+128+128 -> in out             three: grouped/0, /1, /2
        attn/out         head d out -> (head d) out               one
        layers/.*kernel  layer in out -> layer in out             one a layer
        layers/.*bias    layer out -> (layer out)                 a vector
        conv             h w in out -> (h w) in out               one a tap

    Args:
        inner: any transform; sees a dict of views by path.
        patterns: by regular expressions, searched for in the path as in `route`, what becomes
            of the axes, in the notation of einops. Lengths that cannot be inferred stand with
            their names. On the right, three axes are a batch of matrices, two are one matrix,
            one is a vector. A leaf that no pattern names is one matrix, its last axis the
            columns and all others the rows; vectors and scalars are left as they are, and so
            are all leaves that are no floating numbers.

    Needs: what `inner` needs. Extra arguments that are trees like the gradient are viewed too.
    State: `0` bytes a leaf, `0` once, and the state of `inner`, in the shapes of the views.
    Flops: at most `0` a leaf, and those of `inner`.
    Paper: none.
    Departure: none.
    Limits: one axis of a leaf can have blocks; `...` is not read. Explicitly sharded matrices
        are gathered, and what `inner` remembers of them is on every device.
    Errors: a leaf with two patterns, or one that does not fit; in `init`, an idle pattern; a
        stack of matrices that `inner` would take for one, as other `batch_axes` make it.

    >>> polar, w = gk.normalize_by_polar(), jnp.array([[3.0, 1], [1, 2]])
    >>> tx = gk.view_by_pattern(polar, patterns={"qk": "in (qk=2 out) -> qk in out"})
    >>> u = tx.update({"qk": jnp.hstack([w, 9 * w])}, optax.EmptyState())[0]["qk"]
    >>> bool(jnp.allclose(u[:, :2], u[:, 2:], atol=1e-5))  # each alone, whatever its scale
    True
    """
    remedy = "Pass a dict."
    what = "patterns must map expressions to patterns"
    is_map = isinstance(patterns, Mapping)
    check.holds("view_by_pattern", is_map, what, repr(patterns), remedy)
    known = {rule: _read(rule, text) for rule, text in patterns.items()}
    inner = optax.with_extra_args_support(inner)

    def leaves(t: Any) -> list[Leaf]:
        named = zip(tree.paths(t), jax.tree.leaves(t))
        return [_leaf(known, path, x) for path, x in named]

    def see(t: Any) -> dict[str, Any]:
        """The views of all leaves by their names."""
        found = leaves(t)
        names = [name for leaf in found for name in leaf.names]
        if len(set(names)) < len(names):
            raise _wrong("paths must be distinct", sorted(names), "Rename one.")
        return dict(zip(names, [y for leaf in found for y in _views(leaf)]))

    def hand_back(views: Any, t: Any) -> Any:
        """What has these views, in the shapes of `t`."""
        xs = [_joined(x, [views[name] for name in x.names]) for x in leaves(t)]
        return jax.tree.structure(t).unflatten(xs)

    def init(params: Params) -> optax.OptState:
        _check_all_used(known, params)
        with stacked():
            return inner.init(see(params))

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        ps = None if params is None else see(params)
        extra = {k: see(x) if _alike(x, updates) else x for k, x in extra.items()}
        with stacked():
            u, state = inner.update(see(updates), state, ps, **extra)
        return hand_back(u, updates), state

    return wrapper(init, update)


def _wrong(what: str, got: Any, remedy: str) -> ValueError:
    return ValueError(f"gradkit.view_by_pattern: {what}, got {got}. {remedy}")


def _read(rule: str, text: str) -> view.Pattern:
    check.expression("view_by_pattern", "the key of a pattern", rule)
    try:
        return view.read(text)
    except (TypeError, ValueError) as error:
        what = f"the pattern of {rule!r} must read like 'in (h=8 d) -> h in d'"
        raise _wrong(what, f"{text!r}: {error}", "Rewrite it.") from None


def _leaf(known: Mapping[str, view.Pattern], path: str, x: Any) -> Leaf:
    """The leaf with the one pattern for its path, or as one matrix; as it is, if no numbers."""
    if not tree.is_real(x):
        return Leaf(x, None, [path])
    rules = [rule for rule in known if re.search(rule, path)]
    if len(rules) > 1:
        what = f"leaf {path} must have at most one pattern"
        raise _wrong(what, f"those of {rules}", "Make the expressions exclusive.")
    pattern = known[rules[0]] if rules else view.upright(x.ndim)
    try:
        blocks = view.lengths(pattern, x.shape)
    except ValueError as error:
        what, remedy = f"leaf {path} must fit {pattern.text!r}", "Correct the pattern."
        raise _wrong(what, f"shape {x.shape}: {error}", remedy) from None
    cut = [f"{path}/{i}" for i in range(len(blocks))]
    return Leaf(x, pattern, cut if pattern.blocks else [path])


def _views(leaf: Leaf) -> list[Any]:
    return [leaf.x] if leaf.pattern is None else view.split(leaf.pattern, leaf.x)


def _joined(leaf: Leaf, views: list[Any]) -> Any:
    """What has these views, in the shape of the leaf."""
    return views[0] if leaf.pattern is None else view.join(leaf.pattern, views, leaf.x)


def _check_all_used(known: Mapping[str, view.Pattern], params: Params) -> None:
    """Every pattern names a leaf, unless some are masked out, as in `optax.partition`."""
    masked = lambda x: isinstance(x, optax.MaskedNode)
    paths = tree.paths(params, is_leaf=masked)
    idle = [rule for rule in known if not any(re.search(rule, x) for x in paths)]
    if idle and paths and not any(map(masked, jax.tree.leaves(params, is_leaf=masked))):
        what = "every pattern must name a parameter"
        raise _wrong(what, f"none for {idle} in {paths}", "Correct the expression.")


def _alike(x: Any, updates: Updates) -> bool:
    """Whether `x` is a tree like `updates`. A bare number never is: it may be the loss."""
    shapes = lambda t: [np.shape(leaf) for leaf in jax.tree.leaves(t)]
    same = jax.tree.structure(x) == jax.tree.structure(updates)
    return same and shapes(x) == shapes(updates) != [()]
