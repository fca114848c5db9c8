"""Quantization. In: arrays of at least float32. Out: numbers of a narrower dtype, or int8 codes with one scale a block."""
