"""Checks, before any computation, that results can be written."""

import pathlib
import tempfile

from gradkit._lab.complaint import Complaint


def linked(out: pathlib.Path) -> None:
    """Refuse a broken link, for which the system says only "File exists"."""
    for path in (out, *out.parents):
        if path.is_symlink() and not path.exists():
            raise Complaint(
                f"{path} is a link to {path.readlink()}, which is not there. "
                "Choose another --out."
            )


def encodable(out: pathlib.Path) -> None:
    """Refuse a name that checkpoints cannot be written under."""
    try:
        str(out.absolute()).encode()
    except UnicodeEncodeError as error:
        raise Complaint(
            f"{out} is no UTF-8, which checkpoints need. Choose another --out."
        ) from error


def picture(out: pathlib.Path, mark: bytes) -> None:
    """Refuse a path that cannot be written, or that holds a file without `mark` at its start."""
    try:
        linked(out)
        if out.exists() and not (out.is_file() and mark in _head(out)):
            raise Complaint(
                f"{out} is there and is no picture of gradkit coords. "
                "Choose another --out."
            )
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise Complaint(
            f"cannot write to {out}: {error.strerror}. Choose another --out."
        ) from error


def _head(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(200)
