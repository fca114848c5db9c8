"""Write `gradkit/__init__.py` from the catalogue; `--check` fails when it is stale."""

import argparse
import pathlib
import runpy
import sys

PACKAGE = pathlib.Path(__file__).parents[1] / "gradkit"
HEAD = '''"""Composable gradient transformations for JAX. Written by tools/export.py."""

from optax import apply_updates as apply_updates
from optax import chain as chain

'''
OTHERS = {  # public names that are not methods, and the modules that define them
    "Growth": "gradkit._core.width",
    "infer_parametrization": "gradkit._core.width",
}


def text() -> str:
    """The package's `__init__.py`: every public name, imported as itself."""
    methods = runpy.run_path(str(PACKAGE / "catalogue.py"))["METHODS"]
    names = {m.name: m.module for m in methods} | OTHERS
    lines = sorted(f"from {module} import {n} as {n}\n" for n, module in names.items())
    return HEAD + "".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    target = PACKAGE / "__init__.py"
    if not parser.parse_args().check:
        target.write_text(text())
    elif target.read_text() != text():
        sys.exit(f"{target} is stale: run python tools/export.py")
