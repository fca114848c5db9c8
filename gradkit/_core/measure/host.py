"""Memory of the device that computations run on."""

import math
import os
import pathlib

import jax

LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")  # of a container


def available() -> float:
    """Bytes that a process may use on the first local device; infinite if unknown."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    limits = [math.inf]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if LIMIT.exists() and (limit := LIMIT.read_text().strip()).isdecimal():
        limits.append(int(limit))
    return float(min(limits)) / jax.local_device_count()
