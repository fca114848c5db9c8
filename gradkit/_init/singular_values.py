"""SVFit and SVFT: weights that are trained along their own singular vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import adapters, check
from gradkit._core.factory import factory
from gradkit._core.matrix import linalg
from gradkit._core.types import Params


class SingularValues(NamedTuple):
    """Matrices between their singular vectors: train `bands`, of the loss at `weights()`."""

    params: Params  # what is left of the parameters, to be frozen
    left: Params  # [..., in, rank] where factored, else optax.MaskedNode
    right: Params  # [..., rank, out]
    bands: Params  # [..., 2 * bandwidth + 1, rank], diagonals of the matrix between

    def weights(self) -> Params:
        """The parameters of the model, `params + left @ M @ right`, in the dtypes of `params`."""
        banded = jax.tree.map(_times, self.bands, self.right)
        return adapters.summed(self.params, adapters.products(self.left, banded, 1))


@factory
def init_by_singular_values(
    params: Params | jax.Array,
    *,
    rank: int | None = None,
    bandwidth: int = 0,
    matrices: str | None = None,
) -> SingularValues:
    r"""Write matrices as their singular vectors around a matrix of few entries, which is trained.

    $$W = U S V^T, \qquad W_0 = W - U_{1:r} S_{1:r} V_{1:r}^T, \qquad
      W(M) = W_0 + U_{1:r} M V_{1:r}^T, \qquad M = S_{1:r}$$

    and $M$ is trained on its diagonal and `bandwidth` diagonals at each side. The gradient by it is
    $U^T G V$ at these entries, for the gradient $G$ by $W$.

    Args:
        params: the parameters of the model.
        rank: $r$, how many singular values, the largest first; None is all of them.
        bandwidth: diagonals of $M$ at each side of its own: 0 for SVFit and for SVFT's plain
            form, more for its banded form.
        matrices: which leaves are factored: a regular expression, searched for in the path; axes
            before the last two number matrices. None is every leaf of two axes.

    It returns the rest of `params`, $U$ as `left` and $V^T$ as `right`, to be frozen, and the
    diagonals of $M$ as `bands`, to be trained: row `bandwidth + d` has $M_{i,i+d}$ at $i$, and
    zeros to begin with but for $d = 0$. Their `weights()` are the parameters of the model, at first
    as they were.

    Errors: matrices that are known and not finite.
    Paper: Sun and others, "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using
        Singular Values", arXiv:2409.05926; Lingam and others, "SVFT: Parameter-Efficient
        Fine-Tuning with Singular Vectors", arXiv:2405.19597.
    Departure: SVFT adds a matrix that is trained to the singular values, which are not; the same
        but for weight decay. Its code begins with random numbers, times a gate of one half that is
        trained too, and drops what is beyond `rank`; here the model begins as it was. Its random
        and top-k patterns are left out. Signs of the vectors are those of a fixed rule.
    Limits: the vectors take the memory of the matrix again if `rank` is its smaller side. A trained
        value may become negative. Values of equal size have no vectors of their own.

    >>> w = {"w": jnp.array([[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])}
    >>> made = gk.init_by_singular_values(w, rank=1)
    >>> print(made.bands["w"], made.params["w"][1], (made.weights()["w"] == w["w"]).all())
    [[2.]] [1. 0.] True
    """
    name = "init_by_singular_values"
    check.holds(
        name,
        isinstance(bandwidth, int) and bandwidth >= 0,
        "bandwidth must be a whole number of at least 0",
        bandwidth,
        "Choose one.",
    )
    if rank is not None:
        check.count(name, rank=rank)
    kernels = dict(check.leaves(params))
    left, right, bands = {}, {}, {}
    for path in adapters.chosen(name, params, matrices):
        smaller = min(kernels[path].shape[-2:])
        r = smaller if rank is None else rank
        want = f"rank must be at most the smaller side of leaf {path}, {smaller}"
        remedy = "Choose a smaller one, or leave the leaf out of matrices."
        check.holds(name, r <= smaller, want, rank, remedy)
        want = f"bandwidth must be below the rank of leaf {path}, {r}"
        check.holds(name, bandwidth < r, want, bandwidth, "Choose a smaller one.")
        w = adapters.wide(kernels[path])
        adapters.check_finite(name, f"leaf {path} of params", w, "Restore the model.")
        left[path], values, right[path] = _factors(w, r)
        around = [(0, 0)] * (values.ndim - 1) + [(bandwidth, bandwidth), (0, 0)]
        bands[path] = jnp.pad(values[..., None, :], around)
    u, v, m = (adapters.placed(params, t) for t in (left, right, bands))
    product = adapters.products(u, jax.tree.map(_times, m, v), 1)
    return SingularValues(adapters.summed(params, product, -1), u, v, m)


def _factors(w: jax.Array, rank: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first singular vectors and values; those at the left are `signed`."""
    u, s, vt = jnp.linalg.svd(w, full_matrices=False)
    u, s, vt = u[..., :rank], s[..., :rank], vt[..., :rank, :]
    fixed = linalg.signed(u)
    sign = jnp.where(jnp.sum(fixed * u, -2) < 0, -1, 1).astype(w.dtype)
    return fixed, s, sign[..., None] * vt


def _times(bands: jax.Array, x: jax.Array) -> jax.Array:
    """The matrix of these diagonals times `x`: entry `i` of diagonal `d` times row `i + d`."""
    width, rank = (bands.shape[-2] - 1) // 2, x.shape[-2]
    around = [(0, 0)] * (x.ndim - 2) + [(width, width), (0, 0)]
    padded = jnp.pad(x, around)
    shifted = [
        bands[..., j, :, None] * padded[..., j : j + rank, :]
        for j in range(2 * width + 1)
    ]
    return sum(shifted[1:], start=shifted[0])
