"""Files of a race, written whole or not at all, and the folder that is its own."""

import json
import os
import pathlib
from typing import Any

from gradkit._lab import places
from gradkit._lab.complaint import Complaint

FILES = "settings.json", "results.json", "table.md", "curves.png"
DRAFT = ".draft"  # a file being written; a killed race may leave one


def write(path: pathlib.Path, content: bytes | str) -> None:
    """Write a file atomically, by a rename."""
    data = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}{DRAFT}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write `value` as JSON; non-finite numbers must be None already."""
    write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def claim(out: pathlib.Path, settings: dict[str, Any], resume: bool) -> None:
    """Make `out` the folder of the race with these settings, or raise a `Complaint`."""
    record = out / "settings.json"
    try:
        places.linked(out)
        places.encodable(out)
        occupied = out.exists() and any(path.suffix != DRAFT for path in out.iterdir())
        for path in (out / name for name in FILES):
            if path.is_dir():
                raise Complaint(
                    f"{path} is a folder, where a race writes a file. "
                    "Choose another --out."
                )
        if record.exists():
            _compare(out, _settings(record), settings, resume)
        elif occupied:
            raise Complaint(
                f"{out} is not empty and holds no race. Choose another --out."
            )
        out.mkdir(parents=True, exist_ok=True)
        if not record.exists():
            write_json(record, settings)
        elif not os.access(out, os.W_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise Complaint(
            f"cannot write to {out}: {error.strerror}. Choose another --out."
        ) from error


def _settings(record: pathlib.Path) -> dict[str, Any]:
    """The settings recorded in `settings.json`."""
    try:
        settings = json.loads(record.read_bytes())
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or "task" not in settings:
        raise Complaint(f"{record} was not written by a race. Choose another --out.")
    return settings


def _compare(out: pathlib.Path, old: Any, new: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise Complaint(
            f"{out} holds a race. Add --resume to go on, or choose another --out."
        )
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        was = "; ".join(f"{n} was {old.get(n)}, now {new[n]}" for n in changed)
        raise Complaint(
            f"{out} holds a race with other settings: {was}. "
            "Repeat the old ones, or choose another --out."
        )
