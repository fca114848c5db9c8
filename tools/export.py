"""Write `gradkit/__init__.py` from the catalogue; `--check` fails when it is stale."""

import argparse
import pathlib
import runpy
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

PACKAGE = pathlib.Path(__file__).parents[1] / "gradkit"
HEAD = '''"""Composable gradient transformations for JAX.

Methods by family, in the order in which a gradient meets them; `gradkit list AGC` on the command
line, or `gradkit show AGC`, finds one by what people call it, and says all about it.

{families}

Beside them: {others}.

Written by tools/export.py.
"""

from optax import apply_updates as apply_updates

'''
OTHERS = {  # public names that are not methods, and the modules that define them
    "chain": "gradkit._core.chain",
    "Coordinates": "gradkit._core.coordinates",
    "Parameter": "gradkit._core.width",
    "Parametrization": "gradkit._core.width",
    "Transfer": "gradkit._core.optima",
    "Trial": "gradkit._core.trial",
    "infer_parametrization": "gradkit._core.infer",
    "LeafReading": "gradkit._core.model",
    "ModelReading": "gradkit._core.model",
    "read_model": "gradkit._core.model",
    "newton_schulz": "gradkit._core",
    "subspace": "gradkit._core",
    "Multipliers": "gradkit._core.scaling",
    "OPTIMIZERS": "gradkit._core.scaling",
    "Optimizer": "gradkit._core.scaling",
    "RULES": "gradkit._core.rules",
    "multiplier_columns": "gradkit._core.rules",
    "multipliers": "gradkit._core.rules",
    "rescale_init": "gradkit._core.transfer",
    "routes": "gradkit._core.routes",
}


def line(name: str, module: str) -> str:
    """The import of one public name, as the formatter leaves it."""
    short = f"from {module} import {name} as {name}\n"
    wrapped = f"from {module} import (\n    {name} as {name},\n)\n"
    return short if len(short) <= 89 else wrapped


def filled(names: Iterable[str], first: str, width: int = 96) -> str:
    """Names in lines, behind the `first` words."""
    said = f"{first} {', '.join(names)}"
    return textwrap.fill(said, width, subsequent_indent="    ", break_on_hyphens=False)


def families(methods: Iterable[Any]) -> str:
    """The names of every family."""
    found: dict[str, list[str]] = {}
    for method in methods:
        found.setdefault(method.family, []).append(method.name)
    return "\n".join(filled(names, f"{family}:") for family, names in found.items())


def text() -> str:
    """The package's `__init__.py`: every public name, imported as itself."""
    methods = runpy.run_path(str(PACKAGE / "catalogue.py"))["METHODS"]
    names = {m.name: m.module for m in methods} | OTHERS

    def order(name: str) -> tuple[str, bool, bool, str]:
        """By module; constants, then classes, then functions: as the linter sorts imports."""
        return names[name], not name.isupper(), name[0].islower(), name

    head = HEAD.format(families=families(methods), others=filled(OTHERS, "", 78)[1:])
    return head + "".join(line(name, names[name]) for name in sorted(names, key=order))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    target = PACKAGE / "__init__.py"
    if not parser.parse_args().check:
        target.write_text(text())
    elif target.read_text() != text():
        sys.exit(f"{target} is stale: run python tools/export.py")
