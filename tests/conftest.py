"""Eight host devices, strict promotion, fast compiles: set before JAX starts.

`GRADKIT_XLA=default` has XLA optimize as it does for everyone else, which compiles longer.
"""

import gc
import importlib.metadata
import os
import pathlib
import sys

FLAGS = ["--xla_force_host_platform_device_count=8"]
if os.environ.get("GRADKIT_XLA") != "default":
    FLAGS.append("--xla_backend_optimization_level=0")
    FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # gone in 0.11
        FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import jax
import jax.experimental
import jax.monitoring
import pytest

if not hasattr(jax, "enable_x64"):  # before 0.8
    from jax._src.monitoring import _unregister_event_duration_listener_by_callback

    jax.enable_x64 = jax.experimental.enable_x64
    jax.monitoring.unregister_event_duration_listener = (
        _unregister_event_duration_listener_by_callback
    )
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_traceback_in_locations_limit", 0)  # an eighth of the time


KEPT = 600  # programs, until JAX forgets them: beside thousands a new one takes 3 times as long
compiled: list[float] = []  # the seconds of each


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of what an optimizing compiler can break."""
    config.addinivalue_line(
        "markers", "optimized: run by make test with GRADKIT_XLA=default alone"
    )


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one method go to one worker, which compiles what they share once."""
    for item in items:
        if method(item) is not None:
            item.add_marker(pytest.mark.xdist_group(method(item)))
    gc.freeze()  # what is imported and collected stays


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Programs are forgotten between two methods."""
    same = nextitem and method(item) is not None and method(item) == method(nextitem)
    if len(compiled) > KEPT and not same:
        jax.clear_caches()
        compiled.clear()
