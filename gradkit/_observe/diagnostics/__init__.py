"""Measurements of a model and its training, and of a transform.

In: a model, its loss, optimizer and data; or a transform and parameters. Out: a result that prints as a table. Uses `_core.jaxpr`,
`_core.measure` and `_core.routing`.
"""
