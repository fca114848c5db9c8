"""Which leaves are the matrices between hidden layers, and as what matrices they are seen.

Matrices have directions in two spaces of features. Embeddings and readouts have words on one
side, biases and gains no side at all: they are left to another transform. Nothing but names and
shapes says which is which, so this is a rule of names, with a way out: `hidden=`.
"""

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradkit._core import check, groups, shard, tree
from gradkit._core.groups import Choice
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Transform,
    Updates,
    wrapper,
)

Axes = tuple[int, ...]
Name = tuple[str, tuple[str, ...]]  # one part of a path, and its words
Hidden = str | Callable[[str, Any], bool] | Mapping[str, bool] | None


class View(NamedTuple):
    """The axes of a leaf that are the rows, and the columns, of its matrices."""

    batch: Axes  # these number matrices
    rows: Axes
    cols: Axes

    def lengths(self, shape: Sequence[int]) -> tuple[Axes, int, int]:
        """The lengths of the batch axes, the rows, and the columns."""
        batch, rows, cols = ([shape[i] for i in axes] for axes in self)
        return tuple(batch), math.prod(rows), math.prod(cols)


class Decision(NamedTuple):
    """What one leaf is taken for."""

    hidden: bool
    reason: str
    view: View | None  # None where it is no matrix


WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> tuple[str, ...]:
    """The words of one name, cut at `_`, digits and capitals, in small letters."""
    return tuple(word.lower() for word in WORD.findall(name))


# Words that a name has, and whole names, of public models: tests/test_hidden.py lists these.
TABLES = words(
    "embed embeds embedding embeddings embedder emb embs posemb posembed wte wpe"
)
TABLES += words("codebook codebooks codevectors")
PRODUCTS = words("patch conv linear dense mlp mapping proj project projection")
PLACES = words("pos position positions positional posemb posembed")
VECTORS = words("bias biases gain gains gamma beta scale scales temperature decay")
TOKENS = words(
    "token tokens cls probe prompt prompts register registers latents queries"
)
READOUTS = words(
    "readout logit logits logitdense classifier unembed unembedding unembedder"
)
HEADS = words("head heads pred prediction predictions")
OF_HEADS = words("multi map attention attn talking q k v kv query")  # no readouts
ATTENTION, BLOCKS = (
    ("attention", "attn"),
    ("block", "blocks", "layer", "layers", "experts"),
)
VECTOR = re.compile(r"b|a_log|alpha|log_dt|log_step")
READOUT = re.compile(
    r"outputs?|output_(layer|dense|proj|projection)|(fc|proj|embed)_out|heads?|score"
    r"|predictions|qa_outputs|vocab_projector"
)
ARRAY = re.compile(r"kernel|weights?|param|value|([a-z]{1,2}(_|$))+")  # it has no name
INPUTS = re.compile(  # of attention: what makes queries, keys and values
    r"(query|key|value|[qkv]|kv|qkv)(_proj|_einsum)?|(to_|w_?)([qkv]|kv|qkv)"
)


@functools.lru_cache(maxsize=1 << 14)
def by_name(path: str, shape: tuple[int, ...], batch_axes: Axes = ()) -> Decision:
    """The decision by path and shape: the last resort, and the default."""
    batch = tuple(axis % len(shape) for axis in batch_axes) if shape else ()
    rest = [axis for axis in range(len(shape)) if axis not in batch]
    if len(rest) < 2 or len(shape) - len(batch_axes) < 2:
        besides = " besides batch_axes" if batch_axes else ""
        return Decision(False, f"{'one' if rest else 'no'} axis{besides}", None)
    names = [(part, words(part)) for part in re.split(r"[/.]", path)]
    named = [name for name in names if name[1]]
    what = next(_kinds(named, len(rest)), None) if named else None
    view = _view(named, shape, batch, rest)
    _, rows, cols = view.lengths(shape)
    if what is not None:
        return Decision(False, what, view)
    if rows == 1 or cols == 1:
        return Decision(False, "one row" if rows == 1 else "one column", view)
    return Decision(True, "a hidden matrix", view)


