"""A recipe of a race, with what is tuned, and how far a race is."""

from collections.abc import Callable
from typing import NamedTuple

from gradkit._core.measure.space import Space
from gradkit._core.measure.training import SweepProgress
from gradkit._core.types import AnyTransform


class RaceEntry(NamedTuple):
    """A factory, and the hyperparameters that are tuned, `learning_rate` beside them.

    >>> gk.RaceEntry(gk.muon, {"learning_rate": gk.LogUniform(1e-3, 1e-1),
    ...     "adam_lr_ratio": [0.05, 0.2, 1.0]}).space["adam_lr_ratio"]
    [0.05, 0.2, 1.0]
    """

    make_tx: Callable[..., AnyTransform]  # takes what the space names
    space: Space
    about: str = (
        ""  # what else makes its numbers; a folder of another race is told by it
    )


class RaceProgress(NamedTuple):
    """How far a race is."""

    recipe: str
    reporting: bool  # the chosen point from other seeds; before, trials are run
    progress: SweepProgress
