"""Steps that are not made. In: a transform. Out: the same transform, which rests where a gradient or a loss is not to be trusted."""
