"""Directions without a size: the gradient in a norm's dual.

In: a gradient. Out: a direction whose size says nothing of the gradient's. Uses `_core.matrix`.
"""
