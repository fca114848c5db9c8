"""The device that computations run on: its memory, cores, and what numbers depend on."""

import importlib.metadata
import math
import os
import pathlib
from typing import Any

import jax
import optax

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


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def numerics() -> dict[str, str]:
    """What the last bits of results depend on: versions, device, precision and flags."""
    config: Any = jax.config
    return {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "optax": optax.__version__,
        "gradkit": importlib.metadata.version("gradkit"),
        "device": jax.devices()[0].device_kind,
        "x64": str(config.jax_enable_x64),
        "matmul_precision": str(config.jax_default_matmul_precision),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
