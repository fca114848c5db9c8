"""Measurements on runs. In: experiments and points; out: fits, sweeps and coordinate checks."""

from gradkit._core.measure.coordinates import Coordinates
from gradkit._core.measure.entry import RaceEntry, RaceProgress
from gradkit._core.measure.experiment import Experiment
from gradkit._core.measure.race_table import RaceTable
from gradkit._core.measure.space import LogUniform, Uniform
from gradkit._core.measure.sweep_result import SweepResult
from gradkit._core.measure.sweep_table import SweepTable
from gradkit._core.measure.task import Task
from gradkit._core.measure.training import SweepProgress

__all__ = [
    "Coordinates",
    "Experiment",
    "LogUniform",
    "RaceEntry",
    "RaceProgress",
    "RaceTable",
    "SweepProgress",
    "SweepResult",
    "SweepTable",
    "Task",
    "Uniform",
]
