"""What a function does with its arguments, read from its jaxpr.

In: a function with parameters and an example; out: how it uses each parameter (`follow`), and the
activations of all its products (`record`).
"""
