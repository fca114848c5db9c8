"""What every method is made of: types, checks, numbers, trees, paths, random numbers, meshes.

In: leaves and hyperparameters as users give them. Out: numbers that can be trusted, errors that
speak. Its rooms stand above it: `matrix`, `codec`, `jaxpr`, `routing`, `measure`. No method lives
here.
"""

from gradkit._core import versions

versions.check()

from gradkit._core.averages import eval_params  # noqa: E402
from gradkit._core.chain import chain  # noqa: E402
from gradkit._core.matrix import newton_schulz  # noqa: E402
from gradkit._core.routing.routes import routes  # noqa: E402

__all__ = ["chain", "eval_params", "newton_schulz", "routes"]
