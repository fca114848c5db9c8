"""Bytes of real text, split by file into training and held-out."""

import hashlib
import math
import pathlib
import sysconfig
from collections.abc import Iterator

import numpy as np

from gradkit._lab.complaint import Complaint

HELD_OUT = 0.1  # of the files, or of the one file's bytes
LIMIT = 2**30  # bytes; offsets into the text are int32
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


def standard_library() -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out bytes of the running Python's own source files."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    sources = [
        path
        for path in root.rglob("*.py")
        if not SKIPPED.intersection(path.relative_to(root).parts)
    ]
    return split(root, sources)


def given(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out bytes of one file, or of all files below a folder."""
    if not path.exists():
        raise Complaint(f"no data at {path}. Name a text file or a folder of them.")
    if path.is_dir():
        return split(path, list(_visible(path)))
    whole = join([path])
    cut = len(whole) - math.ceil(HELD_OUT * len(whole))
    return whole[:cut], whole[cut:]


def split(
    root: pathlib.Path, files: list[pathlib.Path]
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the files whose names have the smallest hashes, wherever `root` is."""

    def rank(path: pathlib.Path) -> str:
        return hashlib.sha256(path.relative_to(root).as_posix().encode()).hexdigest()

    ordered = sorted(files, key=rank)
    cut = math.ceil(HELD_OUT * len(ordered))
    return join(ordered[cut:]), join(ordered[:cut])


def join(files: list[pathlib.Path]) -> np.ndarray:
    """The bytes of all files, one after the other."""
    try:
        if sum(path.stat().st_size for path in files) > LIMIT:
            raise Complaint("more than 1 GiB of data. Name a smaller file or folder.")
        return np.frombuffer(b"".join(p.read_bytes() for p in files), np.uint8)
    except OSError as error:
        raise Complaint(f"cannot read {error.filename}: {error.strerror}.") from error


def _visible(root: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden:
            yield path
