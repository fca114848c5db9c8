"""States in few bits. In: a transform. Out: the same transform, whose arrays are decoded before an update and encoded after it. Uses the core's `codec`."""
