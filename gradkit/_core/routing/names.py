"""Decisions from names and shapes: is a leaf a hidden matrix, and which axes are its rows?

A hidden matrix maps features to features. An embedding or readout has a vocabulary on one side,
and a bias or gain is no map. Only names and shapes tell them apart here; `parametrization.reading`
reads the model itself.
"""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Axes = tuple[int, ...]
Name = tuple[str, tuple[str, ...]]  # one part of a path, and its words


class MatrixAxes(NamedTuple):
    """Axes of a leaf: batch axes, and the axes that are the rows and columns of its matrices."""

    batch: Axes  # axes that number matrices
    rows: Axes
    cols: Axes

    def lengths(self, shape: Sequence[int]) -> tuple[Axes, int, int]:
        """Lengths of the batch axes, number of rows, number of columns."""
        batch, rows, cols = ([shape[i] for i in axes] for axes in self)
        return tuple(batch), math.prod(rows), math.prod(cols)


class Decision(NamedTuple):
    """Whether a leaf is a hidden matrix, why, and as which matrix."""

    hidden: bool
    reason: str
    view: MatrixAxes | None  # None for a leaf without two axes
    vector: bool = False  # by its shape, or named like a bias, a gain or a norm


WORD = re.compile(r"LoRA|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, split at `_`, digits and capitals."""
    return tuple(word.lower() for word in WORD.findall(name))


# Words, and whole names, from public models; tests/test_hidden.py lists the models.
TABLES = words("embed embeds embedding embeddings embedder emb embs posemb posembed")
TABLES += words("wte wpe codebook codebooks codevectors")
PRODUCTS = words("patch conv linear dense mlp mapping proj project projection layers")
PLACES = words("pos position positions positional posemb posembed posenc relpos pe")
BIASES = words("bias biases")
VECTORS = (*BIASES, *words("gain gains gamma beta scale scales temperature decay"))
TOKENS = words("token tokens cls probe prompt prompts register registers latents")
TOKENS += words("queries")
READOUTS = words("readout logit logits logitdense classifier unembed unembedding")
READOUTS += words("unembedder lmhead vocab")
HEADS = words("head heads pred prediction predictions")
# Words before `head` in names of heads that are no readouts.
OF_HEADS = words("multi map attention attn talking k qkv kv query")
ATTENTION = words("attention attentions attn")
BLOCKS = words("block blocks layer layers experts ffn feedforward forward ff spatial")
ADAPTERS = words("lora adapter adapters")
INPUTS = {*words("query queries key keys value values q k v wq wk wv")}  # of attention
FUSED = {*words("qk kv qkv kqv wkv wqkv")}
GATES = {*words("g gate gating")}
FILLER = {  # words that do not tell what a product is for
    *words("kernel weight w a b c to in up down lora adapter adapters"),
    *words("proj projection projections dense linear layer einsum"),
}
VECTOR = re.compile(r"a_log|alpha|log_dt|log_step|b[qkvo]|bqkv")
READOUT = re.compile(
    r"outputs?|output_(layer|dense|linear|proj|projection)|(fc|proj|embed)_out|heads?|score"
    r"|predictions|qa_outputs|seq_relationship"
)
# Such a name does not tell what a leaf is for.
ARRAY = re.compile(r"kernel|weights?|param|value|([a-z]{1,2}(_|$))+")
# Whole paths, since these names are telling only near the root.
LAST = re.compile(
    r"((params|model|module|net)/)*(W_U|fc|(decoder/)?conv_out|out/\d+|decoder|(linear|dense)_out)"
    r"|(.*/)?final_layer/linear"
)
FIRST = re.compile(r"W_E|(.*/)?shared/weight")
STACKS = re.compile(r"expert|(^|[/_])moe|(^|/)(layers|blocks)/(?!\d)", re.IGNORECASE)


@functools.lru_cache(maxsize=1 << 14)
def by_name(path: str, shape: tuple[int, ...], batch_axes: Axes = ()) -> Decision:
    """The default decision, by path and shape."""
    numbering = (axis % len(shape) for axis in batch_axes if shape)
    batch = tuple(dict.fromkeys(numbering))
    matrix_axes = [axis for axis in range(len(shape)) if axis not in batch]
    if len(matrix_axes) < 2:
        besides = " besides batch_axes" if batch_axes else ""
        return Decision(
            False, f"{'one' if matrix_axes else 'no'} axis{besides}", None, True
        )
    parts = path.replace(".", "/").split("/")
    names = [(part, words(part)) for part in parts if words(part)] or [("", ("",))]
    if len(names) > 1 and parts[-1] == "value" and _holds_array(names[-2][1]):
        del names[-1], parts[-1]  # the value of a variable
    stacked = not batch and bool(STACKS.search("/".join(parts)))
    view = _matrix_axes(names, shape, batch, matrix_axes, stacked)
    _, rows, cols = view.lengths(shape)
    if rows == 1 or cols == 1:
        return Decision(False, "one row" if rows == 1 else "one column", view, True)
    reason = next(_vector(names), None)
    if reason is not None:
        return Decision(False, reason, view, True)
    reason = next(_table_or_readout(names, parts, len(matrix_axes)), None)
    if (
        reason is None
        and len(matrix_axes) > 2
        and _input_channels(names, shape, view) == 1
    ):
        reason = "one input a channel"
    if reason is not None:
        return Decision(False, reason, view)
    return Decision(True, f"a hidden matrix{_layout(names, view, stacked)}", view)


def _vector(names: Sequence[Name]) -> Iterator[str]:
    """Reasons to take a leaf for one or several vectors: bias, gain or norm."""
    (leaf, leaf_words), (owner, owner_words) = names[-1], _owner(names)
    stem = "_".join(leaf_words)
    is_b = "b" in (leaf_words[0], leaf_words[-1]) and not _any(
        (*PRODUCTS, "kernel"), leaf_words
    )
    is_weight = any(word.startswith("w") for word in leaf_words)
    adapts = any(_any(ADAPTERS, parts) for _, parts in names)
    is_b = is_b and not (is_weight or adapts)
    if is_b or _any(VECTORS, leaf_words) or VECTOR.fullmatch(stem):
        yield f"named like a bias or a gain ('{leaf}')"
    if ARRAY.fullmatch(stem) and _any(BIASES, owner_words):
        yield f"named like a bias or a gain ('{owner}')"
    if ARRAY.fullmatch(stem) and (
        owner_words[-1].endswith("norm") or owner_words[0] in ("ln", "bn", "gn")
    ):
        yield f"named like a norm ('{owner}')"


def _table_or_readout(
    names: Sequence[Name], parts: Sequence[str], ndim: int
) -> Iterator[str]:
    """Reasons to take a leaf with `ndim` matrix axes for an embedding or a readout."""
    (leaf, leaf_words), (owner, owner_words) = names[-1], _owner(names)
    array = ARRAY.fullmatch("_".join(leaf_words))
    if leaf_words[-1] in TOKENS and leaf_words[0] != "to":
        yield f"named like a token ('{leaf}')"
    convolves = leaf_words == ("kernel",) and ndim > 2
    # A list of tables has a plural name, a sequence of embedding layers has not.
    numbered = (
        array and parts[-2:-1] and parts[-2].isdigit() and owner_words[-1][-1] != "s"
    )
    product = convolves or numbered or _any(PRODUCTS, owner_words)
    placed = _any(PLACES, owner_words)
    if _any(TABLES, owner_words) and (placed or not product):
        yield f"named like an embedding ('{owner}')"
    if placed and not _any(PRODUCTS, owner_words):
        yield f"named like an embedding ('{owner}')"
    if _any(PLACES, leaf_words) or FIRST.fullmatch("/".join(parts)):
        yield f"named like an embedding ('{leaf}')"
    if LAST.fullmatch("/".join(parts[:-1] if array and len(parts) > 1 else parts)):
        yield f"named like a readout ('{owner}')"
    in_attention = in_block = False
    for i, (name, parts) in enumerate(names):
        last, before = parts[-1], parts[-2] if len(parts) > 1 else None
        a_head = last in HEADS and before and before not in OF_HEADS
        if (
            (_any(READOUTS, parts) and "pre" not in parts)
            or (a_head and not in_attention and not (before in ("q", "v") and in_block))
            or (READOUT.fullmatch("_".join(parts)) and not in_block)
        ):
            yield f"named like a readout ('{name}')"
        in_attention |= last.endswith(ATTENTION)
        in_block |= in_attention or parts == ("h",) or last.endswith(BLOCKS)
        in_block |= "spatial" in parts or (last.endswith("mlp") and i > 0)


def _any(vocabulary: Sequence[str], words_of_name: Sequence[str]) -> bool:
    return any(word in vocabulary for word in words_of_name)


def _holds_array(parts: tuple[str, ...]) -> bool:
    """Whether `parts` name a variable whose array is its attribute `value`."""
    array = ARRAY.fullmatch("_".join(parts))
    return bool(array) or _any((*VECTORS, *TABLES, *PLACES), parts)


def _owner(names: Sequence[Name]) -> Name:
    """The last name; the one before it if the last is a mere `kernel`, `weight` or such."""
    nameless = ARRAY.fullmatch("_".join(names[-1][1]))
    return names[-2] if nameless and len(names) > 1 else names[-1]


def _matrix_axes(
    names: Sequence[Name],
    shape: Sequence[int],
    batch: Axes,
    axes: Sequence[int],
    stacked: bool,
) -> MatrixAxes:
    """Batch axes, rows and columns. The last axis is the columns, with two exceptions.

    In query, key and value projections heads and head size are the columns, as in
    `[in, heads, size]` and `[heads, in, size]`, with one more axis if they are fused. `in` is the
    first axis in kernels of Flax, else the longest one; if several are longest, there is no
    exception. In convolutions of torch, `[out, in, *window]`, the outputs are the rows.
    """
    rows = front = axes[:-1]
    leaf_words, window = names[-1][1], [shape[axis] for axis in axes[2:]]
    if stacked or not window:
        pass  # a stacked axis looks like an axis of heads or a window
    elif leaf_words == ("weight",):
        if max(window) <= min(32, shape[axes[0]]):
            rows = front[:1]
    elif len(axes) in _attention_axes(names):
        adapted = leaf_words[-1] == "b" and any(
            _any(ADAPTERS, parts) for _, parts in names
        )
        longest = max(shape[axis] for axis in front)
        rows = [axis for axis in front if shape[axis] == longest]
        if "kernel" in leaf_words or adapted:  # of Flax, where `in` is first
            rows = front[:1]
        if len(rows) > 1:
            rows = front
    cols = tuple(axis for axis in axes if axis not in rows)
    return MatrixAxes(batch, tuple(rows), cols)


def _attention_axes(names: Sequence[Name]) -> Axes:
    """Possible numbers of axes of a query, key, value or gate projection; () for other leaves."""
    filler: set[str] = set()
    for i, (_, parts) in reversed([*enumerate(names)]):
        telling = set(parts) - FILLER
        if not telling:
            filler |= set(parts)
            continue
        if "in" in filler and parts[-1].endswith(ATTENTION):
            return 3, 4
        attends = any(before[-1].endswith(ATTENTION) for _, before in names[:i])
        if not telling <= INPUTS | FUSED | (GATES if attends else set()):
            return ()
        return (3, 4) if telling & FUSED or len(telling) > 1 else (3,)
    return ()


def _input_channels(
    names: Sequence[Name], shape: Sequence[int], view: MatrixAxes
) -> int | None:
    """Input channels of a convolution kernel; None for other leaves."""
    leaf_words = names[-1][1]
    if leaf_words == ("weight",) and len(view.cols) > 1:
        return shape[view.cols[0]]
    convolves = leaf_words in (("kernel",), ("w",)) and len(view.cols) == 1
    return shape[view.rows[-1]] if convolves else None


def _layout(names: Sequence[Name], view: MatrixAxes, stacked: bool) -> str:
    """Suffix of the reason: the layout assumed for a hidden leaf, where its name leaves it open."""
    if stacked and len(view.rows) > 1:
        return ", seen as one matrix; batch_axes or view_by_pattern for stacks"
    if names[-1][1] == ("weight",):
        return f", read as [{'in, out' if len(view.cols) == 1 else 'out, in, ...'}]"
    return ""
