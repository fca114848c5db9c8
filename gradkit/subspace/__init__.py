"""Directions found in a few dimensions: one projection, and the parts to make it of.

`project(inner, rank, basis, refresh, rest, align)` takes any of

- `basis`: `svd`, `randomized_svd`, `subspace_iteration`, `dct`, `grassmann_walk`, `grassmann_jump`,
  `rademacher`, `gaussian`;
- `refresh`: `every_n`, `staggered`, `on_energy_drop`;
- `rest`: `discard_residual`, `pass_residual`, `error_feedback`, `fira_residual`, `norm_matched`;
- `align`: `rotate_moments`, `reset_moments`, or none;

or a `Basis`, `Refresh`, `Rest` or `Align` of your own.
"""

from gradkit.subspace.bases import Basis, randomized_svd, subspace_iteration, svd
from gradkit.subspace.basis_state import Side
from gradkit.subspace.cosines import dct
from gradkit.subspace.norm_residuals import (
    channelwise,
    fira_residual,
    norm_growth_limiter,
    norm_matched,
    tensorwise,
)
from gradkit.subspace.projection import SubspaceState, project
from gradkit.subspace.random_bases import (
    gaussian,
    grassmann_jump,
    grassmann_walk,
    rademacher,
)
from gradkit.subspace.realign import BasisChange, Realign, reset_moments, rotate_moments
from gradkit.subspace.residuals import (
    Projected,
    Residual,
    discard_residual,
    error_feedback,
    pass_residual,
)
from gradkit.subspace.schedules import (
    UpdateSchedule,
    every_n,
    on_energy_drop,
    staggered,
)

__all__ = [
    "Basis",
    "BasisChange",
    "Projected",
    "Realign",
    "Residual",
    "Side",
    "SubspaceState",
    "UpdateSchedule",
    "channelwise",
    "dct",
    "discard_residual",
    "error_feedback",
    "every_n",
    "fira_residual",
    "gaussian",
    "grassmann_jump",
    "grassmann_walk",
    "norm_growth_limiter",
    "norm_matched",
    "on_energy_drop",
    "pass_residual",
    "project",
    "rademacher",
    "randomized_svd",
    "reset_moments",
    "rotate_moments",
    "staggered",
    "subspace_iteration",
    "svd",
    "tensorwise",
]
