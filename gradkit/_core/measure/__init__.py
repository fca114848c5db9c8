"""Measurements on runs. In: experiments and points; out: fits, sweeps and coordinate checks."""

from gradkit._core.measure.coordinates import Coordinates
from gradkit._core.measure.experiment import Experiment
from gradkit._core.measure.space import LogUniform, Uniform
from gradkit._core.measure.sweep_result import SweepResult
from gradkit._core.measure.sweep_table import SweepTable

__all__ = [
    "Coordinates",
    "Experiment",
    "LogUniform",
    "SweepResult",
    "SweepTable",
    "Uniform",
]
