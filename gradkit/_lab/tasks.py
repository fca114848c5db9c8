"""Tasks of a race: a model, its loss, its training and held-out data."""

import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._lab import models, text
from gradkit._lab.complaint import Complaint

Data = Any  # a pytree of arrays
Batch = Any  # a pytree of arrays, examples first


class Task(NamedTuple):
    """A model, its loss and its data, with pure functions."""

    name: str
    summary: str  # data, model and batch in one line
    unit: str  # of a batch's size, such as bytes
    batch: int  # examples in a batch
    units: int  # units in a batch
    init: Callable[[jax.Array], models.Params]  # key -> params
    loss: Callable[[models.Params, Batch], jax.Array]  # mean over the batch, in nats
    take: Callable[[Data, jax.Array], Any]  # the example at an index
    train: Data
    train_size: int  # the number of its examples
    held_out: Data
    held_out_size: int
    arguments: dict[str, Any]  # given to every recipe that takes them

    def examples(self, data: Data, indices: jax.Array) -> Batch:
        """The batch of examples at these indices."""
        return jax.vmap(self.take, in_axes=(None, 0))(data, indices)

    def fingerprint(self) -> str:
        """A hash of all data, which a resumed race compares."""
        digest = hashlib.sha256()
        for array in jax.tree.leaves((self.train, self.held_out)):
            digest.update(np.asarray(array).tobytes())
        return digest.hexdigest()[:16]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean of minus the log-probability of each label, in nats."""
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def arguments(width: int) -> dict[str, Any]:
    """One weight decay for all recipes, and a rank below `width`; defaults suit larger models."""
    return {"weight_decay": 0.01, "rank": max(1, width // 4)}


def next_byte(
    path: pathlib.Path | None = None,
    *,
    without: pathlib.Path | None = None,
    width: int = 64,
    layers: int = 2,
    heads: int = 2,
    context: int = 32,
    batch: int = 12,
) -> Task:
    """Predict the next byte of text, without files in `without`, with a transformer."""
    train, held_out = text.given(path, without) if path else text.standard_library()
    sizes = len(train) - context, len(held_out) - context  # windows of context + 1
    if min(sizes) < 1:
        raise Complaint(
            f"too little data: {len(train)} bytes to train on and {len(held_out)} held "
            f"out, both must be above {context}. Name a larger file or folder."
        )
    build = functools.partial(models.Transformer, width, layers, heads)
    init, apply = models.functional(build)

    def loss(params: models.Params, windows: Batch) -> jax.Array:
        return cross_entropy(apply(params, windows[..., :-1]), windows[..., 1:])

    def take(data: Data, index: jax.Array) -> jax.Array:
        window = jax.lax.dynamic_slice_in_dim(data, index, context + 1)
        return window.astype(jnp.int32)

    source = text.name(path) if path else "the Python standard library"
    return Task(
        name="bytes",
        summary=f"the next byte of {source} ({len(train) / 1e6:.3g} MB); transformer, "
        f"{layers} layers of width {width}; {batch} x {context} bytes a step",
        unit="bytes",
        batch=batch,
        units=batch * context,
        init=init,
        loss=loss,
        take=take,
        train=jnp.asarray(train),
        train_size=sizes[0],
        held_out=jnp.asarray(held_out),
        held_out_size=sizes[1],
        arguments=arguments(width),
    )


def digits(*, width: int = 16, batch: int = 64) -> Task:
    """Classify handwritten digits with a small convolutional network."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = jnp.asarray(images / 8 - 1, jnp.float32).reshape(-1, 8, 8)
    labels = jnp.asarray(labels, jnp.int32)
    order = np.random.default_rng(0).permutation(len(images))
    train, held_out = np.split(order, [len(order) * 4 // 5])
    init, apply = models.functional(functools.partial(models.Convnet, width))

    def loss(params: models.Params, examples: Batch) -> jax.Array:
        return cross_entropy(apply(params, examples[0]), examples[1])

    def take(data: Data, index: jax.Array) -> Batch:
        return data[0][index], data[1][index]

    return Task(
        name="digits",
        summary=f"scikit-learn's digits ({len(train)} images); convolutional network "
        f"of width {width}; {batch} images a step",
        unit="images",
        batch=batch,
        units=batch,
        init=init,
        loss=loss,
        take=take,
        train=(images[train], labels[train]),
        train_size=len(train),
        held_out=(images[held_out], labels[held_out]),
        held_out_size=len(held_out),
        arguments=arguments(width),
    )
