"""Leaves as matrices, and matrix functions.

In: leaves of any shape and their stacked axes. Out: norms, orthonormal bases, roots and polar factors.
"""
