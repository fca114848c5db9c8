"""Small forms of architectures that people train, with the right muP table beside each."""
