"""What names and shapes say of a leaf: a matrix between hidden layers, or not; as what matrix.

Matrices have directions in two spaces of features. Embeddings and readouts have words on one
side, biases and gains no side at all. Nothing but names and shapes says which is which.
"""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Axes = tuple[int, ...]
Name = tuple[str, tuple[str, ...]]  # one part of a path, and its words


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
    vector: bool = False  # by its shape, or named like a bias, a gain or a norm


WORD = re.compile(r"LoRA|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> tuple[str, ...]:
    """The words of one name, cut at `_`, digits and capitals, in small letters."""
    return tuple(word.lower() for word in WORD.findall(name))


# Words that a name has, and whole names, of public models: tests/test_hidden.py lists these.
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
OF_HEADS = words("multi map attention attn talking k qkv kv query")  # no readouts
ATTENTION = words("attention attentions attn")
BLOCKS = words("block blocks layer layers experts ffn feedforward forward ff spatial")
ADAPTERS = words("lora adapter adapters")
INPUTS = {*words("query queries key keys value values q k v wq wk wv")}  # of attention
FUSED = {*words("qk kv qkv kqv wkv wqkv")}
GATES = {*words("g gate gating")}
MADE = {  # what a name says beside what the product is for
    *words("kernel weight w a b c to in up down lora adapter adapters"),
    *words("proj projection projections dense linear layer einsum"),
}
VECTOR = re.compile(r"a_log|alpha|log_dt|log_step|b[qkvo]|bqkv")
READOUT = re.compile(
    r"outputs?|output_(layer|dense|linear|proj|projection)|(fc|proj|embed)_out|heads?|score"
    r"|predictions|qa_outputs|seq_relationship"
)
ARRAY = re.compile(r"kernel|weights?|param|value|([a-z]{1,2}(_|$))+")  # it has no name
# Whole paths: names that say less where they stand deeper.
LAST = re.compile(
    r"((params|model|module|net)/)*(W_U|fc|(decoder/)?conv_out|out/\d+|decoder|(linear|dense)_out)"
    r"|(.*/)?final_layer/linear"
)
FIRST = re.compile(r"W_E|(.*/)?shared/weight")
STACKS = re.compile(r"expert|(^|[/_])moe|(^|/)(layers|blocks)/(?!\d)", re.IGNORECASE)


@functools.lru_cache(maxsize=1 << 14)
def by_name(path: str, shape: tuple[int, ...], batch_axes: Axes = ()) -> Decision:
    """The decision by path and shape: the last resort, and the default."""
    numbering = (axis % len(shape) for axis in batch_axes if shape)
    batch = tuple(dict.fromkeys(numbering))
    rest = [axis for axis in range(len(shape)) if axis not in batch]
    if len(rest) < 2:
        besides = " besides batch_axes" if batch_axes else ""
        return Decision(False, f"{'one' if rest else 'no'} axis{besides}", None, True)
    parts = path.replace(".", "/").split("/")
    names = [(part, words(part)) for part in parts if words(part)] or [("", ("",))]
    if len(names) > 1 and parts[-1] == "value" and _is_held(names[-2][1]):
        del names[-1], parts[-1]  # the value of a variable
    stacked = not batch and bool(STACKS.search("/".join(parts)))
    view = _view(names, shape, batch, rest, stacked)
    _, rows, cols = view.lengths(shape)
    if rows == 1 or cols == 1:
        return Decision(False, "one row" if rows == 1 else "one column", view, True)
    what = next(_vectors(names), None)
    if what is not None:
        return Decision(False, what, view, True)
    what = next(_others(names, parts, len(rest)), None)
    if what is None and len(rest) > 2 and _inputs(names, shape, view) == 1:
        what = "one input a channel"
    if what is not None:
        return Decision(False, what, view)
    return Decision(True, f"a hidden matrix{_layout(names, view, stacked)}", view)


def _vectors(names: Sequence[Name]) -> Iterator[str]:
    """What the names say that a leaf is, if it is a vector or several."""
    (leaf, own), (whose, of) = names[-1], _owner(names)
    stem = "_".join(own)
    is_b = "b" in (own[0], own[-1]) and not _any((*PRODUCTS, "kernel"), own)
    is_weight = any(word.startswith("w") for word in own)
    adapts = any(_any(ADAPTERS, parts) for _, parts in names)
    is_b = is_b and not (is_weight or adapts)
    if is_b or _any(VECTORS, own) or VECTOR.fullmatch(stem):
        yield f"named like a bias or a gain ('{leaf}')"
    if ARRAY.fullmatch(stem) and _any(BIASES, of):
        yield f"named like a bias or a gain ('{whose}')"
    if ARRAY.fullmatch(stem) and (
        of[-1].endswith("norm") or of[0] in ("ln", "bn", "gn")
    ):
        yield f"named like a norm ('{whose}')"


def _others(names: Sequence[Name], parts: Sequence[str], ndim: int) -> Iterator[str]:
    """What the names say that a leaf of `ndim` axes is, if it is a table or reads out."""
    (leaf, own), (whose, of) = names[-1], _owner(names)
    array = ARRAY.fullmatch("_".join(own))
    if own[-1] in TOKENS and own[0] != "to":
        yield f"named like a token ('{leaf}')"
    convolves = own == ("kernel",) and ndim > 2
    # A list of tables is named in the plural, a sequence of layers that embed is not.
    numbered = array and parts[-2:-1] and parts[-2].isdigit() and of[-1][-1] != "s"
    product = convolves or numbered or _any(PRODUCTS, of)
    placed = _any(PLACES, of)
    if _any(TABLES, of) and (placed or not product):
        yield f"named like an embedding ('{whose}')"
    if placed and not _any(PRODUCTS, of):
        yield f"named like an embedding ('{whose}')"
    if _any(PLACES, own) or FIRST.fullmatch("/".join(parts)):
        yield f"named like an embedding ('{leaf}')"
    if LAST.fullmatch("/".join(parts[:-1] if array and len(parts) > 1 else parts)):
        yield f"named like a readout ('{whose}')"
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


def _any(known: Sequence[str], found: Sequence[str]) -> bool:
    return any(word in known for word in found)


def _is_held(parts: tuple[str, ...]) -> bool:
    """Whether a variable is called so, whose array is its `value`."""
    array = ARRAY.fullmatch("_".join(parts))
    return bool(array) or _any((*VECTORS, *TABLES, *PLACES), parts)


def _owner(names: Sequence[Name]) -> Name:
    """The last name, or the one before it where the last says only that there is an array."""
    nameless = ARRAY.fullmatch("_".join(names[-1][1]))
    return names[-2] if nameless and len(names) > 1 else names[-1]


def _view(
    names: Sequence[Name],
    shape: Sequence[int],
    batch: Axes,
    rest: Sequence[int],
    stacked: bool,
) -> View:
    """The last axis the columns and all others the rows, but for two kinds of leaves.

    Of what attention begins with, heads and their sizes are the columns: `[in, heads, size]`,
    `[heads, in, size]`, and with a further axis for what is fused. What comes in is longer
    than there are heads. Of torch's convolutions, `[out, in, *window]`, outputs are the rows.
    """
    into = front = rest[:-1]
    own, window = names[-1][1], [shape[axis] for axis in rest[2:]]
    if stacked or not window:
        pass  # what there is one of in each layer is not told from what is stacked
    elif own == ("weight",):
        if max(window) <= min(32, shape[rest[0]]):
            into = front[:1]
    elif len(rest) in _attention_axes(names):
        adapted = own[-1] == "b" and any(_any(ADAPTERS, parts) for _, parts in names)
        longest = max(shape[axis] for axis in front)
        into = [axis for axis in front if shape[axis] == longest]
        if "kernel" in own or adapted:  # of Flax, where what comes in is first
            into = front[:1]
        if len(into) > 1:
            into = front
    cols = tuple(axis for axis in rest if axis not in into)
    return View(batch, tuple(into), cols)


def _attention_axes(names: Sequence[Name]) -> Axes:
    """How many axes a leaf has that makes queries, keys, values or gates; none for others."""
    made: set[str] = set()
    for i, (_, parts) in reversed([*enumerate(names)]):
        said = set(parts) - MADE
        if not said:
            made |= set(parts)
            continue
        if "in" in made and parts[-1].endswith(ATTENTION):
            return 3, 4
        attends = any(before[-1].endswith(ATTENTION) for _, before in names[:i])
        if not said <= INPUTS | FUSED | (GATES if attends else set()):
            return ()
        return (3, 4) if said & FUSED or len(said) > 1 else (3,)
    return ()


def _inputs(names: Sequence[Name], shape: Sequence[int], view: View) -> int | None:
    """How many inputs a kernel reads at each place of its window, if it is a convolution's."""
    own = names[-1][1]
    if own == ("weight",) and len(view.cols) > 1:
        return shape[view.cols[0]]
    convolves = own in (("kernel",), ("w",)) and len(view.cols) == 1
    return shape[view.rows[-1]] if convolves else None


def _layout(names: Sequence[Name], view: View, stacked: bool) -> str:
    """How a hidden leaf is read, where its name leaves that open."""
    if stacked and len(view.rows) > 1:
        return ", seen as one matrix; batch_axes or view_by_pattern for stacks"
    if names[-1][1] == ("weight",):
        return f", read as [{'in, out' if len(view.cols) == 1 else 'out, in, ...'}]"
    return ""
