r"""How far to step at another size: the rules of a family of papers, from one small algebra.

A weight that sums `i` inputs into each of `o` outputs is drawn with entries of size `init` and
used times `forward`. What it is used as should move by $i^{-\mathrm{alignment}}$ an entry:
`i` terms add up, of one sign (alignment 1) or of random signs (1/2). Its gradient is `forward`
times that of its outputs, $o^{-\mathrm{readout}}$, the size that the output matrix is used at.
A residual branch of $L$ layers, multiplied by $L^{-\mathrm{branch}}$, multiplies gradients by
as much, and may move $L$ times less. A number by which the model itself multiplies what the
weight makes is part of `forward`, and where the weight needs no other it is drawn as much
smaller. So

$$\mathrm{move} = i^{-\mathrm{alignment}} L^{\mathrm{branch} - 1} / \mathrm{forward}, \qquad
  \mathrm{gradient} = \mathrm{forward} \cdot o^{-\mathrm{readout}} L^{-\mathrm{branch}},$$

and the learning rate is `move` over the size of an entry of the optimizer's direction, which is
a power of the gradient's (`Optimizer`). Adam's `eps` is compared with the gradient, and
scales as it does.
"""

import math
from typing import NamedTuple

from gradkit._core.types import Scalar
from gradkit.parametrization.parameter import Parameter


class Optimizer(NamedTuple):
    """How large the entries of a direction are for a gradient of rank one: powers of what."""

    degree: Scalar  # of the gradient's entries
    inputs: Scalar = 0.0  # of 1 / fan-in
    outputs: Scalar = 0.0  # of 1 / fan-out
    relative: Scalar = 0.0  # of the parameter's own entries
    stretch: Scalar = 0.0  # of max(1, fan-out / fan-in)

    def size(self, gradient: Scalar, init: Scalar, i: float, o: float) -> Scalar:
        """The size of an entry of the direction."""
        fans = i**-self.inputs * o**-self.outputs * max(1, o / i) ** self.stretch
        return gradient**self.degree * init**self.relative * fans


def kronecker(input_exponent: Scalar, output_exponent: Scalar) -> Optimizer:
    """`B^-b G A^-a` with A and B the second moments of inputs and of output gradients."""
    return Optimizer(1 - 2 * output_exponent, input_exponent, output_exponent)


OPTIMIZERS = {
    "sgd": Optimizer(1),  # and momentum
    "adam": Optimizer(0),  # and all that divide an entry by the root of its own square
    "sign": Optimizer(0),
    "atan2": Optimizer(0),
    "adafactor": Optimizer(0, relative=1),  # steps relative to the parameter, as LAMB's
    "normalized": Optimizer(0, 0.5, 0.5),  # each leaf over its Euclidean norm
    "spectral": Optimizer(0, 0.5, 0.5),  # singular values of 1
    "muon": Optimizer(0, 0.5, 0.5, stretch=0.5),  # and its release's factor
    "dion": Optimizer(0, 1),  # and the root of fan-out / fan-in
    "shampoo": Optimizer(0, 0.5, 0.5),
    "soap": Optimizer(0, 0.5, 0.5),
    "kl_shampoo": Optimizer(0, 0.5, stretch=-0.5),  # 1 / root of the longer side
    "kfac": kronecker(1, 1),
    "inverse_free_kfac": Optimizer(-1, 1, stretch=-1),  # factors share one square
    "projected": Optimizer(0, 0, 0.5, stretch=0.5),  # Adam on few rows or columns
    "subset_norm": Optimizer(0, 0.25, 0.25),  # over norms of the root of all entries
}


class Multipliers(NamedTuple):
    """What one parameter's hyperparameters are multiplied by."""

    init: Scalar  # the size of initial entries
    forward: Scalar  # the weight, where it is used; of a tied leaf as the output matrix
    learning_rate: Scalar
    weight_decay: Scalar  # where it is multiplied by the parameter's own learning rate
    eps: Scalar  # what is added to the size of a gradient


class Layout(NamedTuple):
    """`forward = n**-a` and `init = n**-b` for input, hidden and output weights of width n."""

    a: tuple[float, float, float]
    b: tuple[float, float, float]

    @property
    def readout(self) -> float:
        """The output matrix is used with entries of `n**-readout`."""
        return self.a[2] + self.b[2]

    def exponents(self, parameter: Parameter) -> tuple[float, float]:
        """`a` and `b` of a parameter; 0 for biases, gains and what meets no width."""
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
    """The algebra at one size, for fan-in and fan-out `fans` and `depth` residual layers."""
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
    """The algebra at the target size over the same at the base size, in one `layout`.

    Without a `branch` exponent the depth does not matter.
    """
    a, b = layout.exponents(parameter)
    power, depth = (1.0, 1.0) if branch is None else (branch, parameter.depth)
    is_input, readout, both = parameter.kind == "input", layout.readout, []
    for shape, layers, factor in (
        (parameter.base, 1.0, parameter.base_factor),
        (parameter.shape, depth, parameter.factor),
    ):
        i, o = fans(parameter, shape)
        n = o if is_input else i
        forward = n**-a if a else factor  # in all
        init = n**-b if a else n**-b / factor
        found = derive(
            optimizer, (i, o), forward, init, readout, alignment, layers, power
        )
        if parameter.role == "tied":  # drawn as a table, used as the output matrix
            both.append(found._replace(forward=n**-readout / init))
        else:
            both.append(found._replace(forward=forward / factor))
    growth = Multipliers(*(new / old for old, new in zip(*both)))
    return growth._replace(forward=growth.forward / parameter.readout_factor)


def fans(parameter: Parameter, shape: tuple[int, ...]) -> tuple[float, float]:
    """Fan-in and fan-out at one size, at least 1; of a table, one row at a time is looked up."""
    i, o = (
        math.prod(shape[axis] for axis in axes)
        for axes in (parameter.inputs, parameter.outputs)
    )
    looked_up = parameter.role in ("embedding", "tied")
    return float(1 if looked_up else max(1, i)), float(max(1, o))
