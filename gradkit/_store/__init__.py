"""How the state of a transform is kept. In: a transform. Out: the same transform, with a smaller state."""
