"""Low-rank projections of gradients.

In: a gradient matrix. Out: a direction, made from what `inner` returns for its projection. Uses `_core.matrix` and `gradkit.subspace`.
"""
