"""Quantization. In: arrays of at least float32. Out: numbers of a narrower dtype, or codes of 8 or 4 bits with one scale a block."""
