"""States that begin again. In: a transform. Out: the same transform, all or a part of its state made new from time to time."""
