"""NorMuon's second moment: one number for each neuron, a column of its kernel."""

import math
from typing import NamedTuple

import jax

from gradkit._core import check, norms, numbers, paths, tree
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class NeuronNormState(NamedTuple):
    """State of `scale_by_neuron_norm`."""

    root: Updates  # root of the EMA of the mean square, [..., 1, neurons] of every leaf


@factory
def scale_by_neuron_norm(
    decay: Hyper = 0.95, *, eps: Hyper = 1e-10, batch_axes: layout.Axes = ()
) -> Transform:
    r"""Divide each neuron's part by its RMS over time, and keep each matrix's norm.

    $$v_j = \mathrm{decay} \, v_j + (1 - \mathrm{decay}) \,
      \mathrm{mean}_i \, g_{ij}^2, \qquad
      \hat g_{ij} = \frac{g_{ij}}{\sqrt{v_j} + \epsilon}, \qquad
      u = \frac{\lVert g \rVert_F}{\lVert \hat g \rVert_F} \, \hat g$$

    A neuron $j$ is an entry of the last axis, as in a kernel `[..., in, out]`.

    Args:
        decay: of the EMA of a neuron's mean square.
        eps: added to its root, in units of what comes in: after a polar factor about 0.01
            to 1.
        batch_axes: see the glossary.

    State: `4*cols` bytes a leaf, `0` once.
    Flops: at most `24*size + 64*cols` a leaf.
    Paper: Li, Liu, Liang, Chen and Zhao, "NorMuon: Making Muon more efficient and scalable",
        arXiv:2510.05491, Algorithm 1, lines 6 to 9.
    Departure: the norm is kept, as in the authors' code; the paper sets it to
        $0.2 \sqrt{\mathrm{size}}$, as a transform after this one can. Neurons of a convolution
        are its output channels; in the authors' code they are the columns of its filters. The
        state keeps the root of `v`.
    Limits: for matrices, after `normalize_by_polar`. A neuron without a gradient so far gets
        no update.

    >>> tx, g = gk.scale_by_neuron_norm(), jnp.array([[3.0, 1e-3], [3.0, -1e-3]])
    >>> u, _ = tx.update(g, tx.init(g))  # both neurons as large, the matrix as before
    >>> print(u.round(2), (jnp.linalg.norm(u) / jnp.linalg.norm(g)).round(2))
    [[ 2.12  2.12]
     [ 2.12 -2.12]] 1.0
    """
    check.interval("scale_by_neuron_norm", "[0, 1)", decay=decay)
    check.nonnegative("scale_by_neuron_norm", eps=eps)

    def inside(x: jax.Array) -> tuple[int, ...]:
        """The axes of one matrix: those of inputs, then that of neurons."""
        fixed = {axis % x.ndim for axis in batch_axes}
        return tuple(axis for axis in range(x.ndim) if axis not in fixed)

    def mean_size(x: jax.Array) -> jax.Array:
        """The root mean square of every neuron."""
        inputs = inside(x)[:-1]
        count = math.prod(x.shape[axis] for axis in inputs)
        return norms.along(x, inputs) / max(1, count) ** 0.5

    def init(params: Params) -> NeuronNormState:
        check.matrix("scale_by_neuron_norm", params, batch_axes)
        return NeuronNormState(
            jax.tree.map(mean_size, paths.unboxed(tree.zeros(params)))
        )

    def update(
        updates: Updates, state: NeuronNormState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, NeuronNormState]:
        del params, extra
        gs = numbers.read(updates)
        sizes = jax.tree.map(mean_size, paths.unboxed(gs))
        root = tree.ema_rms(decay, state.root, sizes)

        def even(g: jax.Array, root: jax.Array) -> jax.Array:
            u = tree.ratio(g.astype(root.dtype), root + eps)
            norm = norms.along(u, inside(u))
            return u * tree.ratio(norms.along(g.astype(u.dtype), inside(u)), norm)

        u = paths.map_unboxed(even, gs, root)
        return numbers.like(u, updates), NeuronNormState(root)

    return transform(init, update)
