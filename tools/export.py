"""Write `gradkit/__init__.py` from the catalogue; `--check` fails when it is stale."""

import argparse
import ast
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
`help(gradkit.glossary)` explains what their docstrings share.

{families}

Beside them: {others}.

Written by tools/export.py.
"""

from optax import apply_updates as apply_updates

'''
FLAT = ("gradkit._core", "gradkit._core.measure", "gradkit.parametrization")
PACKAGES = ("glossary", "parametrization", "subspace")  # public as they are


def others() -> dict[str, str]:
    """Public names that are not methods, and the modules that say so in `__all__`."""
    found = {name: "gradkit" for name in PACKAGES}
    for module in FLAT:
        path = PACKAGE.parent.joinpath(*module.split("."), "__init__.py")
        names = public_names(path)
        found |= {name: module for name in names}
    return found


def public_names(path: pathlib.Path) -> list[str]:
    """The `__all__` of a module, which is not imported: JAX takes seconds."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path} has no __all__")


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
    names = {m.name: m.module for m in methods} | others()

    def order(name: str) -> tuple[str, bool, bool, str]:
        """By module; constants, then classes, then functions: as the linter sorts imports."""
        return names[name], not name.isupper(), name[0].islower(), name

    head = HEAD.format(families=families(methods), others=filled(others(), "", 78)[1:])
    return head + "".join(line(name, names[name]) for name in sorted(names, key=order))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    target = PACKAGE / "__init__.py"
    if not parser.parse_args().check:
        target.write_text(text())
    elif target.read_text() != text():
        sys.exit(f"{target} is stale: run python tools/export.py")
