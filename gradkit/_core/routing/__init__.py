"""Where each leaf goes. In: a tree and what is said of its leaves; out: a transform for each group of them."""
