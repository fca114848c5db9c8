"""Learning-rate multipliers that transfer a tuned rate to another width or depth.

In: an update. Out: the update times one number a leaf. Uses `gradkit.parametrization`.
"""
