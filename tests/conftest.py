"""Eight host devices, strict promotion, fast compiles: set before JAX starts."""

import importlib.metadata
import os
import pathlib
import sys

FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # gone in 0.11
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_traceback_in_locations_limit", 0)  # an eighth of the time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one method go to one worker, which compiles what they share once."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        method = params.get("name", params.get("entry"))
        if method is not None:
            item.add_marker(pytest.mark.xdist_group(getattr(method, "name", method)))
