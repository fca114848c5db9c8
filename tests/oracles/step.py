"""Oracles of `_step`."""

from entry import entry


@entry("step_by_learning_rate", learning_rate=0.1)
def learning_rate(gs, ps, learning_rate):
    for g in gs:
        yield -learning_rate * g


@entry("decay_by_weight", weight_decay=0.1)
def weight(gs, ps, weight_decay):
    for u, p in zip(gs, ps):
        yield u - weight_decay * p
