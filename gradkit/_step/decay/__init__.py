"""Updates that also shrink parameters. In: an update. Out: an update with decay. Stands after the learning rate."""
