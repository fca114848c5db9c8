"""Steepest descent, each leaf under the norm that suits its role."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import numbers, paths
from gradkit._core.factory import factory
from gradkit._core.matrix import layout, stacks
from gradkit._core.matrix.polar import polar_factor
from gradkit._core.norms import along
from gradkit._core.types import Extra, Params, Transform, Updates, stateless

ROLES = ("sign", "column", "spectral")
Roles = Callable[[str, Any], str]  # the path and the array of a leaf -> its role


def role_of(path: str, leaf: Any) -> str:
    """The default role: "column" for embeddings, "spectral" for other matrices, else "sign"."""
    if leaf.ndim < 2:
        return "sign"
    return "column" if "embed" in path.lower() else "spectral"


@factory
def normalize_by_dual_norm(roles: Roles | None = None) -> Transform:
    r"""Replace each gradient by the steepest direction under the norm of its leaf's role.

    $$u = \arg\max_{\lVert t \rVert = 1} \langle g, t \rangle = \begin{cases}
      \mathrm{sign}(g) & \text{sign: the largest entry} \\
      \sqrt{\mathrm{out}} \; g_j / \lVert g_j \rVert & \text{column: } \ell_1 \to
      \mathrm{RMS}, \text{ each } j \\
      \sqrt{\mathrm{out} / \mathrm{in}} \; U V^T & \text{spectral: } \mathrm{RMS} \to
      \mathrm{RMS}, \; g = U S V^T \end{cases}$$

    A kernel is `[..., in, out]` and an embedding `[tokens, features]`: what the paper calls
    a column, the image `j` of one input, is here a row, all of the last axis.

    Args:
        roles: names the role, "sign", "column" or "spectral", of the leaf at a path such as
            `encoder/dense/kernel`. By default leaves of two axes or more are spectral, those
            with `embed` in their path column, and the others sign.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `32*size*min(rows, cols) + 32*size` a leaf.
    Paper: Bernstein and Newhouse, "Old Optimizer, New Norm: An Anthology",
        arXiv:2409.20325, with the norms it proposes for linear and embedding layers.
    Departure: the learning rate sets the length of the step; in the paper it is the dual norm of
        the gradient. $U V^T$ is five Newton-Schulz steps: singular values from 0.7 to 1.2.
    Limits: without momentum, noise comes out as large as signal. A stack of layers is one
        matrix here: use `jax.vmap`. Zero rows and matrices stay zero.

    >>> tx = gk.normalize_by_dual_norm()
    >>> g = {"embedding": jnp.array([[3.0, 4.0], [0.0, 1e-9]])}  # mean square of each row
    >>> jnp.square(tx.update(g, ())[0]["embedding"]).mean(axis=1).round(3).tolist()
    [1.0, 1.0]
    """

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra
        named = paths.map_with_path(
            functools.partial(role_among, roles or role_of), updates
        )
        g, structure = jax.tree.flatten(numbers.read(updates))
        labels = jax.tree.leaves(named)
        matrices = [x if r == "spectral" else None for r, x in zip(labels, g)]
        polars = stacks.map_fat(functools.partial(polar_factor, eps=0.0), matrices)
        u = [dual(*each) for each in zip(labels, g, polars)]
        return numbers.like(structure.unflatten(u), updates)

    return stateless(update)


def role_among(roles: Roles, path: str, leaf: Any) -> str:
    """The role of one leaf; an unknown one raises an error."""
    role = roles(path, leaf)
    if role not in ROLES or (role != "sign" and leaf.ndim < 1):
        raise ValueError(
            f"gradkit.normalize_by_dual_norm: the role of {path} must be one of {ROLES}, "
            f"got {role!r} for shape {leaf.shape}. Scalars can only be 'sign'."
        )
    return role


def dual(role: str, g: jax.Array, polar: jax.Array) -> jax.Array:
    """The direction of unit norm with the largest inner product with `g`."""
    if role == "sign":
        return jnp.sign(g)
    if role == "column":
        norms = along(g, -1)
        return math.sqrt(g.shape[-1]) * (g / jnp.where(norms > 0, norms, 1))
    _, rows, cols = layout.shape(g)
    return math.sqrt(cols / max(1, rows)) * polar
