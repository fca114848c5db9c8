"""What a form of a model is, and the arithmetic of Table 8 of Tensor Programs V.

A leaf w is used as W = F w: `factor` is the growth of F, the number by which the model itself
multiplies the leaf, or a product with it. Of W, whose fan-in grows i and whose fan-out grows o,
muP wants

    input, embedding, vector   init 1,         move 1
    hidden, expert             init i^(-1/2),  move i^(-1)
    output, router             init i^(-1),    move i^(-1)

where the move is how far Adam takes an entry. An output matrix has its i^(-1) as a forward
multiplier, and then keeps its init and its rate. The gradient of w is its factor, with the forward
multiplier in it, times that of W, which is o^(-1).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core.paths import leaf_paths


class Row(NamedTuple):
    """What is right of a leaf: growths and multipliers are target over base."""

    role: str  # hidden expert input embedding tied vector output router fixed
    growth_in: float
    growth_out: float
    depth: float  # growth of the number of like layers in series
    adam: tuple[float, float, float]  # init, rate and forward multipliers, rule "mup"
    sgd: float  # rate multiplier, rule "mup"


class Read(NamedTuple):
    """What is right of a leaf of the target model, without looking at another.

    Axes of one entry are neither inputs nor outputs, and nor are those that number the positions
    (tokens, pixels, latents) at which a vector has its features. What makes the outputs of the
    model is a `readout`, convolution or not.
    """

    kind: str  # matrix embedding tied vector convolution readout router
    inputs: tuple[int, ...] = ()  # axes summed over; of a table, the rows
    outputs: tuple[int, ...] = ()  # axes produced
    stacked: tuple[int, ...] = ()  # axes that number layers, experts or other matrices
    blocks: int = (
        1  # matrices into which the model cuts the outputs; heads do not count
    )


class Form(NamedTuple):
    """A small model with its table. Tables are by regular expression on whole paths."""

    name: str
    init: Callable[..., Any]  # of a size, or of named sizes
    apply: Callable[
        ..., Any
    ]  # of parameters and the example; of a tuple, of its entries
    example: Any
    base: Any
    target: Any
    delta: Any = None
    rows: Mapping[str, Row] = {}  # every leaf of the target matches one
    reads: Mapping[str, Read] = {}  # likewise
    notes: tuple[tuple[str, str], ...] = ()  # an expression for the paths named; a word
    roles: Mapping[str, str] = {}  # what has to be said by hand


NOTES = {
    "forward": "a tied table or an inner output matrix wants a forward multiplier that is not 1",
    "scores": "a product of two activations wants another power of the width",
    "ranked": "what a hidden matrix makes is ranked: it may be a router",
    "order": "the direction of a product of two parameters is a guess",
}


def hidden(i=4, o=4, depth=1, factor=1, role="hidden") -> Row:
    """Sums over a width and produces a width."""
    rate = o / (i * factor**2)
    return Row(role, i, o, depth, (i**-0.5 / factor, 1 / (i * factor), 1), rate)


def from_fixed(role: str, o=4, depth=1, factor=1) -> Row:
    """Produces a width from what does not grow: `input`, `embedding`, `vector`."""
    return Row(role, 1, o, depth, (1 / factor, 1 / factor, 1), o / factor**2)


def to_fixed(i=4, o=1, depth=1, factor=1, role="output") -> Row:
    """Sums over a width, and what is summed is no feature of a growing width."""
    return Row(role, i, o, depth, (1, 1, 1 / (i * factor)), i * o)


def tied(o=4, factor_in=1, factor_out=1) -> Row:
    """A table whose rows are looked up, and that is the output matrix too."""
    table = from_fixed("tied", o, factor=factor_in)
    init, rate, _ = table.adam
    return table._replace(adam=(init, rate, 1 / (o * init * factor_out)))


INPUT, EMBEDDING, VECTOR = map(from_fixed, ("input", "embedding", "vector"))
HIDDEN, OUTPUT = hidden(), to_fixed()
ROUTER, EXPERT = to_fixed(role="router"), hidden(role="expert")
FIXED = Row("fixed", 1, 1, 1, (1, 1, 1), 1)

# one matrix or vector, in the layouts that are common
MATRIX = Read("matrix", (0,), (1,))  # [in, out]
TRANSPOSED = Read("matrix", (1,), (0,))  # [out, in]
TO_HEADS = Read("matrix", (0,), (1, 2))  # [in, heads, head size]
FROM_HEADS = Read("matrix", (0, 1), (2,))  # [heads, head size, out]
CONVOLUTION = Read("convolution", (0, 1, 2), (3,))  # [height, width, in, out]
READOUT = Read("readout", (0,), (1,))
TABLE = Read("embedding", (0,), (1,))  # [rows, out]
TIED = Read("tied", (0,), (1,))
GAIN = Read("vector", (), (0,))  # biases too


def leaves(params: Any) -> Mapping[str, Any]:
    """The leaves that can be trained, by path."""
    found = zip(leaf_paths(params), jax.tree.leaves(params))
    real = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)
    return {path: x for path, x in found if real(x)}


def entry(table: Mapping[str, Any], path: str) -> Any:
    """The one entry of a table whose expression matches a path."""
    (found,) = (x for rule, x in table.items() if re.fullmatch(rule, path))
    return found


def keys(seed: int = 0) -> Iterator[jax.Array]:
    """Random keys without end."""
    key = jax.random.key(seed)
    while True:
        key, found = jax.random.split(key)
        yield found


def normal(key: jax.Array, *shape: int, scale: float) -> jax.Array:
    """Normal entries of a standard deviation."""
    return scale * jax.random.normal(key, shape)


def matrix(key: jax.Array, i: int, o: int) -> jax.Array:
    """Normal entries of variance one over the fan-in."""
    return normal(key, i, o, scale=i**-0.5)
