"""Parameters that stay on a surface.

In: an update. Out: the difference to a point on it. Uses `_core.matrix`.
"""
