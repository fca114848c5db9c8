"""Averages of the parameters whose weights grow as a power of time; at power 0, Polyak's."""

import jax.numpy as jnp

from gradkit._core import averages, check, numbers, tree
from gradkit._core.averages import AverageState
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


@factory
def average_params_by_polynomial(power: Hyper = 8.0, *, start: Hyper = 0) -> Transform:
    r"""Keep an average of the parameters that weighs later ones more, and pass updates on.

    $$p_t = p_{t-1} + u_t, \qquad k = \max(t - \mathrm{start}, 1), \qquad
      \bar p_t = \bar p_{t-1} + \frac{1 + \mathrm{power}}{k + \mathrm{power}} (p_t - \bar p_{t-1})$$

    The weight of $p_k$ in the average grows about as $k^{\mathrm{power}}$: the last tenth of a
    run has a constant fraction of all weight, however long the run is. Stands last in a chain,
    where updates are what parameters move by, but before a `round_by_`. The average is
    `gk.eval_params(state, params)`, from the state of any chain.

    Args:
        power: 0 is the plain mean of Polyak, Ruppert and, with `start`, of SWA; 8 is that
            of DoG.
        start: updates before the average begins; until then it is the parameters themselves.

    Needs: params.
    State: `4*size` bytes a leaf, `4` once.
    Flops: at most `8*size` a leaf, `20` once.
    Paper: Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization: Convergence
        Results and Optimal Averaging Schemes", arXiv:1212.1824, Section 4.
    Departure: `start` is ours. SWA takes the parameters once an epoch, of a high constant
        learning rate; here every update is averaged.
    Limits: the plain mean from the first update on never forgets where a run began. Statistics
        that are not parameters, such as those of batch normalization, are not averaged. An update
        that is not finite counts as zero. The average is kept in at least float32.

    >>> tx = gk.chain(gk.sgd(1.0), gk.average_params_by_polynomial(1.0))
    >>> p, state = jnp.float32(0.0), tx.init(jnp.float32(0.0))
    >>> for _ in range(2): u, state = tx.update(jnp.float32(-3.0), state, p); p = p + u
    >>> print(gk.eval_params(state, p))  # (1 * 3 + 2 * 6) / 3
    5.0
    """
    check.nonnegative("average_params_by_polynomial", power=power, start=start)

    def init(params: Params) -> AverageState:
        return AverageState(jnp.zeros([], jnp.int32), tree.zeros(params))

    def update(
        updates: Updates, state: AverageState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AverageState]:
        del extra
        check.given("average_params_by_polynomial", params)
        count = numbers.increment(state.count)
        k = jnp.maximum(count.astype(jnp.result_type(float)) - start, 1)
        new = averages.after(params, updates)
        average = averages.toward(state.average, new, (1 + power) / (k + power))
        return updates, AverageState(count, average)

    return transform(init, update)
