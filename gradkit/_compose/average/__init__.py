"""Averages of parameters over the run. In: updates, last in a chain. Out: the same updates; the average is in the state."""
