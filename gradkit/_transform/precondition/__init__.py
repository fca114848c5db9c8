"""Matrix gradients seen through estimates of the curvature.

In: a gradient. Out: a direction; more steps where the loss is flat. Uses `_core.matrix`.
"""
