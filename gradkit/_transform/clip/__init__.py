"""Directions of bounded size. In: a gradient. Out: the same gradient, shorter where it was too long."""
