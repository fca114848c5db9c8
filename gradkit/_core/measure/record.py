"""The folder of a sweep: a file for each finished run, and one for each under way."""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.call import error
from gradkit._core.measure import host
from gradkit._core.measure.sweep_table import SweepTable, stable_repr

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

SETTINGS, LOCK = "sweep.json", "lock"
DAMAGED = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile
Run = tuple[int, int]  # indices of its point and of its seed


class Record:
    """What is kept of a sweep; without a folder nothing is."""

    def __init__(
        self,
        method: str,
        folder: str | os.PathLike[str] | None,
        table: SweepTable,
        about: Mapping[str, str] | None = None,
    ):
        """Nothing is read or written before `opened`."""
        self.done: set[Run] = set()
        self.method, self._table = method, table
        self._settings = {**(about or {}), **_settings(table)}
        self._folder = None if folder is None else pathlib.Path(folder)

    @contextlib.contextmanager
    def opened(self) -> Iterator["Record"]:
        """Hold the folder, and fill rows of the table with the runs that are finished there."""
        if self._folder is None:
            yield self
            return
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked(self._folder / LOCK):
            with self._writing():
                self._claim(self._folder / SETTINGS, self._settings)
            for i in range(len(self._table.points)):
                for j in range(len(self._table.seeds)):
                    if (path := self._path([(i, j)], "run")).exists():
                        self._read(path, i, j)
            yield self

    def save(self, run: Run, ended: bool = True) -> None:
        """Keep a run of `table`; one that has not `ended` is trained again by another sweep."""
        self.done.add(run)
        i, j = run
        if self._folder is None or not ended:
            return
        with self._writing():
            _write(
                self._path([run], "run"),
                point=stable_repr(self._table.points[i]),
                steps=self._table.steps[i],
                losses=self._table.losses[i, j],
                curve=self._table.curves[i, j],
            )

    def pause(self, runs: Sequence[Run], step: int, state: Any) -> None:
        """Keep the state of runs that are under way, to go on from this step."""
        if self._folder is None:
            return
        leaves = {f"leaf_{k}": _plain(x) for k, x in enumerate(jax.tree.leaves(state))}
        with self._writing():
            path = self._path(runs, "unfinished")
            _write(path, runs=np.array(runs), step=step, **leaves)

    def paused(self, runs: Sequence[Run], like: Any) -> tuple[int, Any]:
        """The step and the state of these runs; 0 and `like` if they were not paused together."""
        path = None if self._folder is None else self._path(runs, "unfinished")
        if path is None or not path.exists():
            return 0, like
        with self._reading(path), path.open("rb") as file, np.load(file) as kept:
            if kept["runs"].tolist() != [list(run) for run in runs]:
                return 0, like
            old, treedef = jax.tree.flatten(like)
            leaves = [_like(x, kept[f"leaf_{k}"]) for k, x in enumerate(old)]
            return int(kept["step"]), jax.tree.unflatten(treedef, leaves)

    def forget(self, runs: Sequence[Run]) -> None:
        """Delete what was kept of these runs under way: they are finished."""
        if self._folder is not None:
            self._path(runs, "unfinished").unlink(missing_ok=True)

    def kept(self, name: str, measure: Callable[[], list[float]]) -> list[float]:
        """Numbers that are measured once: those of the file of this name, else now."""
        path = self._folder and self._folder / f"{name}.npz"
        if path is not None and path.exists():
            with self._reading(path), path.open("rb") as file, np.load(file) as kept:
                return kept["numbers"].tolist()
        numbers = measure()
        if path is not None:
            with self._writing():
                _write(path, numbers=np.array(numbers))
        return numbers

    def _path(self, runs: Sequence[Run], kind: str) -> pathlib.Path:
        assert self._folder is not None
        i, j = runs[0]
        return self._folder / f"{kind}_{i}_{self._table.seeds[j]}.npz"

    @contextlib.contextmanager
    def _locked(self, path: pathlib.Path) -> Iterator[None]:
        """Hold the folder against other processes."""
        with self._writing():
            lock = path.open("w")
        with lock:
            try:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f"folder must be used by one process, got {path.parent}, which another uses"
                text = f"{text}. Wait for it, or choose another."
                raise error(RuntimeError, self.method, text) from None
            yield

    def _claim(self, path: pathlib.Path, settings: dict[str, Any]) -> None:
        if not path.exists():
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(settings, indent=1))
            draft.replace(path)
            return
        try:
            old = json.loads(path.read_text())
        except ValueError:
            old = None
        if not isinstance(old, dict):
            text = f"folder must hold a sweep or nothing, got {path}, which is damaged"
            raise error(ValueError, self.method, f"{text}. Choose another folder.")
        changed = [name for name in settings if old.get(name) != settings[name]]
        if changed:
            text = (
                f"folder must be of a sweep with the same {', '.join(changed)}, got {path.parent}"
                f"{_changes(old, settings)}. Choose another folder, or repeat that sweep."
            )
            raise error(ValueError, self.method, text)

    def _read(self, path: pathlib.Path, i: int, j: int) -> None:
        table = self._table
        with self._reading(path), path.open("rb") as file, np.load(file) as kept:
            if str(kept["point"]) != stable_repr(table.points[i]):
                raise ValueError("of another point")
            table.steps[i] = kept["steps"]
            table.losses[i, j] = kept["losses"]
            table.curves[i, j] = kept["curve"]
        self.done.add((i, j))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as found:
            text = f"folder must be one to write to, got {self._folder}: {found.strerror or found}"
            raise error(
                OSError,
                self.method,
                f"{text}. Mend that, or choose another; finished runs are kept.",
            ) from found

    @contextlib.contextmanager
    def _reading(self, path: pathlib.Path) -> Iterator[None]:
        try:
            yield
        except DAMAGED as found:
            text = f"{path} must be of this sweep, got a damaged file"
            raise error(
                ValueError, self.method, f"{text}. Delete it to make it again."
            ) from found


