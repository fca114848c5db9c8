"""Directions found in a few dimensions: one projection, and the parts to make it of.

`project(inner, rank, basis, refresh, rest, align)` takes any of

- `basis`: `principal`, `in_range`, `by_power`, `cosines`, `random_walk`, `random_jump`,
  `random_signs`, `gaussian`;
- `refresh`: `together`, `in_turn`, `when_shares_fall`;
- `rest`: `left_out`, `added`, `fed_back`, `recovered`, `rescaled`;
- `align`: `turned`, `forgotten`, or none;

or a `Basis`, `Refresh`, `Rest` or `Align` of your own.
"""

from gradkit._core.alignments import Align, Turn, forgotten, turned
from gradkit._core.bases import Basis, by_power, in_range, principal
from gradkit._core.cosine_basis import cosines
from gradkit._core.projection import SubspaceState, project
from gradkit._core.random_bases import gaussian, random_jump, random_signs, random_walk
from gradkit._core.refreshes import Refresh, in_turn, together, when_shares_fall
from gradkit._core.rescaling import (
    by_columns,
    by_matrices,
    recovered,
    rescaled,
    slow_growth,
)
from gradkit._core.rests import Rest, Seen, added, fed_back, left_out
from gradkit._core.seeing import Side

__all__ = [
    "Align",
    "Basis",
    "Refresh",
    "Rest",
    "Seen",
    "Side",
    "SubspaceState",
    "Turn",
    "added",
    "by_columns",
    "by_matrices",
    "by_power",
    "cosines",
    "fed_back",
    "forgotten",
    "gaussian",
    "in_range",
    "in_turn",
    "left_out",
    "principal",
    "project",
    "random_jump",
    "random_signs",
    "random_walk",
    "recovered",
    "rescaled",
    "slow_growth",
    "together",
    "turned",
    "when_shares_fall",
]
