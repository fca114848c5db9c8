"""Momentum. In: a gradient. Out: a mixture of past gradients, or past and present compared."""
