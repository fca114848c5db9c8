"""Checks, before any computation, that a request fits into memory."""

import math
import os
import pathlib

from gradkit._lab.complaint import Complaint

LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")  # of a container
RUN = 6 * 4  # bytes for each trained parameter: gradient, update, moments, in float32


def here() -> float:
    """Bytes of memory available to a process, by machine and container; infinite if unknown."""
    limits = [math.inf]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if LIMIT.exists() and (limit := LIMIT.read_text().strip()).isdecimal():
        limits.append(int(limit))
    return min(limits)


def require(asked: str, size: int) -> None:
    """Raise a `Complaint` if `asked` takes more bytes than the process may have."""
    if size > here():
        raise Complaint(
            f"{asked} would take at least {gigabytes(size)} of memory, here are "
            f"{gigabytes(here())}. Ask for less."
        )


def gigabytes(size: float) -> str:
    """Format bytes as `2,980 GB`."""
    return f"{size / 1e9:,.0f} GB"
