"""Abstract interpretation of jaxprs: the uses of parameters, and their activations.

In: a function with parameters and an example; out: how it uses each parameter (`follow`), and the
activations of all its products (`record`).
"""
