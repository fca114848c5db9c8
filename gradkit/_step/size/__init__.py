"""The size of the step. In: a direction. Out: an update, its sign turned."""
