"""The exponential moving average of the parameters."""

import jax.numpy as jnp

from gradkit._core import averages, check, numbers, tree
from gradkit._core.averages import AverageState
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


@factory
def average_params_by_ema(decay: Hyper = 0.999) -> Transform:
    r"""Keep an exponential moving average (EMA) of the parameters, and pass updates on.

    $$p_t = p_{t-1} + u_t, \qquad \bar p_t = \bar p_{t-1} +
      \frac{1 - \mathrm{decay}}{1 - \mathrm{decay}^t} (p_t - \bar p_{t-1})$$

    Stands last in a chain, where updates are what parameters move by, but before a `round_by_`.
    `gk.eval_params(state, params)` is the average, from the state of any chain.

    Args:
        decay: of the average, which is over about `1 / (1 - decay)` updates.

    Needs: params.
    State: `4*size` bytes a leaf, `4` once.
    Flops: at most `8*size` a leaf, `60` once.
    Paper: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging",
        doi 10.1137/0330046, average all parameters alike; the exponential weights are common practice.
    Departure: the average is bias-corrected, so that the initial parameters are not in it;
        implementations that begin with these need a warm-up of the decay.
    Limits: a decay of 0.9999 looks back 10,000 updates: too far at the beginning of a run and for
        short ones. Statistics that are not parameters, such as those of batch normalization, are
        not averaged. An update that is not finite counts as zero. The average is kept in at least
        float32.

    >>> tx = gk.chain(gk.sgd(1.0), gk.average_params_by_ema(0.5))
    >>> p, state = jnp.float32(0.0), tx.init(jnp.float32(0.0))
    >>> for _ in range(2): u, state = tx.update(jnp.float32(-3.0), state, p); p = p + u
    >>> print(gk.eval_params(state, p))  # (3 / 2 + 6) / (1 / 2 + 1)
    5.0
    """
    check.interval("average_params_by_ema", "[0, 1)", decay=decay)

    def init(params: Params) -> AverageState:
        return AverageState(jnp.zeros([], jnp.int32), tree.zeros(params))

    def update(
        updates: Updates, state: AverageState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AverageState]:
        del extra
        check.given("average_params_by_ema", params)
        count = numbers.increment(state.count)
        total = numbers.one_minus_power(decay, count, jnp.result_type(float))
        new = averages.after(params, updates)
        average = averages.toward(state.average, new, (1 - decay) / total)
        return updates, AverageState(count, average)

    return transform(init, update)
