"""Directions of several transforms, made into one. In: transforms. Out: one transform."""
