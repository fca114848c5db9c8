"""Parametrizations: roles and growth of parameters, and multipliers of their hyperparameters.

In: a model at two sizes, or with an example; out: a `Parametrization` for `transfer_by_mup` and its
kin, or a `ModelReading` for methods of matrices.
"""

from gradkit.parametrization.apply import rescale_init
from gradkit.parametrization.infer import infer_parametrization
from gradkit.parametrization.parameter import Parameter, Parametrization
from gradkit.parametrization.reading import LeafReading, ModelReading, read_model
from gradkit.parametrization.rules import RULES, multiplier_columns, multipliers
from gradkit.parametrization.scaling import OPTIMIZERS, Multipliers, Optimizer

__all__ = [
    "OPTIMIZERS",
    "RULES",
    "LeafReading",
    "ModelReading",
    "Multipliers",
    "Optimizer",
    "Parameter",
    "Parametrization",
    "infer_parametrization",
    "multiplier_columns",
    "multipliers",
    "read_model",
    "rescale_init",
]
