"""Directions scaled by what gradients have been.

In: a gradient. Out: a direction of about unit size in every entry. Norms of neurons use `_core.matrix`.
"""
