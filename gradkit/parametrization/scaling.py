r"""Multipliers of learning rate, init and eps: the rules of several papers, from one algebra.

A weight sums $i$ inputs into each of $o$ outputs. Its entries are drawn with size `init`, and the
model uses the weight times `forward`. Each entry of this product should move by
$i^{-\mathrm{alignment}}$ in one step, because $i$ terms add up: of one sign
(alignment 1) or of random signs (1/2). The gradient of an output is $o^{-\mathrm{readout}}$,
the size of the entries of the output matrix, and the gradient of the weight is `forward` times
that. Each of $L$ residual branches is multiplied by $L^{-\mathrm{branch}}$. So are its
gradients. A branch may change the output by $1 / L$, so its weights move
$L^{\mathrm{branch} - 1}$. A constant in the model that
multiplies the weight or its output is part of `forward`. A weight without another multiplier is
drawn smaller by that constant. So

$$\mathrm{move} = i^{-\mathrm{alignment}} L^{\mathrm{branch} - 1} / \mathrm{forward}, \qquad
  \mathrm{gradient} = \mathrm{forward} \cdot o^{-\mathrm{readout}} L^{-\mathrm{branch}},$$

and the learning rate is `move` over the size of an entry of the optimizer's direction, a power of
`gradient` (`Optimizer`). Adam's `eps` is added to the RMS of the gradient, and scales as
`gradient`.
"""

import math
from typing import NamedTuple

from gradkit._core.types import Scalar
from gradkit.parametrization.parameter import Parameter


class Optimizer(NamedTuple):
    """Size of the entries of a direction, for a gradient of rank one, as a product of powers."""

    degree: Scalar  # exponent of the gradient's entries: 1 for SGD, 0 for Adam
    inputs: Scalar = 0.0  # exponent of 1 / fan-in
    outputs: Scalar = 0.0  # exponent of 1 / fan-out
    relative: Scalar = 0.0  # exponent of the parameter's own entries
    stretch: Scalar = 0.0  # exponent of max(1, fan-out / fan-in)

    def size(self, gradient: Scalar, init: Scalar, i: float, o: float) -> Scalar:
        """The size of an entry of the direction."""
        fans = i**-self.inputs * o**-self.outputs * max(1, o / i) ** self.stretch
        return gradient**self.degree * init**self.relative * fans


def kronecker(input_exponent: Scalar, output_exponent: Scalar) -> Optimizer:
    """`B^-b G A^-a` with A and B the second moments of inputs and of output gradients."""
    return Optimizer(1 - 2 * output_exponent, input_exponent, output_exponent)


OPTIMIZERS = {
    "sgd": Optimizer(1),  # and momentum
    "adam": Optimizer(0),  # and all others that divide an entry by its own RMS
    "sign": Optimizer(0),
    "atan2": Optimizer(0),
    "adafactor": Optimizer(0, relative=1),  # steps relative to the parameter, as LAMB's
    "normalized": Optimizer(0, 0.5, 0.5),  # each leaf over its Euclidean norm
    "spectral": Optimizer(0, 0.5, 0.5),  # singular values of 1
    "muon": Optimizer(0, 0.5, 0.5, stretch=0.5),  # with the factor of the authors' code
    "dion": Optimizer(0, 1),  # with its factor sqrt(fan-out / fan-in)
    "shampoo": Optimizer(0, 0.5, 0.5),
    "soap": Optimizer(0, 0.5, 0.5),
    "kl_shampoo": Optimizer(0, 0.5, stretch=-0.5),  # 1 / root of the longer side
    "kfac": kronecker(1, 1),
    "inverse_free_kfac": Optimizer(-1, 1, stretch=-1),  # factors share one square
    "projected": Optimizer(0, 0, 0.5, stretch=0.5),  # Adam on few rows or columns
    "subset_norm": Optimizer(0, 0.25, 0.25),  # norms of subsets of sqrt(size) entries
}


