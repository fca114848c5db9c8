"""Muon's direction: the orthogonal factor of each gradient matrix."""

import functools
import math
from typing import Any

import jax

from gradkit._core import check, numbers
from gradkit._core.factory import factory
from gradkit._core.matrix import layout, newton_schulz, stacks
from gradkit._core.matrix.polar import polar_factor
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def normalize_by_polar(
    eps: Hyper = 1e-7,
    *,
    consistent_rms: Hyper | None = None,
    batch_axes: layout.Axes = (),
    coefficients: newton_schulz.Coefficients = newton_schulz.JORDAN,
    dtype: Any = None,
) -> Transform:
    r"""Orthogonalize each matrix, as Muon does: bring all of its singular values near 1.

    $$g = U S V^T, \qquad u = \sqrt{\max(1, \mathrm{cols} / \mathrm{rows})} \; U S' V^T,
      \qquad 0.68 < S' < 1.21$$

    by Newton-Schulz steps $X \leftarrow (aI + bR + cR^2) X$, $R = XX^T$, that start at $X = g /
    (\lVert g \rVert_F + \mathrm{eps})$.

    Args:
        eps: added to the Frobenius norm, in units of the gradient: much smaller matrices
            fade out.
        consistent_rms: where given, the root mean square of what comes out is about this, such as
            0.2 to be as large as AdamW's: $\mathrm{consistent\_rms} \sqrt{\max(\mathrm{rows},
            \mathrm{cols})}$ stands in place of the root above.
        batch_axes: see the glossary.
        coefficients: one `(a, b, c)` a step, such as `gradkit.newton_schulz.POLAR_EXPRESS`,
            which is nearer to orthogonal; those of Jordan's Muon take the band above.
        dtype: of the steps, such as `jnp.bfloat16` where that is fast; at least float32 if
            not given.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `30*size*min(rows, cols) + 48*size` a leaf, with five steps.
    Paper: Bernstein and Newhouse, "Old Optimizer, New Norm: An Anthology",
        arXiv:2409.20325, Proposition 4; iteration and coefficients from Jordan and others,
        "Muon: An optimizer for hidden layers in neural networks"; the steps on Gram matrices
        of long matrices from Dao-AILab, "Gram Newton-Schulz"; `consistent_rms` from Liu and
        others, "Muon is Scalable for LLM Training", arXiv:2502.16982.
    Departure: computed in at least float32; Muon's own code uses bfloat16, and scales a
        convolution by its kernel's height and width, not by the shape of its matrix. If a matrix
        has more than 1.5 columns a row, the steps act on its Gram matrix, which is equal up to
        rounding and is recomputed before rounding errors grow.
    Limits: matrices only, and not those whose rows are looked up: keep embeddings, readouts,
        gains and biases elsewhere. Noise of small batches comes out as large as signal.
        Singular values under 1/650 of the norm stay below 0.68. On a mesh in use
        (`jax.set_mesh`) each device iterates on a part of the matrices of one shape;
        explicitly sharded leaves are gathered first.

    >>> tx, g = gk.normalize_by_polar(), 1e-3 * jnp.diag(jnp.array([1.0, 2.0, 4.0]))
    >>> u, _ = tx.update(g, tx.init(g))
    >>> bool((jnp.abs(jnp.diag(u) - 1) < 0.32).all())
    True
    """
    check.triples("normalize_by_polar", coefficients=coefficients)
    check.nonnegative("normalize_by_polar", eps=eps)
    if consistent_rms is not None:
        check.positive("normalize_by_polar", consistent_rms=consistent_rms)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra
        check.matrix("normalize_by_polar", updates, batch_axes)
        polar = functools.partial(
            polar_factor, eps=eps, coefficients=coefficients, dtype=dtype
        )
        u = stacks.map_fat(polar, numbers.read(updates), batch_axes)

        def scaled(u: jax.Array) -> jax.Array:
            _, rows, cols = layout.shape(u, batch_axes)
            if consistent_rms is not None:
                return (consistent_rms * math.sqrt(max(rows, cols)) * u).astype(u.dtype)
            return math.sqrt(max(1, cols / max(1, rows))) * u

        return numbers.like(jax.tree.map(scaled, u), updates)

    return stateless(update)
