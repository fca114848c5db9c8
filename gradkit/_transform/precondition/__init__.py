"""Matrix gradients divided by estimates of the curvature.

In: a gradient. Out: a direction, longer where the loss is flat. Uses `_core.matrix`.
"""