class Multipliers(NamedTuple):
    """Multipliers of one parameter's hyperparameters."""

    init: Scalar  # of the size of initial entries
    forward: Scalar  # of the weight in the forward pass; for a tied leaf, as the output matrix
    learning_rate: Scalar
    weight_decay: Scalar  # where decay is times the parameter's own learning rate
    eps: Scalar  # of Adam's eps


class Layout(NamedTuple):
    """Exponents `a` and `b` of `forward = n**-a` and `init = n**-b`, for width n.

    Each has one entry for input, hidden and output weights.
    """

    a: tuple[float, float, float]
    b: tuple[float, float, float]

    @property
    def readout(self) -> float:
        """Exponent of the output matrix: init times forward is `n**-readout`."""
        return self.a[2] + self.b[2]

    def exponents(self, parameter: Parameter) -> tuple[float, float]:
        """`a` and `b` of a parameter; 0 for biases, gains and parameters without a width."""
        kind = parameter.kind
        if kind == "fixed" or parameter.role == "vector":
            return 0.0, 0.0
        column = ("input", "hidden", "output").index(kind)
        return self.a[column], self.b[column]


LAYOUTS = {
    "standard": Layout((0, 0, 0), (0, 1 / 2, 1 / 2)),
    "ntk": Layout((0, 1 / 2, 1 / 2), (0, 0, 0)),
    "mup": Layout((-1 / 2, 0, 1 / 2), (1 / 2, 1 / 2, 1 / 2)),
    "mean_field": Layout((0, 1 / 2, 1), (0, 0, 0)),
}
READOUT = Layout((0, 0, 1), (0, 1 / 2, 0))  # muP with one multiplier, on the output
PLAIN = Layout((0, 0, 0), (0, 1 / 2, 1))  # muP without multipliers


def derive(
    optimizer: Optimizer,
    fans: tuple[float, float],
    forward: Scalar = 1.0,
    init: Scalar = 1.0,
    readout: float = 1.0,
    alignment: Scalar = 1.0,
    depth: float = 1.0,
    branch: Scalar = 1.0,
) -> Multipliers:
    """Multipliers at one size, for `fans` (fan-in, fan-out) and `depth` residual layers."""
    i, o = fans
    move = i**-alignment * depth ** (branch - 1) / forward
    gradient = forward * o**-readout * depth**-branch
    size = optimizer.size(gradient, init, i, o)
    return Multipliers(init, forward, move / size, size / move, gradient)


def grown(
    layout: Layout,
    parameter: Parameter,
    optimizer: Optimizer,
    alignment: Scalar = 1.0,
    branch: Scalar | None = None,
) -> Multipliers:
    """Multipliers at the target size over those at the base size, in one `layout`.

    With `branch` None the depth is ignored.
    """
    a, b = layout.exponents(parameter)
    power, depth = (1.0, 1.0) if branch is None else (branch, parameter.depth)
    is_input, readout, at_sizes = parameter.kind == "input", layout.readout, []
    for shape, layers, factor in (
        (parameter.base, 1.0, parameter.base_factor),
        (parameter.shape, depth, parameter.factor),
    ):
        i, o = fans(parameter, shape)
        n = o if is_input else i
        forward = n**-a if a else factor  # the model's factor included
        init = n**-b if a else n**-b / factor
        multipliers = derive(
            optimizer, (i, o), forward, init, readout, alignment, layers, power
        )
        if parameter.role == "tied":  # drawn as a table, used as the output matrix
            at_sizes.append(multipliers._replace(forward=n**-readout / init))
        else:
            at_sizes.append(multipliers._replace(forward=forward / factor))
    growth = Multipliers(*(new / old for old, new in zip(*at_sizes)))
    return growth._replace(forward=growth.forward / parameter.readout_factor)


def fans(parameter: Parameter, shape: tuple[int, ...]) -> tuple[float, float]:
    """Fan-in and fan-out at one size, at least 1; fan-in is 1 for an embedding."""
    i, o = (
        math.prod(shape[axis] for axis in axes)
        for axes in (parameter.inputs, parameter.outputs)
    )
    looked_up = parameter.role in ("embedding", "tied")
    return float(1 if looked_up else max(1, i)), float(max(1, o))
