"""Directions found in few dimensions.

In: a gradient matrix. Out: a direction that `inner` found in a low-rank subspace. Uses `_core.matrix` and `gradkit.subspace`.
"""
