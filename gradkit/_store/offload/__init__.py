"""States in another memory. In: a transform. Out: the same transform, whose arrays are in host memory between updates."""
