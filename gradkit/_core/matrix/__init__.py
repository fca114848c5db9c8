"""Leaves as matrices, and the mathematics of matrices.

In: leaves of any shape and their stacked axes. Out: norms, orthonormal bases, roots and polar factors.
"""
