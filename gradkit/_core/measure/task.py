"""A task to train on: a model, its data, and two held-out losses."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from gradkit._core.types import Params

Batch = Any  # what the loss is given beside the parameters


class Task(NamedTuple):
    """What a race trains; all functions are pure.

    Hyperparameters are chosen by the validation loss and reported by the test loss, so that no
    recipe is praised for the luck of its choice.
    """

    name: str
    init: Callable[[jax.Array], Params]  # key -> first parameters
    loss: Callable[[Params, Batch], jax.Array]  # a number
    data: Callable[[jax.Array], Batch]  # key -> the batch that it draws
    validation: Callable[[Params], jax.Array]  # a number
    test: Callable[[Params], jax.Array]  # a number
    summary: str = ""  # data, model and batch in one line
    unit: str = "examples"  # of what a batch has, such as bytes
    units: int = 1  # in a batch
    arguments: Mapping[str, Any] = {}  # given to every recipe that takes them
