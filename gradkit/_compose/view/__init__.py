"""Leaves seen as batches of matrices.

In: a transform of matrices, patterns over parameter paths. Out: the same transform for leaves of any shape. Uses `_core.matrix` and `_core.routing`.
"""
