"""A network that memorizes few examples, all in every batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._lab.claims.run import descend

INPUTS, WIDTH, CLASSES, EXAMPLES = 16, 64, 4, 128


class Memory(NamedTuple):
    """Measures of the trained network."""

    trained: jax.Array  # training loss
    held_out: jax.Array  # held-out loss
    accuracy: jax.Array  # on held-out examples
    growth: jax.Array  # norm of the weights, relative to the start


class Problem(NamedTuple):
    """Initial weights, two networks that label the examples, and inputs."""

    start: Any
    first: Any
    second: Any
    x: jax.Array
    unseen: jax.Array


def problem(seed: Any) -> Problem:
    """Random weights and examples."""
    *keys, train, test = jax.random.split(jax.random.key(seed), 8)
    shapes = [(INPUTS, WIDTH), (WIDTH, CLASSES)] * 3
    ws = [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in zip(keys, shapes)]
    x = jax.random.normal(train, (EXAMPLES, INPUTS))
    return Problem(ws[:2], ws[2:4], ws[4:], x, jax.random.normal(test, (1024, INPUTS)))


def logits(p: Any, x: jax.Array) -> jax.Array:
    """The logits of all classes."""
    return jax.nn.relu(x @ p[0]) @ p[1]


def labels(p: Any, x: jax.Array) -> jax.Array:
    """The class of the highest logit for each input."""
    return jnp.argmax(logits(p, x), axis=1)


def loss(p: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross entropy."""
    entropy = optax.losses.softmax_cross_entropy_with_integer_labels
    return jnp.mean(entropy(logits(p, x), y))


def memorize(tx: optax.GradientTransformation, seed: Any, steps: int) -> Memory:
    """Learn the labels that a random network gives."""
    start, truth, _, x, unseen = problem(seed)
    y, y_unseen = labels(truth, x), labels(truth, unseen)
    p, _ = descend(tx, lambda p, _: jax.grad(loss)(p, x, y), start, jnp.arange(steps))
    return Memory(
        loss(p, x, y),
        loss(p, unseen, y_unseen),
        jnp.mean(labels(p, unseen) == y_unseen),
        optax.tree.norm(p) / optax.tree.norm(start),
    )


def relearn(tx: optax.GradientTransformation, seed: Any, steps: int, more: int) -> Any:
    """After `steps` on one network's labels, the number of updates to learn 95 % of another's."""
    start, first, second, x, _ = problem(seed)
    before, after = labels(first, x), labels(second, x)

    def slope(p: Any, step: jax.Array) -> Any:
        return jax.grad(loss)(p, x, jnp.where(step < steps, before, after))

    def watch(p: Any, u: Any) -> jax.Array:
        return jnp.mean(labels(p, x) == after) >= 0.95

    _, learned = descend(tx, slope, start, jnp.arange(steps + more), watch)
    learned = learned[steps:]
    return jnp.where(jnp.any(learned), jnp.argmax(learned) + 1, more)
