"""What a function does with its arguments. In: a traced function; out: uses of parameters, activations."""
