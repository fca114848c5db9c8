"""First parameters, and the factors that fine-tuning trains.

In: the parameters of a model. Out: its parameters, or these and factors beside them. Uses
`_core.matrix`.
"""
