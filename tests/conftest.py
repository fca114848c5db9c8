"""Eight host devices, strict promotion, fast compiles: set before JAX starts."""

import os
import pathlib
import sys

FLAGS = """
--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0
--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
"""
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS.split()])
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
