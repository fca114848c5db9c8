"""How large is the code, how much of it is said twice, and how far does one gradient walk?

    python benchmarks/house.py
    python benchmarks/house.py --of ../older-checkout   # another checkout, with its own package

A walk is what Python calls in `gradkit` while a transform of two matrices is built, its state made
and one update traced, comprehensions and lambdas apart. Files are those in which a call was.
"""

import argparse
import ast
import collections
import pathlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
LONG = 24  # characters of a line that is not repeated by chance


def lines(*places: pathlib.Path) -> int:
    """The lines of all files at these places."""
    return sum(len(path.read_text().splitlines()) for path in files(*places))


def files(*places: pathlib.Path) -> Iterator[pathlib.Path]:
    """The Python files at these places."""
    for place in places:
        yield from [place] if place.is_file() else sorted(place.rglob("*.py"))


def repeated(package: pathlib.Path) -> tuple[int, int]:
    """Long lines besides imports that stand in the package more than once, and all long lines."""
    found: collections.Counter[str] = collections.Counter()
    for path in files(package):
        text = path.read_text()
        imports = {
            i
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for i in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        for i, line in enumerate(text.splitlines(), 1):
            if len(line.strip()) >= LONG and i not in imports:
                found[line.strip()] += 1
    return sum(n for n in found.values() if n > 1), sum(found.values())


def docstrings(place: pathlib.Path) -> tuple[int, int]:
    """The lines of docstrings at a place, and all lines."""
    said = 0
    for path in files(place):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                first = node.body[0] if node.body else None
                if isinstance(first, ast.Expr) and ast.get_docstring(node) is not None:
                    said += (first.end_lineno or first.lineno) - first.lineno + 1
    return said, lines(place)


def walk(package: pathlib.Path, run: Callable[[], Any]) -> tuple[int, int]:
    """The calls of named functions of the package, and the files they are in."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(str(package))
        if event == "call" and ours and not code.co_name.startswith("<"):
            calls.append(code.co_filename)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return len(calls), len(set(calls))


def walks(package: pathlib.Path) -> Iterator[str]:
    """A row for each flow."""
    import jax
    import jax.numpy as jnp

    import gradkit as gk

    assert pathlib.Path(gk.__file__).parent == package, gk.__file__
    layers = {
        "up": {"kernel": jnp.ones((8, 16))},
        "down": {"kernel": jnp.ones((16, 8))},
    }
    params = {"block": layers}

    def update(make: Callable[[], Any], params: Any = params) -> Callable[[], Any]:
        def run() -> None:
            tx = make()
            jax.jit(tx.update).lower(params, tx.init(params), params)

        return run

    def model(width: int) -> dict[str, Any]:
        sides = {"in": (10, width), "hidden": (width, width), "out": (width, 3)}
        return {k: {"kernel": jnp.ones(side)} for k, side in sides.items()}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for name in ("in", "hidden"):
            x = jax.nn.relu(x @ params[name]["kernel"])
        return x @ params["out"]["kernel"]

    sizes = {"base": model(64), "target": model(128)}
    example = {"apply": apply, "example": jnp.ones((2, 10))}
    infer = lambda more: gk.transfer_by_mup(gk.infer_parametrization(**sizes, **more))
    flows = {
        "clip_by_zscore + scale_by_adam": update(
            lambda: optax_chain(gk.clip_by_zscore(), gk.scale_by_adam())
        ),
        "adamw": update(lambda: gk.adamw(1e-3)),
        "muon, with decay": update(lambda: gk.muon(0.02, weight_decay=0.1)),
        "galore": update(lambda: gk.galore(rank=4)),
        "inference by shapes": update(lambda: infer({}), sizes["target"]),
        "inference by jaxpr": update(lambda: infer(example), sizes["target"]),
    }
    for name, run in flows.items():
        calls, inside = walk(package, run)
        yield f"| {name} | {calls} | {inside} |"


def optax_chain(*transforms: Any) -> Any:
    """The two as any user of optax chains them."""
    import optax

    return optax.chain(*transforms)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--of", type=pathlib.Path, default=ROOT, help="a checkout")
    root = parser.parse_args().of.resolve()
    sys.path.insert(0, str(root))
    package = root / "gradkit"
    twice, long = repeated(package)
    said, of = docstrings(package / "_recipes")
    print("| walk | calls | files |\n|---|---|---|", *walks(package), sep="\n")
    print("\n| code | |\n|---|---|")
    print(f"| lines of gradkit | {lines(package)} |")
    print(f"| lines of `_core` | {lines(package / '_core')} |")
    base = [path for path in (package / "_core").glob("*.py")]
    print(f"| of these outside of its rooms | {lines(*base)} in {len(base)} files |")
    print(f"| lines said more than once | {twice} of {long} ({twice / long:.0%}) |")
    print(f"| docstrings of recipes | {said} of {of} ({said / of:.0%}) |")


if __name__ == "__main__":
    main()
