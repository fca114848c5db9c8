"""Leaves as matrices, and matrix functions.

In: leaves of any shape and their stacked axes. Out: orthonormal bases, inverse roots and polar factors.
"""
