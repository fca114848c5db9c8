"""Measurements of a model and its training.

In: a model, its loss, optimizer and data. Out: a result that prints as a table and draws itself. Uses `_core.jaxpr` and `_core.measure`.
"""
