"""How XLA compiles: fast in most tests, as it does for everyone else where that may matter.

Standard library only: conftest.py reads it before JAX starts.
"""

import importlib.metadata

_OPTIONS = {  # what differs, when fast, and for everyone else
    "xla_backend_optimization_level": (0, 3),
    "xla_cpu_parallel_codegen_split_count": (1, 32),
    "xla_cpu_use_fusion_emitters": (False, True),
}
if not importlib.metadata.version("jaxlib").startswith("0.10."):  # gone in 0.11
    del _OPTIONS["xla_cpu_use_fusion_emitters"]

FAST = [f"--{name}={value}".lower() for name, (value, _) in _OPTIONS.items()]
OPTIMIZED = {name: value for name, (_, value) in _OPTIONS.items()}  # compiler_options
