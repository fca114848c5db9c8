"""Primitives by what they do to entries: products, rearrangements, sums, entrywise maps."""

import math
from collections.abc import Callable

PRODUCTS = {"dot_general", "ragged_dot_general", "conv_general_dilated"}
MOVES = {  # entries keep their values
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "device_put",
    "expand_dims",
    "name",
    "optimization_barrier",
    "reduce_precision",
    "reshape",
    "sharding_constraint",
    "squeeze",
    "stop_gradient",
    "transpose",
}
SUMS = {"add", "add_any", "sub"}
SCALES = {"mul", "div"}
PARTED = {
    "custom_partitioning",
    "shard_map",
}  # their program sees one shard of each operand
JOINS = {"concatenate", "stack", "complex"}  # put arrays side by side
LINEAR = (
    MOVES
    | SUMS
    | {  # a factor of the operand is a factor of the result
        "concatenate",
        "cumsum",
        "neg",
        "pad",
        "reduce_sum",
        "rev",
        "select_n",
        "slice",
        "split",
        "stack",
        "tile",
        "unstack",
    }
)
ENTRYWISE = (
    MOVES
    | SUMS
    | {  # known to combine operands entry by entry; others may be products
        "atan2",
        "clamp",
        "complex",
        "concatenate",
        "div",
        "dynamic_update_slice",
        "eq",
        "gather",
        "ge",
        "gt",
        "le",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "nextafter",
        "pad",
        "pow",
        "rem",
        "scatter",
        "scatter-add",
        "scatter-max",
        "scatter-min",
        "scatter-mul",
        "scatter-sub",
        "select_n",
        "stack",
    }
)
# Constant propagation: the number that all entries of the result equal.
NUMBERS: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "sqrt": lambda a: a**0.5,
    "rsqrt": lambda a: a**-0.5,
    "cbrt": lambda a: a ** (1 / 3),
    "square": lambda a: a * a,
    "log": math.log,
    "exp": math.exp,
    **dict.fromkeys(MOVES, lambda a: a),
}
