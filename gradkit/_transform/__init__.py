"""The direction: sees only gradients, parameters and its own state. In: a gradient. Out: a direction, of the same sign."""
