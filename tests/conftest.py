"""Eight host devices, strict promotion, fast compiles: set before JAX starts.

`GRADKIT_XLA=default` has XLA optimize as it does for everyone else, which compiles longer.
"""

import functools
import gc
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import programs
import xla

FLAGS = ["--xla_force_host_platform_device_count=8"]
if os.environ.get("GRADKIT_XLA") != "default":
    FLAGS += xla.FAST
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

import jax
import jax.experimental
import jax.monitoring
import pytest
from jax._src.interpreters import mlir

if not hasattr(jax, "enable_x64"):  # before 0.8
    from jax._src.monitoring import _unregister_event_duration_listener_by_callback

    jax.enable_x64 = jax.experimental.enable_x64
    jax.monitoring.unregister_event_duration_listener = (
        _unregister_event_duration_listener_by_callback
    )
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_traceback_in_locations_limit", 0)  # an eighth of the time

# What this process has compiled is looked up by its text: much is compiled again otherwise, for
# another mesh, for `jax.disable_jit`, or after `jax.clear_caches`.
PROGRAMS = programs.borrowed()
jax.config.update("jax_compilation_cache_dir", PROGRAMS.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update(
    "jax_persistent_cache_enable_xla_caches", "none"
)  # keys would name the folder
# All programs are written down in one context: one for each takes 3 ms, and slows all later ones.
mlir.make_ir_context = functools.cache(mlir.make_ir_context)

KEPT = 2000  # programs, until JAX forgets them and their memory
compiled: list[float] = []  # the seconds of each


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of what an optimizing compiler can break."""
    config.addinivalue_line(
        "markers", "optimized: run by make test with GRADKIT_XLA=default alone"
    )


def pytest_sessionfinish() -> None:
    """Keep what was compiled for the next run."""
    programs.keep(PROGRAMS.name)


def note(event: str, seconds: float, **_: object) -> None:
    """Note a program that JAX compiles, and keeps."""
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(seconds)


jax.monitoring.register_event_duration_secs_listener(note)


def method(item: pytest.Item) -> str | None:
    """The name of what a test is of, where it says so."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    found = params.get("name", params.get("entry"))
    return getattr(found, "name", found)


@pytest.hookimpl(wrapper=True)  # around pytest-xdist, which reads the marks
def pytest_collection_modifyitems(items: list[Any]) -> Iterator[None]:
    """Tests of one method go to one worker, which compiles what they share once."""
    for item in items:
        of = method(item)
        if of is not None and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(of))
    yield
    for item in items:
        # pytest 9.2 reads ids elsewhere than pytest-xdist 3.8 writes them
        if hasattr(item, "_id") and hasattr(item, "_nodeid"):
            item._id = item._id.parse(item._nodeid)
    gc.freeze()  # what is imported and collected stays


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Programs are forgotten between two methods."""
    same = nextitem and method(item) is not None and method(item) == method(nextitem)
    if len(compiled) > KEPT and not same:
        jax.clear_caches()
        mlir.make_ir_context.cache_clear()
        compiled.clear()
