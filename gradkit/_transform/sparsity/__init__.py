"""Directions with few entries. In: a gradient. Out: a direction, zero or small outside a mask."""
