"""Measurements of a run. In: updates, losses, parameters; out: numbers. They change nothing."""
