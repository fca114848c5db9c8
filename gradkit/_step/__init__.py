"""How far: the sign turns here, once. In: a direction. Out: an update."""
