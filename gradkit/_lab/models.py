"""Small Flax NNX networks, of text and of images of 8 by 8 pixels."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Params = Any  # nested dicts of arrays
Mix = Callable[..., jax.Array]  # (query, key, value, scale) -> their attention


def causal(q: jax.Array, k: jax.Array, v: jax.Array, scale: float) -> jax.Array:
    """Attention to this and earlier positions, which are rotary."""
    return attend(rotate(q), rotate(k), v, scale, earlier(q.shape[-3]))


def everywhere(q: jax.Array, k: jax.Array, v: jax.Array, scale: float) -> jax.Array:
    """Attention to all positions."""
    return attend(q, k, v, scale, np.ones((1, 1, 1, 1), bool))


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, scale: float, seen: np.ndarray
) -> jax.Array:
    """Attention where `seen`; arrays are `[batch, position, head, feature]`."""
    scores = jnp.einsum("bihd,bjhd->bhij", q, k) * scale
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), axis=-1)
    return jnp.einsum("bhij,bjhd->bihd", weights, v)


def earlier(length: int) -> np.ndarray:
    """Of every position, itself and those before, `[1, 1, position, position]`."""
    return np.tril(np.ones((1, 1, length, length), bool))


def rotate(x: jax.Array) -> jax.Array:
    """Rotary position embedding."""
    length, half = x.shape[-3], x.shape[-1] // 2
    angles = np.arange(length)[:, None] * 1e4 ** (-np.arange(half) / half)
    cos, sin = (f(angles)[None, :, None].astype(x.dtype) for f in (np.cos, np.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class Block(nnx.Module):
    """Attention, then a multilayer perceptron, each on normalized input."""

    def __init__(
        self,
        width: int,
        heads: int,
        scores: float | None,
        branch: float,
        rngs: nnx.Rngs,
        mix: Mix = causal,
    ):
        linear = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.heads, self.branch, self.mix = heads, branch, mix
        self.scores = (width // heads) ** -0.5 if scores is None else scores
        self.norm_attention = nnx.RMSNorm(width, rngs=rngs)
        self.query = linear(width, width)
        self.key = linear(width, width)
        self.value = linear(width, width)
        self.out = linear(width, width)
        self.norm_mlp = nnx.RMSNorm(width, rngs=rngs)
        self.up = linear(width, 4 * width)
        self.down = linear(4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.norm_attention(x)
        split = (*h.shape[:-1], self.heads, -1)
        q, k, v = (f(h).reshape(split) for f in (self.query, self.key, self.value))
        mixed = self.mix(q, k, v, self.scores).reshape(x.shape)
        x = x + self.branch * self.out(mixed)
        return x + self.branch * self.down(jax.nn.gelu(self.up(self.norm_mlp(x))))


class Transformer(nnx.Module):
    """Bytes in, logits of the next byte out: pre-norm, rotary positions, no biases."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        output: float = 1.0,  # factor of the logits
        scores: float | None = None,  # factor of products of queries and keys
        branch: float = 1.0,  # factor of the output of each block
        rngs: nnx.Rngs,
    ):
        self.output = output
        self.embed = nnx.Embed(256, width, rngs=rngs)
        self.blocks = nnx.List(
            [Block(width, heads, scores, branch, rngs) for _ in range(layers)]
        )
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 256, use_bias=False, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.output * self.head(self.norm(x))


class Convnet(nnx.Module):
    """Images of 8 by 8 in, logits of ten classes out."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(9, width, rngs=rngs)
        self.second = nnx.Linear(9 * width, 2 * width, rngs=rngs)
        self.head = nnx.Linear(4 * 4 * 2 * width, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.first(neighbours(images[..., None])))
        x = jax.nn.relu(self.second(neighbours(x)[:, ::2, ::2]))
        return self.head(x.reshape(len(x), -1))


class Recurrent(nnx.Module):
    """Bytes in, logits of the next byte out: gated recurrent units (Cho et al., 2014).

    The reset gate is applied behind the product, as cuDNN does it.
    """

    def __init__(self, width: int, layers: int, *, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, width, 3 * width, rngs=rngs)
        self.embed = nnx.Embed(256, width, rngs=rngs)
        self.input = nnx.List([linear() for _ in range(layers)])
        self.hidden = nnx.List([linear(use_bias=False) for _ in range(layers)])
        self.head = nnx.Linear(width, 256, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        for into, hidden in zip(self.input, self.hidden):
            x = scan(hidden, into(x))
        return self.head(x)


class Vit(nnx.Module):
    """Images of 8 by 8 in, logits of ten classes out: a transformer of 16 patches of 2 by 2."""

    def __init__(self, width: int, layers: int, heads: int, *, rngs: nnx.Rngs):
        block = functools.partial(Block, width, heads, None, 1.0, rngs, everywhere)
        self.patch = nnx.Linear(4, width, rngs=rngs)
        self.position = nnx.Embed(16, width, rngs=rngs)
        self.blocks = nnx.List([block() for _ in range(layers)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.patch(patches(images)) + self.position(jnp.arange(16))[None]
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(self.norm(x), axis=-2))


class Autoencoder(nnx.Module):
    """64 pixels in and out, through layers of width, half and an eighth of it, and back."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        sizes = [64, width, width // 2, width // 8, width // 2, width, 64]
        self.layers = nnx.List(
            [nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        *layers, last = self.layers
        for layer in layers:
            x = jnp.tanh(layer(x))
        return last(x)


def scan(hidden: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """The states of gated recurrent units at every position of `x`, `[batch, position, 3 units]`."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        (r, z, n), (hr, hz, hn) = (jnp.split(a, 3, axis=-1) for a in (x, hidden(h)))
        r, z = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(z + hz)
        h = (1 - z) * jnp.tanh(n + r * hn) + z * h
        return h, h

    before = jnp.zeros_like(x[:, 0, : x.shape[-1] // 3])
    return jax.lax.scan(step, before, x.swapaxes(0, 1))[1].swapaxes(0, 1)


def patches(images: jax.Array) -> jax.Array:
    """Patches of 2 by 2 pixels, `[image, 16, 4]`."""
    split = images.reshape(-1, 4, 2, 4, 2)
    return split.transpose(0, 1, 3, 2, 4).reshape(-1, 16, 4)


def neighbours(x: jax.Array) -> jax.Array:
    """The 3 by 3 patch around every pixel; a linear map of it is a convolution.

    On a CPU, XLA is slow at convolutions with batched kernels.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [(i, j) for i in range(3) for j in range(3)]
    return jnp.concatenate(
        [padded[:, i : i + height, j : j + width] for i, j in shifts], axis=-1
    )


def functional(
    build: Callable[..., nnx.Module],
) -> tuple[Callable[[jax.Array], Params], Callable[..., jax.Array]]:
    """`init(key) -> params` and `apply(params, inputs)` of the module `build(rngs=...)`."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))))

    def init(key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(build(rngs=nnx.Rngs(params=key)), nnx.Param))

    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(inputs)

    return init, apply
