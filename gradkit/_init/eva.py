"""EVA: adapters along the directions in which a layer's inputs vary most."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import adapters, check
from gradkit._core.adapters import Adapters
from gradkit._core.call import error
from gradkit._core.factory import factory
from gradkit._core.matrix import linalg
from gradkit._core.types import Params, Scalar

ROUNDING = 8  # in eps times the norm of a layer's inputs


@factory
def init_by_eva(
    params: Params | jax.Array,
    *,
    activations: Mapping[str, Any],
    rank: int = 16,
    rho: Scalar = 2.0,
    alpha: Scalar = 1.0,
) -> Adapters:
    r"""Take the factors of low-rank adapters, and their ranks, from the inputs of the layers.

    $$X_l - \bar X_l = U S V^T, \qquad a_l = V_{1:r_l}, \qquad b_l = 0, \qquad
      e_{lj} = S_j^2 / \sum_i S_i^2$$

    where $r_l$ is how many of the first $\mathrm{round}(\mathrm{rank} \cdot \mathrm{rho})$ values
    $e_{lj}$ of the layer are among the $\mathrm{rank} \cdot n$ largest of all $n$ layers. A layer
    may have none, and then no adapter. The adapted model is
    $x\,(W + a\, b \, \mathrm{alpha} / \mathrm{rank})$, at first the model as it was.

    Args:
        params: the parameters of the model; a kernel is `[in, out]`.
        activations: the inputs of the layers to be adapted, by the path of the kernel, as `q/kernel`:
            finite arrays `[..., in]`, without padding. They must be known before tracing.
        rank: the mean rank of the adapters.
        rho: the largest rank of an adapter, in multiples of `rank`; at least 1.
        alpha: of the adapters' scale, which is one for all ranks.

    It returns `params`, to be frozen, the factors `a` and `b`, to be trained, and `scale`. Their
    `weights()` are the parameters of the adapted model.

    Errors: inputs that are not finite, or that vary in no layer.
    Paper: Paischer, Hauzenberger, Schmied, Alkin, Deisenroth and Hochreiter, "One Initialization
        to Rule them All: Fine-tuning via Explained Variance Adaptation", arXiv:2410.07170.
    Departure: all inputs are decomposed at once. The authors update an incremental decomposition,
        batch by batch, until components have a cosine similarity of 0.99 with their last ones. As
        in their code the mean is taken off. Signs are those of a fixed rule.
    Limits: inputs of as many rows as the largest rank at least, better of many times more. Along what
        does not vary there are no factors: a layer of constant inputs has no adapter, and ranks may
        sum to less. Kernels have two axes: of attention, `[in, heads, size]`, none can be adapted
        before the model has it as `[in, heads * size]`. Layers of one input are decomposed once
        each. Ranks depend on the data, so this cannot be jitted.

    >>> x = jnp.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, -0.5, 0.0]])
    >>> made = gk.init_by_eva({"w": jnp.ones((3, 5))}, activations={"w": x}, rank=1)
    >>> print(made.a["w"][:, 0].round(3), made.b["w"].shape)
    [1. 0. 0.] (1, 5)
    """
    name = "init_by_eva"
    check.count(name, rank=rank)
    check.at_least(name, 1, rho=rho)
    check.concrete(name, rho=rho)
    check.positive(name, alpha=alpha)
    kernels = dict(check.leaves(params))
    want = "activations must be of one kernel or more, by path"
    check.holds(name, bool(activations), want, "none", _choice(kernels))
    most = round(rank * float(rho))
    bases, parts = {}, {}
    for path, x in activations.items():
        check.concrete(name, activations=x)
        bases[path], parts[path] = _components(_rows(name, path, x, kernels), most)
    want, got = "activations must vary over their rows", f"constants for {[*parts]}"
    remedy = "Record what the layers multiply on a batch of different examples."
    check.holds(name, any(map(len, parts.values())), want, got, remedy)

    ranks = _ranks(parts, rank * len(parts))
    a = {path: bases[path][:, :n] for path, n in ranks.items() if n}
    b = {k: jnp.zeros((x.shape[1], kernels[k].shape[1]), x.dtype) for k, x in a.items()}
    factors = adapters.placed(params, a), adapters.placed(params, b)
    return Adapters(params, *factors, alpha / rank)


def _rows(name: str, path: str, x: Any, kernels: Mapping[str, Any]) -> jax.Array:
    """The inputs of a layer as `[rows, in]`, in at least float32."""
    if isinstance(x, Mapping):
        text = (
            f"activations must be arrays by path, got a {type(x).__name__} at {path!r}"
        )
        raise error(TypeError, name, f"{text}. {_choice(kernels)}")
    want = "activations must be by paths of parameters"
    check.holds(name, path in kernels, want, repr(path), _choice(kernels))
    want, shape = f"kernel {path} must have two axes", jnp.shape(kernels[path])
    check.holds(name, len(shape) == 2, want, f"shape {shape}", _choice(kernels))
    wide = adapters.wide(x)
    remedy = "Look at the model and the batch."
    adapters.check_finite(name, f"the inputs of {path}", wide, remedy)
    want = f"the inputs of {path} must be [..., {shape[0]}], of two rows or more"
    rows = wide.reshape(-1, shape[0]) if wide.shape[-1:] == shape[:1] else wide
    fits = rows.ndim == 2 and rows.shape[1] == shape[0] and rows.shape[0] > 1
    check.holds(name, fits, want, wide.shape, "Record what the layer multiplies.")
    return rows


def _components(x: jax.Array, most: int) -> tuple[jax.Array, np.ndarray]:
    """At most `most` right singular vectors `[in, k]` of centered rows, and their parts of the variance.

    What rounding of the rows may have made is left out.
    """
    centered = x - jnp.mean(x, axis=0, keepdims=True)
    _, s, vt = jnp.linalg.svd(centered, full_matrices=False)
    most = min(
        most, int(jnp.sum(s > ROUNDING * jnp.finfo(x.dtype).eps * jnp.linalg.norm(x)))
    )
    squares = np.square(np.asarray(s, np.float64))
    part = squares / (squares.sum() or 1.0)
    return linalg.signed(vt[:most].mT), part[:most]


def _choice(kernels: Mapping[str, Any]) -> str:
    """What can be adapted, for a message."""
    return f"Choose from {sorted(k for k, x in kernels.items() if jnp.ndim(x) == 2)}."


def _ranks(parts: Mapping[str, np.ndarray], budget: int) -> dict[str, int]:
    """How many of the `budget` largest parts each layer has; of equal ones the first."""
    owners = np.repeat(np.arange(len(parts)), [len(x) for x in parts.values()])
    order = np.argsort(-np.concatenate([*parts.values()]), kind="stable")[:budget]
    counts = np.bincount(owners[order], minlength=len(parts))
    return {path: int(n) for path, n in zip(parts, counts)}
