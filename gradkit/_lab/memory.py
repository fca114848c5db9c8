"""Whether what was asked for fits into memory, before anything is computed."""

import math
import os
import pathlib

from gradkit._lab.complaint import Complaint

LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")  # of a container
RUN = 6 * 4  # bytes of a parameter that is trained: gradient, update, moments, float32


def here() -> float:
    """Bytes of memory that a process may have; infinite where nobody says."""
    known = [math.inf]
    if hasattr(os, "sysconf"):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if LIMIT.exists() and (said := LIMIT.read_text().strip()).isdecimal():
        known.append(int(said))
    return min(known)


def require(asked: str, size: int) -> None:
    """Refuse what takes more than there is."""
    if size > here():
        raise Complaint(
            f"{asked} would take at least {gigabytes(size)} of memory, here are "
            f"{gigabytes(here())}. Ask for less."
        )


def gigabytes(size: float) -> str:
    """As `2,980 GB`."""
    return f"{size / 1e9:,.0f} GB"
