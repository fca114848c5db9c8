"""Numbers in few bits. In: arrays of at least float32. Out: the nearest numbers of a narrower dtype, or codes with a scale a block."""
