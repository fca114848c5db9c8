"""`python -m gradkit` is `gradkit`."""

from gradkit.cli import app

app()
