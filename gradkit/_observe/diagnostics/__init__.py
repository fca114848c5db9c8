"""Measurements of a model and its training.

In: a model, a loss, data. Out: a result with a table, saved as JSON. Uses `_core.jaxpr` and `_core.measure`.
"""
