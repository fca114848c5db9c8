"""What every method is made of: types, checks, numbers, trees, paths, random numbers, meshes.

In: leaves and hyperparameters as users give them. Out: numbers that can be trusted, errors that
speak. Its rooms stand above it: `matrix`, `codec`, `jaxpr`, `routing`, `measure`. No method lives
here.
"""

from gradkit._core import versions as versions  # first: it refuses what is too old
from gradkit._core.averages import eval_params
from gradkit._core.chain import chain
from gradkit._core.matrix import newton_schulz
from gradkit._core.routing.routes import routes

__all__ = ["chain", "eval_params", "newton_schulz", "routes"]
