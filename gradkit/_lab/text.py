"""Bytes of real text, split by file into three parts: training, validation and test.

Of three files or more, a twentieth each, whose names have the smallest hashes, are for test and for
validation. Of two files, the larger is for training and the halves of the other are held out. One
file is cut: its last tenth is held out. Files without bytes do not count.
"""

import hashlib
import math
import os
import pathlib
import stat
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gradkit._lab.complaint import Complaint, printable

HELD_OUT = 0.05  # of the files, or of the one file's bytes, for each of the two parts
LIMIT = 2**30  # bytes; offsets into the text are int32
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


class Parts(NamedTuple):
    """Bytes of disjoint parts of a text."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def standard_library() -> Parts:
    """The running Python's own source files."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    sources = [
        path
        for path in root.rglob("*.py")
        if not SKIPPED.intersection(path.relative_to(root).parts)
    ]
    return split(root, sources)


def given(path: pathlib.Path, without: pathlib.Path | None = None) -> Parts:
    """One file, or all files below a folder.

    Files in `without`, the folder of results, are left out.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:
        raise Complaint(f"cannot read {path}: {error.strerror}.") from error
    if without is not None and _inside(path, without):
        raise Complaint(
            f"{path} is where results go, in {without}. Choose another --out."
        )
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        problem = f"{path} is no regular file" if mode else f"no data at {path}"
        raise Complaint(f"{problem}. Name a text file or a folder of them.")
    folder = stat.S_ISDIR(mode)
    return split(path, list(_visible(path, without)) if folder else [path])


def split(root: pathlib.Path, files: list[pathlib.Path]) -> Parts:
    """Three parts that depend on names below `root` and contents alone."""

    def rank(path: pathlib.Path) -> str:
        name = path.relative_to(root).as_posix()
        return hashlib.sha256(os.fsencode(name)).hexdigest()

    ordered = sorted((path for path in files if _size(path)), key=rank)
    if len(ordered) > 2:
        n = math.ceil(HELD_OUT * len(ordered))
        return Parts(
            join(ordered[2 * n :]), join(ordered[n : 2 * n]), join(ordered[:n])
        )
    if len(ordered) == 2:
        held_out, train = (join([path]) for path in sorted(ordered, key=_size))
        half = len(held_out) // 2
        return Parts(train, held_out[:half], held_out[half:])
    data = join(ordered)
    n = math.ceil(HELD_OUT * len(data))
    cuts = len(data) - 2 * n, len(data) - n
    return Parts(*np.split(data, cuts))


def join(files: list[pathlib.Path]) -> np.ndarray:
    """The bytes of all files, concatenated."""
    parts, room = [], LIMIT
    for path in files:
        try:
            with path.open("rb") as file:
                parts.append(file.read(min(room, path.stat().st_size) + 1))
        except OSError as error:
            raise Complaint(f"cannot read {path}: {error.strerror}.") from error
        room -= len(parts[-1])
        if room < 0:
            raise Complaint("more than 1 GiB of data. Name a smaller file or folder.")
    return np.frombuffer(b"".join(parts), np.uint8)


def name(path: pathlib.Path) -> str:
    """The name of a file or folder, also of `.`."""
    return printable(path.name or pathlib.Path(os.path.realpath(path)).name or "/")


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise Complaint(f"cannot read {path}: {error.strerror}.") from error


def _visible(
    root: pathlib.Path, without: pathlib.Path | None
) -> Iterator[pathlib.Path]:
    def refuse(error: OSError) -> None:
        raise Complaint(f"cannot read {error.filename}: {error.strerror}.")

    for folder, below, files in os.walk(root, onerror=refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        for path in (pathlib.Path(folder, name) for name in files):
            results = without is not None and _inside(path, without)
            if path.is_file() and not path.name.startswith(".") and not results:
                yield path


def _inside(path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether `path` is `folder` or in it, after links are followed."""
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