def _write(path: pathlib.Path, **arrays: Any) -> None:
    """Write arrays whole or not at all, by a rename."""
    draft = path.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _settings(table: SweepTable) -> dict[str, Any]:
    """What makes the numbers of a sweep, but for its functions, as JSON."""
    return {
        "space": {k: stable_repr(x) for k, x in table.space.items()},
        "points": [
            {k: stable_repr(x) for k, x in point.items()} for point in table.points
        ],
        "seeds": list(table.seeds),
        "steps": table.losses.shape[2],
        "marks": list(table.marks),
        "numerics": host.numerics(),
    }


def _changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs of the held-out loss, versions, device and flags, with both values."""
    was, now = (
        {"held_out": x.get("held_out"), **(x.get("numerics") or {})} for x in (old, new)
    )
    changed = [
        f"{k} was {was.get(k)}, now {now[k]}" for k in now if was.get(k) != now[k]
    ]
    return f" ({'; '.join(changed)})" if changed else ""


def _plain(x: Any) -> np.ndarray:
    """An array that a file can hold: keys as their numbers, bfloat16 and its kin as bits."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(x))
    array = np.asarray(x)
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array


def _like(x: Any, kept: np.ndarray) -> Any:
    """What `_plain` made of an array like `x`; a `ValueError` if it is of another."""
    plain = _plain(x)
    if (plain.shape, plain.dtype) != (kept.shape, kept.dtype):
        raise ValueError("of another state")
    if isinstance(x, np.ndarray):
        return kept
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        kept = jax.random.wrap_key_data(jnp.asarray(kept), impl=jax.random.key_impl(x))
    elif plain.dtype != x.dtype:
        kept = kept.view(x.dtype)
    return jax.device_put(kept, x.sharding)
