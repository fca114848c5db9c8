"""Learning rate by the largest eigenvalue of the Hessian of a batch."""

import jax.numpy as jnp

from gradkit._core import check, rate
from gradkit._core.factory import factory
from gradkit._core.types import Rate, Scalar


@factory
def rate_by_hessian_noise(
    learning_rate: Rate = 0.1,
    *,
    batch_size: Scalar = 256,
    base: Scalar = 256,
    critical: Scalar = 1024,
    examples: Scalar | None = None,
) -> Rate:
    r"""Scale a learning rate of SGD with the stable limit, 2 over the batch Hessian's top eigenvalue.

    $$\eta' = \eta \cdot f(b(\mathrm{base})) / f(b(\mathrm{batch\_size})), \quad
      b(B) = B / (1 - B / \mathrm{examples})$$

    $$f(b) = \begin{cases} 1 + \mathrm{critical} / b & b > \mathrm{critical} \\
      2 \sqrt{\mathrm{critical} / b} & \text{else} \end{cases}$$

    Sampling adds a random matrix to the Hessian. `f` is the top eigenvalue of the sum over that
    of the Hessian, $\lambda$: above `critical` its own direction, raised, below it the edge of the
    noise. So the rate grows as a square root up to `critical`, and by a factor of 2 at most beyond.

    Args:
        learning_rate: the rate that is good at batch size `base`, a number or a schedule.
        batch_size: examples in a batch of the run.
        base: examples in a batch of the run for which the rate was found.
        critical: $P \sigma^2 / \lambda^2$, of $P$ parameters and the variance $\sigma^2$ of an
            entry of the Hessian of one example.
        examples: number of examples of the data, none of which comes twice in a batch; None if
            they are endless.

    Paper: Granziol, Zohren and Roberts, "Learning Rates as a Function of Batch Size: A Random
        Matrix Theory Approach to Neural Network Training", arXiv:2006.09092.
    Departure: the paper gives the eigenvalue; here it transfers a rate that is known, so that
        only `critical` has to be estimated.
    Limits: a limit of stability, not the best rate. The noise is taken as independent entries.

    >>> rates = [gk.rate_by_hessian_noise(1.0, batch_size=b, base=64) for b in (256, 1024, 10**9)]
    >>> print([round(float(rate), 3) for rate in rates])
    [2.0, 4.0, 8.0]
    """
    name = "rate_by_hessian_noise"
    check.positive(name, batch_size=batch_size, base=base, critical=critical)
    fraction = 0.0
    if examples is not None:
        check.positive(name, examples=examples)
        fraction = 1 / examples
        for k, size in {"batch_size": batch_size, "base": base}.items():
            check.below(name, "examples", examples, **{k: size})

    def eigenvalue(size: Scalar) -> Scalar:
        noise = critical * (1 / size - fraction)
        return jnp.where(noise < 1, 1 + noise, 2 * jnp.sqrt(noise))

    return rate.product(learning_rate, eigenvalue(base) / eigenvalue(batch_size))
