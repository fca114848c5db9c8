"""Hyperparameters that are state. In: a factory and its numbers. Out: a transform whose numbers are read and set in its state."""