def _kinds(names: Sequence[Name], ndim: int) -> Iterator[str]:
    """What the names say that a leaf of `ndim` axes is, if it is no hidden matrix."""
    (leaf, own), owner = names[-1], _owner(names)
    whose, of = owner
    array = ARRAY.fullmatch("_".join(own))
    if _any(VECTORS, own) or VECTOR.fullmatch("_".join(own)):
        yield f"named like a bias or a gain ('{leaf}')"
    if array and (of[-1].endswith("norm") or of[0] in ("ln", "bn", "gn")):
        yield f"named like a norm ('{whose}')"
    if own[-1] in TOKENS:
        yield f"named like a token ('{leaf}')"
    convolves = own == ("kernel",) and ndim > 2
    product = convolves or _any(PRODUCTS, of)
    if _any(TABLES, of) and (_any(PLACES, of) or not product):
        yield f"named like an embedding ('{whose}')"
    if _any(PLACES, own):
        yield f"named like an embedding ('{leaf}')"
    in_attention = in_block = False
    for name, parts in names:
        last, stem = parts[-1], "_".join(parts)
        a_head = last in HEADS and len(parts) > 1 and parts[-2] not in OF_HEADS
        if (
            (_any(READOUTS, parts) and "pre" not in parts)
            or (a_head and not in_attention)
            or (READOUT.fullmatch(stem) and not in_block)
        ):
            yield f"named like a readout ('{name}')"
        in_attention |= last.endswith(ATTENTION)
        in_block |= in_attention or stem == "h" or last.endswith(BLOCKS)


def _any(known: Sequence[str], found: Sequence[str]) -> bool:
    return any(word in known for word in found)


def _owner(names: Sequence[Name]) -> Name:
    """The last name, or the one before it where the last says only that there is an array."""
    nameless = ARRAY.fullmatch("_".join(names[-1][1]))
    return names[-2] if nameless and len(names) > 1 else names[-1]


def _view(
    names: Sequence[Name], shape: Sequence[int], batch: Axes, rest: Sequence[int]
) -> View:
    """The last axis the columns and all others the rows, but for what attention begins with.

    There heads and their sizes are the columns: `[in, heads, size]`, `[heads, in, size]`, and
    with a further axis for what is fused. What comes in is longer than there are heads.
    """
    *front, last = rest
    plain = View(batch, tuple(front), (last,))
    leaf = names[-1][1] if names else ()
    either = [leaf, _owner(names)[1]] if names else []
    stems = ("_".join(parts) for parts in either)
    stem = next(filter(INPUTS.fullmatch, stems), "")
    fused = 1 if "kv" in stem else 0
    if not stem or leaf == ("weight",) or len(rest) != 3 + fused:
        return plain
    longest = max(shape[axis] for axis in front)
    into = [axis for axis in front if shape[axis] == longest]
    if leaf == ("kernel",):  # of Flax, where what comes in is first
        into = front[:1]
    if len(into) > 1:
        return plain
    return View(batch, tuple(into), (*(i for i in front if i not in into), last))


def decider(
    method: str, hidden: Hidden, batch_axes: Axes
) -> Callable[[Params], list[Decision]]:
    """What decides about every leaf of a tree, from the argument `hidden` of `method`."""
    check.matrix(method, {}, batch_axes)
    says, axes = _reader(method, hidden), tuple(batch_axes)

    def decide(path: str, x: Any) -> Decision:
        decision, said = by_name(path, np.shape(x), axes), says(path, x)
        if said and decision.view is None:
            besides = f" besides batch_axes {axes}" if axes else ""
            what = (
                f"leaf {path} must have at least 2 axes{besides} to be a hidden matrix"
            )
            raise _wrong(
                method, what, f"shape {np.shape(x)}", "Leave it out of hidden."
            )
        return (
            decision
            if said is None
            else Decision(said, "hidden= says so", decision.view)
        )

    def decide_all(params: Params) -> list[Decision]:
        if isinstance(hidden, Mapping):
            _check_known(method, hidden, params)
        leaves = zip(tree.paths(params), jax.tree.leaves(params))
        return [decide(path, x) for path, x in leaves]

    return decide_all


def _reader(method: str, hidden: Hidden) -> Callable[[str, Any], bool | None]:
    """What `hidden` says of a path and a leaf: None where it says nothing."""
    said = (
        "hidden must be an expression, a predicate of path and leaf, or a dict of bools"
    )
    match hidden:
        case None:
            return lambda path, x: None
        case str():
            try:
                pattern = re.compile(hidden)
            except re.error as error:
                got = f"{hidden!r}: {error}"
                raise _wrong(method, said, got, "Correct it.") from None
            return lambda path, x: bool(pattern.search(path))
        case Mapping() if all(isinstance(v, bool) for v in hidden.values()):
            return lambda path, x: hidden.get(path)
        case _ if callable(hidden):
            return lambda path, x: bool(hidden(path, x))
    raise _wrong(method, said, repr(hidden), "Leave it out to go by names.")


