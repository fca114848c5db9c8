"""The folder of a sweep: a file for each finished point, so that none is lost."""

import json
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from gradkit._core.call import error
from gradkit._core.measure.sweep_table import SweepTable

SETTINGS = "sweep.json"


class Record:
    """What is kept of a sweep; without a folder nothing is."""

    def __init__(
        self, method: str, folder: str | os.PathLike[str] | None, table: SweepTable
    ):
        """Open the folder, and fill rows of `table` that are finished there."""
        self.done: set[int] = set()
        self._folder = None if folder is None else pathlib.Path(folder)
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._claim(method, self._folder / SETTINGS, _settings(table))
        except OSError as found:
            text = f"folder must be one to write to, got {folder}: {found.strerror}"
            raise error(OSError, method, f"{text}. Choose another.") from found
        for i in range(len(table.points)):
            path = self._path(i)
            if path.exists():
                self._read(method, path, i, table)

    def save(self, i: int, table: SweepTable) -> None:
        """Keep a row of `table` that is finished."""
        self.done.add(i)
        if self._folder is None:
            return
        path = self._path(i)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            np.savez(
                file,
                steps=table.steps[i],
                losses=table.losses[i],
                held_out=table.held_out[i],
            )
        draft.replace(path)

    def _path(self, i: int) -> pathlib.Path:
        assert self._folder is not None
        return self._folder / f"point_{i}.npz"

    def _claim(self, method: str, path: pathlib.Path, settings: dict[str, Any]) -> None:
        if not path.exists():
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(settings, indent=1))
            draft.replace(path)
            return
        try:
            old = json.loads(path.read_text())
        except ValueError:
            old = None
        changed = [
            k
            for k in settings
            if not isinstance(old, dict) or old.get(k) != settings[k]
        ]
        if changed:
            text = (
                f"folder must be of a sweep with the same {', '.join(changed)}, got {path.parent}. "
                "Choose another folder, or repeat that sweep."
            )
            raise error(ValueError, method, text)

    def _read(self, method: str, path: pathlib.Path, i: int, table: SweepTable) -> None:
        try:
            with path.open("rb") as file, np.load(file) as row:
                table.steps[i] = row["steps"]
                table.losses[i] = row["losses"]
                table.held_out[i] = row["held_out"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as found:
            text = f"{path} must be a finished point of this sweep, got a damaged file."
            raise error(
                ValueError, method, f"{text} Delete it to train that point again."
            ) from found
        self.done.add(i)


def _settings(table: SweepTable) -> dict[str, Any]:
    """What makes the numbers of a sweep, but for its functions, as JSON."""
    _, seeds, steps = table.losses.shape
    return {
        "space": {k: repr(x) for k, x in table.space.items()},
        "points": [{k: repr(x) for k, x in point.items()} for point in table.points],
        "seeds": seeds,
        "steps": steps,
    }
