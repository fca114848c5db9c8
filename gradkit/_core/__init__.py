"""Code that methods share: types, checks, dtypes, trees, paths, random numbers, meshes.

In: leaves and hyperparameters as users give them. Out: checked values in at least float32, and
errors that name the argument. Its subpackages `matrix`, `codec`, `jaxpr`, `routing` and `measure`
import it. It holds no method.
"""

from gradkit._core import versions as versions  # first: it refuses old versions
from gradkit._core.averages import eval_params
from gradkit._core.chain import chain
from gradkit._core.matrix import newton_schulz
from gradkit._core.metrics import metrics
from gradkit._core.placement import state_sharding
from gradkit._core.restore.schema import state_schema
from gradkit._core.restore.state import restore_state
from gradkit._core.routing.routes import routes
from gradkit._core.schedules import plot_schedule, then, times
from gradkit._core.tuned import hyperparameters, set_hyperparameters

__all__ = [
    "chain",
    "eval_params",
    "hyperparameters",
    "metrics",
    "newton_schulz",
    "plot_schedule",
    "restore_state",
    "routes",
    "set_hyperparameters",
    "state_schema",
    "state_sharding",
    "then",
    "times",
]
