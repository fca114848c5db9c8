"""Learning rates that fit a batch size, and batch sizes that fit a gradient.

In: numbers, or gradients of examples. Out: a number, or a function that returns one.
"""
