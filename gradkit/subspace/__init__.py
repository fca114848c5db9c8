"""Low-rank projections of gradients: `project`, and the parts that it is made of.

In: a gradient matrix `g`. Out: a direction, made from what `inner` returns for the projection
`r = P^T g` onto a basis `P` of few columns.

`project(inner, rank, basis=, schedule=, residual=, realign=)` takes any of

- `basis`, how `P` is found: `svd` (GaLore), `randomized_svd` (Halko and others),
  `subspace_iteration` (PowerSGD), `dct`, `grassmann_walk` (GrassWalk), `grassmann_jump`
  (GrassJump), `gaussian` (APOLLO), `rademacher`;
- `schedule`, when it is renewed: `every_n`, `staggered`, `on_energy_drop`;
- `residual`, what becomes of `g - P r`: `discard_residual` (GaLore), `pass_residual` (subspace
  momentum), `error_feedback` (PowerSGD), `fira_residual` (Fira), `norm_matched` (APOLLO, with
  axes `channelwise` or `tensorwise`); the last two use the `norm_growth_limiter`;
- `realign`, what becomes of moments in a new basis: `rotate_moments` (LDAdam), `reset_moments`
  (subspace momentum), or none;

or a `Basis`, `UpdateSchedule`, `Residual` or `Realign` of your own. They receive records: a
`BasisState`, a `Projected` gradient, a `BasisChange`.
"""

from gradkit.subspace.apollo import channelwise, norm_matched, tensorwise
from gradkit.subspace.cosines import dct
from gradkit.subspace.feedback import error_feedback
from gradkit.subspace.fira import fira_residual
from gradkit.subspace.grassmann import grassmann_jump, grassmann_walk
from gradkit.subspace.moments import reset_moments, rotate_moments
from gradkit.subspace.norm_growth import norm_growth_limiter
from gradkit.subspace.parts import (
    Basis,
    BasisChange,
    BasisState,
    Projected,
    Realign,
    Residual,
    UpdateSchedule,
)
from gradkit.subspace.power_iteration import subspace_iteration
from gradkit.subspace.projection import SubspaceState, project
from gradkit.subspace.range_finder import randomized_svd
from gradkit.subspace.residuals import discard_residual, pass_residual
from gradkit.subspace.schedules import every_n, on_energy_drop, staggered
from gradkit.subspace.singular_vectors import svd
from gradkit.subspace.sketches import gaussian, rademacher
from gradkit.subspace.views import Side

__all__ = [
    "Basis",
    "BasisChange",
    "BasisState",
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
