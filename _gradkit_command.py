"""The command `gradkit`: Ctrl-C is answered in one line also while JAX is still being imported.

It stands beside the package, whose own import brings JAX, and imports nothing of it until it is called.
"""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from gradkit.cli import app
    except KeyboardInterrupt:
        print("gradkit: stopped.", file=sys.stderr)
        raise SystemExit(130) from None
    app()
