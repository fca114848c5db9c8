"""Measurements on runs. In: experiments and points; out: fits, sweeps and coordinate checks."""

from gradkit._core.measure.coordinates import Coordinates
from gradkit._core.measure.experiment import Experiment
from gradkit._core.measure.sweep_result import SweepResult

__all__ = ["Coordinates", "Experiment", "SweepResult"]
