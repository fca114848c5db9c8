"""Steps that keep their effect when a model grows.

In: an update. Out: the update times one number a leaf. Uses `gradkit.parametrization`.
"""
