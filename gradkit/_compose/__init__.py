"""Transforms made of transforms. In: transforms. Out: one transform."""
