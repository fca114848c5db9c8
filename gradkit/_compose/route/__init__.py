"""Each parameter to its own transform.

In: rules over parameter paths. Out: one transform. Uses `_core.routing`.
"""
