"""LoRA-GA: adapters whose first step is that of full fine-tuning."""

import jax
import jax.numpy as jnp

from gradkit._core import adapters, check, numbers
from gradkit._core.adapters import Adapters
from gradkit._core.factory import factory
from gradkit._core.matrix import linalg
from gradkit._core.mismatch import mismatch
from gradkit._core.types import Params, Scalar, Updates


@factory
def init_by_lora_ga(
    params: Params | jax.Array,
    *,
    gradients: Updates | jax.Array,
    rank: int = 8,
    alpha: Scalar = 16.0,
    gamma: Scalar = 16.0,
    matrices: str | None = None,
) -> Adapters:
    r"""Take the factors of low-rank adapters from the singular vectors of the first gradient.

    $$G = U S V^T, \qquad a = \frac{\mathrm{out}^{1/4}}{\sqrt{\mathrm{gamma}}} U_{1:r}, \qquad
      b = \frac{\mathrm{out}^{1/4}}{\sqrt{\mathrm{gamma}}} V_{r+1:2r}^T$$
    $$W_0 = W - \frac{\mathrm{alpha}}{\sqrt r} \, a\, b, \qquad r = \mathrm{rank}$$

    The adapted model is $x\,(W_0 + a\, b \, \mathrm{alpha} / \sqrt r)$, at first the model as it
    was. A step of gradient descent on $a$ and $b$ moves it by a multiple of $a a^T G + G b^T b$,
    which is the best approximation of $G$ of rank $2r$.

    Args:
        params: the parameters of the model; a kernel is `[..., in, out]`.
        gradients: of the loss by these parameters, on one batch of 8 to 64 examples; a tree like
            them.
        rank: of each adapter, at most half of the smaller side of its matrix.
        alpha: of the adapters' scale.
        gamma: makes the factors smaller, so that the output does not depend on their size: 16 for
            language models.
        matrices: which leaves are adapted: a regular expression, searched for in the path; axes
            before the last two number matrices. None is every leaf of two axes.

    It returns `params` less the first product, to be frozen, the factors `a` and `b`, to be
    trained, and `scale`. Their `weights()` are the parameters of the adapted model.

    Errors: gradients that are known and not finite. In `jax.jit` what is not finite counts as 0.
    Paper: Wang, Yu and Li, "LoRA-GA: Low-Rank Adaptation with Gradient Approximation",
        arXiv:2407.05000, Algorithm 1.
    Departure: the decomposition is exact, where the authors' is a randomized one of rank 4r. Signs
        are those of a fixed rule. Their code can also bound the product by the largest
        weight, and choose other vectors.
    Limits: a gradient of rank below 2 * `rank`, as of few examples or of a leaf that the loss does not
        depend on, leaves the other directions arbitrary. Parameters of fewer than 32 bits are rounded
        once the product is taken off them, and the model changes by as much. A decomposition takes
        the time of about ten products of the matrix.

    >>> g = jnp.diag(jnp.array([4.0, 3.0, 2.0, 1.0]))
    >>> made = gk.init_by_lora_ga({"w": g}, gradients={"w": g}, rank=1, gamma=1.0)
    >>> print(made.a["w"][:, 0].round(3), made.b["w"][0].round(3))
    [1.414 0.    0.    0.   ] [0.    1.414 0.    0.   ]
    """
    name = "init_by_lora_ga"
    check.count(name, rank=rank)
    check.positive(name, alpha=alpha, gamma=gamma)
    difference = mismatch(gradients, params)
    want, remedy = "gradients must be a tree like params", "Take them of these params."
    check.holds(name, difference is None, want, difference, remedy)
    kernels, found = dict(check.leaves(params)), dict(check.leaves(gradients))
    a, b = {}, {}
    for path in adapters.chosen(name, params, matrices):
        *_, rows, cols = kernels[path].shape
        want = f"rank must be at most half of the smaller side of leaf {path}, {min(rows, cols)}"
        remedy = "Choose a smaller one, or leave the leaf out of matrices."
        check.holds(name, 2 * rank <= min(rows, cols), want, rank, remedy)
        what, remedy = f"leaf {path} of gradients", "Look at the loss and the batch."
        adapters.check_finite(name, what, found[path], remedy)
        a[path], b[path] = _factors(found[path], rank, cols**0.25 / gamma**0.5)
    scale = alpha / rank**0.5
    factors = adapters.placed(params, a), adapters.placed(params, b)
    frozen = adapters.summed(params, adapters.products(*factors, scale), -1)
    return Adapters(frozen, *factors, scale)


def _factors(g: jax.Array, rank: int, size: Scalar) -> tuple[jax.Array, jax.Array]:
    """The first left and the next right singular vectors of a gradient, times `size`."""
    u, _, vt = jnp.linalg.svd(numbers.read(adapters.wide(g)), full_matrices=False)
    a = linalg.signed(u[..., :rank])
    b = linalg.signed(vt[..., rank : 2 * rank, :].mT).mT
    return a * jnp.asarray(size, a.dtype), b * jnp.asarray(size, b.dtype)
