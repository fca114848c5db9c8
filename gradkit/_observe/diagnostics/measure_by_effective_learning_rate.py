"""The learning rate that weights see which a normalization makes scale-invariant."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, norms, numbers, rate, report
from gradkit._core.call import error
from gradkit._core.factory import factory
from gradkit._core.measure import figure
from gradkit._core.types import Extra, Params, Rate, Transform, Updates, transform

NAME = "measure_by_effective_learning_rate"
PREFIX = "effective_learning_rate"


class EffectiveLearningRateState(NamedTuple):
    """State of `measure_by_effective_learning_rate`."""

    count: jax.Array  # updates so far, int32 []


class EffectiveLearningRates(NamedTuple):
    """Of every leaf, by its path."""

    of_sgd: dict[str, jax.Array]  # rate / |w|^2, []
    of_sign: dict[str, jax.Array]  # rate / |w|, []


@factory
def measure_by_effective_learning_rate(learning_rate: Rate) -> Transform:
    r"""Pass updates through, and report the effective learning rate of every weight.

    $$\eta_{\mathrm{sgd}} = \frac{\eta_t}{\lVert w_t \rVert^2}, \qquad
      \eta_{\mathrm{sign}} = \frac{\eta_t}{\lVert w_t \rVert}$$

    A loss that does not depend on the scale of $w$, as behind a normalization, has a gradient
    that falls as $1 / \lVert w \rVert$. SGD at a rate $\eta$ then turns $w$ as it would at norm 1 and
    the rate $\eta_{\mathrm{sgd}}$, and optimizers whose updates do not depend on the gradient's scale,
    such as Adam or Lion, as at $\eta_{\mathrm{sign}}$. Weight decay acts on these by shrinking $w$.

    Within a `gradkit.measure`, `gk.metrics(state)` has the numbers of every leaf, as
    `effective_learning_rate/dense/kernel/sgd` and `.../sign`. Anywhere else nothing is computed.

    Args:
        learning_rate: the number or schedule that the optimizer beside it has.

    Paper: van Laarhoven, "L2 Regularization versus Batch and Weight Normalization",
        arXiv:1706.05350.
    Departure: none.
    Limits: needs params in an update. Whether a leaf is scale-invariant is not looked at: for others
        the numbers mean little. A leaf of zeros has 0. Momentum divides the rate by
        $1 - b$ besides. Norms are of whole leaves; for a rate by neuron, see
        `scale_by_neuron_norm`.

    >>> tx = gk.chain(gk.sgd(0.5), gk.measure_by_effective_learning_rate(0.5))
    >>> tx, w = gk.measure(tx), {"w": jnp.full(4, 2.0)}
    >>> found = gk.metrics(tx.update(w, tx.init(w), w)[1])  # |w| = 4
    >>> print(*(found[f"effective_learning_rate/w/{kind}"] for kind in ("sgd", "sign")))
    0.03125 0.125
    """
    check.nonnegative(NAME, learning_rate=learning_rate)

    def init(params: Params) -> EffectiveLearningRateState:
        del params
        return EffectiveLearningRateState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates,
        state: EffectiveLearningRateState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, EffectiveLearningRateState]:
        del extra
        check.given(NAME, params)
        if report.is_collecting():
            found = of_leaves(rate.at(learning_rate, state.count), params)
            for kind, by_path in (("sgd", found.of_sgd), ("sign", found.of_sign)):
                for path, x in by_path.items():
                    report.number("/".join(filter(None, [PREFIX, path, kind])), x)
        return updates, EffectiveLearningRateState(numbers.increment(state.count))

    return transform(init, update)


def of_leaves(learning_rate: Any, params: Params) -> EffectiveLearningRates:
    """The effective learning rates of all real leaves now; 0 where the norm is."""
    real = {k: x for k, x in check.leaves(params) if numbers.is_real(x)}
    sizes = dict(zip(real, norms.of_leaves([*real.values()])))

    def over(x: Any, size: jax.Array) -> jax.Array:
        return jnp.where(size > 0, x / jnp.where(size > 0, size, 1), 0)

    of_sign = {k: over(learning_rate, size) for k, size in sizes.items()}
    of_sgd = {k: over(x, sizes[k]) for k, x in of_sign.items()}
    return EffectiveLearningRates(of_sgd, of_sign)


def plot_effective_learning_rate(
    result: Mapping[str, Any], axes: Any = None, kind: str = "sgd"
) -> Any:
    """Draw the effective learning rate of every leaf over the updates of a run.

    Args:
        result: of `gk.metrics` after each update, stacked, `[updates]` by name, as
            `jax.lax.scan` returns them.
        axes: of matplotlib; those of a new figure if None.
        kind: `"sgd"` for rate / |w|^2, `"sign"` for rate / |w|.

    Returns:
        The axes.
    """
    name = "plot_effective_learning_rate"
    axes = figure.axes_or_new(name, axes)
    start, end = f"{PREFIX}/", f"/{kind}"
    found = {k: x for k, x in result.items() if start in f"{k}/" and k.endswith(end)}
    if not found:
        got = [*result][:4]
        text = f"result must have names such as {start}w{end}, got {got}. Pass gk.metrics(state) of a gk.measure around the chain."
        raise error(ValueError, name, text)
    for k, x in found.items():
        leaf = k.partition(start)[2].removesuffix(end)
        values = np.atleast_1d(np.asarray(x))
        values = np.where(values > 0, values, np.nan)  # a norm of 0 has no rate
        axes.plot(np.arange(len(values)), values, label=leaf or "params")
    axes.set(xlabel="updates", yscale="log")
    axes.set_ylabel("rate / |w|²" if kind == "sgd" else "rate / |w|")
    axes.legend(frameon=False)
    return axes
