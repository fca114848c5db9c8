"""Restore the state of a transform that was changed after it was saved.

In: a state, as live containers or as a checkpoint gives it back without them. Out: the state of
another transform, with the leaves that fit, and a record of those that did not.
"""
