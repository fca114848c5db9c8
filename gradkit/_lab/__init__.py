"""What stands behind the command line: tasks, models, sweeps, reports. Uses public names only."""
