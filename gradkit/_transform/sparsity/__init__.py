"""Directions with few entries. In: a gradient. Out: the same gradient, zero where a mask is."""
