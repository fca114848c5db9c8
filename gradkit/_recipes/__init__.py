"""Named chains, ready to use. In: a learning rate. Out: a transform whose updates go straight to `optax.apply_updates`."""