def split(
    method: str,
    hidden: Hidden,
    batch_axes: Axes,
    matrices: AnyTransform,
    others: AnyTransform,
    called: str = "adam",
) -> Transform:
    """Hidden matrices to one transform of `method`, all other leaves to another.

    The first sees each leaf as the matrix it is, the second, `called` so in `gradkit.routes`,
    sees it as it is.
    """
    decide = decider(method, hidden, batch_axes)

    def choose(params: Params) -> list[Choice]:
        def choice(decision: Decision, x: Any) -> Choice:
            if not decision.hidden or decision.view is None:
                return Choice(1, called, decision.reason)
            batch, *matrix = decision.view.lengths(np.shape(x))
            return Choice(0, "matrices", decision.reason, (matrix[0], matrix[1]), batch)

        return list(map(choice, decide(params), jax.tree.leaves(params)))

    return groups.grouped(method, (seen(matrices, batch_axes), others), choose)


def seen(inner: AnyTransform, batch_axes: Axes = ()) -> Transform:
    """Let `inner` see every leaf as the matrices that it is by name, in as many axes.

    What `inner` remembers of a leaf in the shape of its matrices is kept in the shape of the
    leaf, so that it can be sharded as the parameter is.
    """
    inner = optax.with_extra_args_support(inner)
    axes = tuple(batch_axes)

    def of_trees(f: Callable[..., jax.Array], like: Any, t: Any) -> Any:
        """`f(view, y, x)` of each leaf `y` of the trees in `t` that have `like`'s leaves `x`."""
        xs, structure = jax.tree.flatten(like)
        decided = [
            by_name(path, np.shape(x), axes) for path, x in zip(tree.paths(like), xs)
        ]
        views = [d.view if d.view and len(d.view.cols) > 1 else None for d in decided]

        def is_like(t: Any) -> bool:
            return jax.tree.structure(t) == structure

        def each(t: Any) -> Any:
            if not is_like(t):
                return t
            ys = jax.tree.leaves(t)
            return structure.unflatten(
                y if view is None else f(view, y, x)
                for view, y, x in zip(views, ys, xs)
            )

        return jax.tree.map(each, t, is_leaf=is_like) if any(views) else t

    def init(params: Params) -> optax.OptState:
        state = inner.init(of_trees(_as_matrices, params, params))
        return of_trees(_as_leaf, params, state)

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        *given, extra = of_trees(_as_matrices, updates, (updates, state, params, extra))
        return of_trees(_as_leaf, updates, inner.update(*given, **extra))

    return wrapper(init, update)


def _shape(view: View, shape: Axes) -> Axes:
    """That of a leaf seen as matrices: `[*batch, *rows, 1, ..., cols]`."""
    batch, _, cols = view.lengths(shape)
    rows = (shape[axis] for axis in view.rows)
    return (*batch, *rows, *[1] * (len(view.cols) - 1), cols)


def _as_matrices(view: View, y: Any, x: Any) -> Any:
    """`y` in the shape of its matrices, batch axes where they are in `x`, if shaped like `x`."""
    if y.shape != x.shape:
        return y
    if isinstance(y, jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda y: _as_matrices(view, y, y), y)
    order = (*view.batch, *view.rows, *view.cols)
    front = jnp.transpose(shard.whole(y), order).reshape(_shape(view, x.shape))
    return jnp.moveaxis(front, range(len(view.batch)), view.batch)


def _as_leaf(view: View, y: Any, x: Any) -> Any:
    """What `_as_matrices` makes of `x`, in the shape of `x`, sharded like it."""
    rest = [axis for axis in range(y.ndim) if axis not in view.batch]
    order = (*view.batch, *rest)
    if y.ndim != x.ndim or tuple(y.shape[i] for i in order) != _shape(view, x.shape):
        return y
    axes = (*view.batch, *view.rows, *view.cols)
    apart = jnp.transpose(shard.whole(y), order).reshape([x.shape[i] for i in axes])
    leaf = jnp.transpose(apart, [axes.index(i) for i in range(x.ndim)])
    return leaf if isinstance(x, jax.ShapeDtypeStruct) else shard.alike(leaf, x)


def _wrong(method: str, what: str, got: str, remedy: str) -> ValueError:
    return ValueError(f"gradkit.{method}: {what}, got {got}. {remedy}")


def _check_known(method: str, hidden: Mapping[str, bool], params: Params) -> None:
    """Every path is one of a parameter, unless some are masked out, as in `optax.partition`."""
    masked = lambda x: isinstance(x, optax.MaskedNode)
    leaves = jax.tree.leaves(params, is_leaf=masked)
    known = tree.paths(params, is_leaf=masked)
    unknown = [path for path in hidden if path not in known]
    if unknown and leaves and not any(map(masked, leaves)):
        near = difflib.get_close_matches(unknown[0], known, cutoff=0.4) or known[:3]
        remedy = f"The closest are {near}."
        raise _wrong(
            method, "every path in hidden must be a parameter's", repr(unknown), remedy
        )
