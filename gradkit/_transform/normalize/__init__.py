"""Normalized directions.

In: a gradient. Out: a direction whose size does not depend on the gradient's. Uses `_core.matrix`.
"""
