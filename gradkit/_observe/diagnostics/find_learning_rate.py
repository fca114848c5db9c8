"""The range test: one short run under a learning rate that rises until the loss does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.ndimage import median_filter

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.measure import experiment
from gradkit._core.types import AnyTransform, Params

NAME = "find_learning_rate"


class RateRange(NamedTuple):
    """Losses of a range test by learning rate, and what they propose."""

    rates: np.ndarray  # of the updates before the end, rising
    losses: np.ndarray  # before each update
    smooth: np.ndarray  # their running median
    largest: float  # the rate at the lowest smooth loss: the peak of a cycle
    suggestion: float  # a tenth of it, for a rate that stays; nan if all were too high
    ended: str  # why the range ended

    def __str__(self) -> str:
        """The suggestion and the end, in one line."""
        return f"suggestion {self.suggestion:.3g}, largest {self.largest:.3g}: {self.ended}"

    def plot(self, axes: Any) -> None:
        """Draw the losses and the proposed rates on matplotlib's `axes`."""
        axes.plot(self.rates, self.losses, color="0.75", label="loss")
        axes.plot(self.rates, self.smooth, color="C0", label="running median")
        for value, style, label in (
            (self.suggestion, "-", "suggestion"),
            (self.largest, "--", "largest"),
        ):
            axes.axvline(
                value, color="C1", linestyle=style, label=f"{label} {value:.2g}"
            )
        axes.set_xscale("log")
        axes.set(xlabel="learning rate", ylabel="loss", title=self.ended)
        axes.legend(frameon=False)


def find_learning_rate(
    loss: Callable[[Params, Any], jax.Array],
    tx: Callable[[jax.Array], AnyTransform],
    params: Params,
    data: Any,
    low: float = 1e-6,
    high: float = 10.0,
) -> RateRange:
    r"""Train once while the learning rate rises, and see where the loss falls and where it breaks.

    $$\eta_c = \mathrm{low} \cdot (\mathrm{high} / \mathrm{low})^{c / (n - 1)}, \quad
      c = 0, 1, \dots, n - 1$$

    One `lax.scan` over the $n$ batches is one compiled program. The range ends at the first loss that is
    not finite, or has risen above four times the first; from there nothing is computed.

    Args:
        loss: of parameters and a batch; a number.
        tx: from a learning rate to a transform, such as `gk.adamw`.
        params: the first parameters; they are not changed.
        data: the batches, stacked along the first axis of every leaf, ten or more.
        low: the first learning rate.
        high: the last learning rate.

    Paper: Smith, "A disciplined approach to neural network hyper-parameters: Part 1",
        arXiv:1803.09820, Section 4.1.
    Departure: the rate rises geometrically, so that one run spans all scales. The paper reads the
        largest rate off the picture; here it is where the running median of the losses, over a
        twentieth of them at each side, is lowest. The suggestion is a tenth of it, as the
        paper chooses the lower end of a cycle.
    Limits: a rule of thumb: a good rate depends on the length of the run. If loss falls to the
        end, `ended` says so: raise `high`. If it breaks without a fall, nothing is suggested: lower
        `low`.

    >>> bowl = lambda p, batch: jnp.sum((p - batch) ** 2)  # stable below a rate of 1
    >>> found = gk.find_learning_rate(bowl, gk.sgd, jnp.ones(2), jnp.zeros((60, 2)), 1e-3, 1e3)
    >>> print(0.1 < found.largest < 10, found.ended.split(",")[0])
    True the loss rose above four times the first
    """
    if not callable(tx):
        got = "a transform" if check.is_transform(tx) else type(tx).__name__
        text = "tx must be a function of a learning rate, such as gk.sgd, got "
        raise error(TypeError, NAME, f"{text}{got}. Pass the factory itself.")
    experiment.check_functions(NAME, loss=(loss, "params, batch"))
    experiment.check_arrays(NAME, "params", params)
    check.positive(NAME, low=low, high=high)
    want = f"high must be above low = {low}"
    check.holds(NAME, high > low, want, high, "Choose a range, such as 1e-6 to 10.")
    sizes = {x.shape[0] if np.ndim(x) else 0 for x in jax.tree.leaves(data)}
    want = "data must have one axis of ten batches or more first"
    one = len(sizes) == 1 and min(sizes) >= 10
    check.holds(NAME, one, want, sorted(sizes), "Stack batches by jnp.stack.")
    steps = min(sizes)
    rates = np.geomspace(low, high, steps)
    losses = np.asarray(_run(loss, tx, params, data, rates), np.float64)
    return _read(rates, losses)


def _run(loss: Any, tx: Any, params: Params, data: Any, rates: np.ndarray) -> jax.Array:
    """The loss before each update; nan behind the end."""

    def step(carry: Any, now: Any) -> Any:
        rate, batch = now
        first, ended, params, state = carry
        made = optax.with_extra_args_support(tx(rate))

        def train() -> Any:
            value, grads = jax.value_and_grad(loss)(params, batch)
            start = jnp.where(jnp.isnan(first), value, first)
            ends = ~jnp.isfinite(value) | _has_risen(start, value)
            updates, new = made.update(grads, state, params, value=value)
            return (start, ends, optax.apply_updates(params, updates), new), value

        stay = lambda: (carry, jnp.full_like(first, jnp.nan))
        return jax.lax.cond(ended, stay, train)

    @jax.jit
    def run(params: Params, data: Any, rates: jax.Array) -> jax.Array:
        check.transform(NAME, "what tx returns", tx(rates[0]))
        batch = jax.tree.map(lambda x: x[0], data)
        kind = jax.eval_shape(loss, params, batch)
        want = "loss must return one number"
        shape = getattr(kind, "shape", type(kind).__name__)
        check.holds(NAME, shape == (), want, shape, "Average it over the batch.")
        first = jnp.full([], jnp.nan, kind.dtype)
        carry = first, jnp.array(False), params, tx(rates[0]).init(params)
        return jax.lax.scan(step, carry, (rates, data))[1]

    data = jax.tree.map(jnp.asarray, data)
    return run(params, data, jnp.asarray(rates, jnp.result_type(float)))


def _has_risen(first: Any, now: Any) -> Any:
    """Whether a loss is above four times the first, or as far above a negative one."""
    return now > first + 3 * abs(first)


def _read(rates: np.ndarray, losses: np.ndarray) -> RateRange:
    """What the losses propose."""
    finite = np.isfinite(losses)
    n = int(np.argmin(finite)) if not finite.all() else losses.size
    if n == 0:
        text = (
            f"the first loss must be finite, got {losses[0]}. Look at params and data."
        )
        raise error(ValueError, NAME, text)
    start, end = losses[0], losses[n - 1]
    if _has_risen(start, end):
        n -= 1
        ended = f"the loss rose above four times the first, at a rate of {rates[n]:.3g}"
    elif n < losses.size:
        ended = f"the loss was {losses[n]} at a rate of {rates[n]:.3g}"
    else:
        ended = "the loss did not break, raise high"
    rates, losses = rates[:n], losses[:n]
    smooth = median_filter(losses, 2 * (n // 20) + 1, mode="nearest")
    lowest = int(np.argmin(smooth))
    largest = float(rates[lowest])
    if lowest == 0 and n < finite.size:  # broken, and never below the first
        return RateRange(rates, losses, smooth, largest, np.nan, f"{ended}, lower low")
    return RateRange(rates, losses, smooth, largest, largest / 10, ended)
