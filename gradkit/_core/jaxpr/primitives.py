"""What primitives do to entries: which move them, which keep each by itself, which add them up."""

import math
from collections.abc import Callable

PRODUCTS = {"dot_general", "ragged_dot_general", "conv_general_dilated"}
MOVES = {  # entries stay as they are
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
}  # whose program sees parts of its operands
JOINS = {"concatenate", "stack", "complex"}  # parts of a whole, side by side
LINEAR = (
    MOVES
    | SUMS
    | {  # what was multiplied still is
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
    | {  # of several operands; any other may be a product
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
# of what all entries of a result are
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
