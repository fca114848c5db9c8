"""Numbers of a run, for a logger.

In: a transform. Out: the same transform, with numbers of each update in its state.
"""
