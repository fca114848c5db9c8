"""Parameters of few bits that lose no update. In: an update. Out: the difference to a number of the parameter's dtype, in float32. Stands last in a chain, uses the core's `codec`."""
