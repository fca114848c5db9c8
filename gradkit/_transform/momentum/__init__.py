"""Momentum. In: a gradient. Out: a mixture of past gradients, or a comparison of past and present."""
