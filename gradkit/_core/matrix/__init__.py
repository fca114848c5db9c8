"""Leaves as matrices. In: leaves and batch axes; out: norms, bases, roots and polar factors of them."""
