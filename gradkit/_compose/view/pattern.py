"""Leaves of any shape as batches of matrices."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import optax

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.matrix.patterns import Pattern, as_matrix, read
from gradkit._core.paths import leaf_paths
from gradkit._core.routing.viewed import viewed
from gradkit._core.types import AnyTransform, Params, Transform, wrapper


@factory
def view_by_pattern(
    inner: AnyTransform, *, patterns: Mapping[str, str] = MappingProxyType({})
) -> Transform:
    r"""Let `inner` see every leaf as a batch of matrices, and put back what it makes of them.

    $$u = \mathrm{view}^{-1}(\mathrm{inner}(\mathrm{view}(g), \; \mathrm{view}(p)))$$

    A view moves entries, and cuts fused matrices apart. Leaves of two axes or more become
    `[batch, rows, cols]`, so that any method or recipe of matrices can be inside, whatever
    layouts a model mixes. Its `batch_axes`, if it has any, become `(0,)` by themselves:

        attn/qkv         in (qkv=3 head=8 d) -> (qkv head) in d   each head a matrix
        attn/grouped     in out=512+128+128 -> in out             three: /0, /1, /2
        attn/out         head d out -> (head d) out               one
        layers/.*kernel  layer in out -> layer in out             one a layer
        layers/.*bias    layer out -> (layer out)                 a vector
        conv             h w in out -> (h w) in out               one a tap

    Args:
        inner: any transform; sees a dict of views by path.
        patterns: a dict from regular expressions, searched for in the path as in `route`, to what
            becomes of the axes, in the notation of einops. Lengths that cannot be inferred stand
            with their names. On the right, three axes are a batch of matrices, two are one
            matrix, one is a vector. A leaf that no pattern names is one matrix, its last axis the
            columns and all others the rows; vectors and scalars are left as they are, and so are
            all leaves that are not floating-point.

    Needs: what `inner` needs. Extra arguments that are trees like the gradient are viewed too.
    State: `0` bytes a leaf, `0` once, and the state of `inner`, in the shapes of the views.
    Flops: at most `0` a leaf, and those of `inner`.
    Paper: none.
    Departure: none.
    Limits: only one axis of a leaf can have blocks; `...` is not supported. Explicitly sharded
        matrices are gathered, and their state in `inner` is on every device.
    Errors: a leaf with two patterns, or one that does not fit; in `init`, an idle pattern; a
        stack of matrices that `inner` would take for one, as other `batch_axes` make it.

    >>> polar, w = gk.normalize_by_polar(), jnp.array([[3.0, 1], [1, 2]])
    >>> tx = gk.view_by_pattern(polar, patterns={"qk": "in (qk=2 out) -> qk in out"})
    >>> u = tx.update({"qk": jnp.hstack([w, 9 * w])}, optax.EmptyState())[0]["qk"]
    >>> bool(jnp.allclose(u[:, :2], u[:, 2:], atol=1e-5))  # each alone, whatever its scale
    True
    """
    remedy = "Pass a dict."
    requirement = "patterns must map expressions to patterns"
    is_map = isinstance(patterns, Mapping)
    check.holds("view_by_pattern", is_map, requirement, repr(patterns), remedy)
    read_patterns = {rule: _read(rule, text) for rule, text in patterns.items()}

    def pattern_of(path: str, x: Any) -> Pattern:
        rules = [rule for rule in read_patterns if re.search(rule, path)]
        if len(rules) > 1:
            requirement = f"leaf {path} must have at most one pattern"
            raise _wrong(
                requirement, f"those of {rules}", "Make the expressions exclusive."
            )
        return read_patterns[rules[0]] if rules else as_matrix(x.ndim)

    inner_of_views = viewed("view_by_pattern", inner, pattern_of)

    def init(params: Params) -> optax.OptState:
        _check_all_used(read_patterns, params)
        return inner_of_views.init(params)

    return wrapper(init, inner_of_views.update)


def _wrong(requirement: str, got: Any, remedy: str) -> ValueError:
    return ValueError(f"gradkit.view_by_pattern: {requirement}, got {got}. {remedy}")


def _read(rule: str, text: str) -> Pattern:
    check.expression("view_by_pattern", "the key of a pattern", rule)
    try:
        return read(text)
    except (TypeError, ValueError) as error:
        requirement = f"the pattern of {rule!r} must read like 'in (h=8 d) -> h in d'"
        raise _wrong(requirement, f"{text!r}: {error}", "Rewrite it.") from None


def _check_all_used(read_patterns: Mapping[str, Pattern], params: Params) -> None:
    """Every pattern names a leaf, unless some are masked out, as in `optax.partition`."""
    masked = lambda x: isinstance(x, optax.MaskedNode)
    paths = leaf_paths(params, is_leaf=masked)
    idle = [
        rule for rule in read_patterns if not any(re.search(rule, x) for x in paths)
    ]
    if idle and paths and not any(map(masked, jax.tree.leaves(params, is_leaf=masked))):
        requirement = "every pattern must name a parameter"
        raise _wrong(
            requirement, f"none for {idle} in {paths}", "Correct the expression."
        )
