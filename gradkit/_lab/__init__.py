"""Tasks, models, sweeps and reports behind the command line. Uses public names only."""
