"""Which of the laws of `gradkit.testing` do optax's transforms keep, and how do they break the rest?

A law is what a user may come to rely on, not what optax promises: a transform that breaks one is
right where nobody needs it. Nothing here trains, so the numbers of a run do not matter.

    python benchmarks/laws_of_optax.py
"""

import argparse
import os
import pathlib
import platform
from importlib import metadata

os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)

import jax
import optax
import optax.contrib

from gradkit.testing import LAWS, Table, check

TRANSFORMS = {
    "adamw": optax.adamw,
    "contrib.muon": optax.contrib.muon,
    "contrib.schedule_free_adamw": optax.contrib.schedule_free_adamw,
    "contrib.prodigy": optax.contrib.prodigy,
}
MARKS = {
    "pass": "keeps",
    "fail": "**breaks**",
    "undocumented": "says nothing",
    "unavailable": "not tried",
}
RESULTS = pathlib.Path(__file__).parent / "results" / "laws_of_optax.md"


def page(tables: dict[str, Table]) -> str:
    """The outcomes as a table, and below it every reason."""
    packages = ", ".join(
        f"{p} {metadata.version(p)}" for p in ("optax", "jax", "jaxlib", "flax")
    )
    device = (
        f"{jax.devices()[0].device_kind}, {platform.machine()}, 8 devices of one host"
    )
    lines = [
        "# The laws of `gradkit.testing` on optax",
        "",
        f"`python benchmarks/laws_of_optax.py`: {packages}, Python {platform.python_version()}; {device}.",
        "",
        "What each law asks and what goes wrong without it: `help(gradkit.testing.LAWS[name])`. A formula of memory or flops is asked of",
        "gradkit's docstrings alone.",
        "",
        "| law | " + " | ".join(f"`{name}`" for name in tables) + " |",
        "|---" * (1 + len(tables)) + "|",
    ]
    for rows in zip(*tables.values()):
        cells = [MARKS[row.outcome] for row in rows]
        lines.append(f"| `{rows[0].law}` | " + " | ".join(cells) + " |")
    kept = [sum(row.outcome == "pass" for row in table) for table in tables.values()]
    lines.append("| kept | " + " | ".join(f"{n} of {len(LAWS)}" for n in kept) + " |")
    for name, table in tables.items():
        lines += ["", f"## `optax.{name}` breaks", ""]
        broken = [row for row in table if row.outcome == "fail"]
        lines += [f"- {row.reason.removeprefix('law ')}" for row in broken]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Check every transform, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    out = parser.parse_args().out
    tables = {}
    for name, factory in TRANSFORMS.items():
        tables[name] = check(factory)
        print(name, "keeps", sum(row.outcome == "pass" for row in tables[name]))
    out.write_text(page(tables))


if __name__ == "__main__":
    main()
