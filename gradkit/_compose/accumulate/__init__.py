"""Steps of several micro-batches each. In: gradients of micro-batches. Out: an update now and then, zeros between."""
