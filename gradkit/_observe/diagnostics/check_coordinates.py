"""The coordinate check: does a wide model start and move as a narrow one does?"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check
from gradkit._core.jaxpr import record
from gradkit._core.measure import experiment
from gradkit._core.measure.coordinates import Coordinates

Rename = Callable[[int, str], str | None]  # from a size and a site
Scale = Callable[[int, str], float]
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


def check_coordinates(
    make: experiment.Make,
    sizes: Sequence[int],
    learning_rate: float,
    steps: int = 5,
    seeds: int = 3,
    rename: Rename = lambda size, site: site,
    scale: Scale = lambda size, site: 1.0,
) -> Coordinates:
    r"""Measure how activations, and their changes in training, grow with a model's size.

    Of every site $s$ (each product with a parameter, product of two activations, or sum of
    two branches, that the loss depends on) at size $n$, after $t$ updates on one batch, over
    its entries:

    $$\frac{1}{|x|} \sum_i |x_i^{s,t}| \sim n^{p_s}, \qquad
      \frac{1}{|x|} \sum_i |x_i^{s,t} - x_i^{s,0}| \sim n^{q_s}$$

    The powers are slopes of the logarithms by least squares, their intervals Student's 95 %
    over seeds. A rate transfers where no $p_s$ is above 0 and every $q_s$ is 0. A site fails
    whose whole interval lies above 0.1, or that of $q_s$ below -0.1. What fails in a wrong
    parametrization has powers of a half or more; what is right deviates at finite widths by
    terms that fall as $n^{-1/2}$, which over widths of a few dozens to hundreds look like
    powers of up to 0.1.

    Args:
        make: from a size, the `Experiment` of a model that large: pure functions of init, loss,
            transform by learning rate, and batch.
        sizes: widths or depths, at least two.
        learning_rate: given to each experiment's `tx`, the same at every size.
        steps: updates. What is below a weight that starts at zero moves only after that weight:
            all that is below a readout of zeros, and keys and embeddings below queries of zeros,
            whose attention starts uniform. Then take more steps. A site that no update moves
            fails, and the reason says so where a later site started at zero.
        seeds: of first parameters and batches.
        rename: from a size and a site's name, the name to compare it under, or None to leave
            it out; models of several depths need it. Sites of one name are averaged.
        scale: from a size and a site's name, a factor on the site's sizes: the depth, for
            example, where a parametrization divides by it on purpose.

    Paper: Yang and others, "Tensor Programs V", arXiv:2203.03466, Appendix D.1.
    Departure: sites are found in the traced loss; the authors' code hooks modules. Changes are
        measured besides sizes, and slopes are fitted and tested; the authors' code plots them.
    Limits: what is inside a `while_loop` or a kernel is not seen. A mean size of zero has no
        power (nan) and is not judged. Few blocks are not yet the limit of many: over depths let
        them begin as the identity and add little to the stream. Passing is necessary for
        transfer, not sufficient: see `sweep_transfer`. Few seeds make wide intervals, which fail
        less: `table` says where more would tell. A change vanishes at first where it is mostly
        noise, which falls as $n^{-1/2}$: at widths below the number of directions in a batch,
        seen most in queries of zeros and their scores, which are all change; and below or at an
        output matrix, a readout or one inside the model, that starts random. Take larger widths
        in the first case, and start that matrix at zero in the second.

    >>> net = lambda n: gk.Experiment(lambda key: {"w": jnp.ones((n, 3)) / n},  # SGD's update
    ...     lambda p, x: (x @ p["w"]).sum(), gk.sgd, lambda key: jnp.ones((1, n)))
    >>> gk.check_coordinates(net, [2, 4, 8], learning_rate=0.1).failures()
    {'w': 'change grows'}
    """
    positive = dict(learning_rate=learning_rate, steps=steps, seeds=seeds)
    check.positive("check_coordinates", **positive)
    if len(set(sizes)) < 2:
        raise ValueError(
            f"gradkit.check_coordinates: sizes must be at least two, got {list(sizes)}. "
            "Powers need models of different sizes."
        )
    means = [
        _measure(
            make(n),
            learning_rate,
            steps,
            seeds,
            functools.partial(rename, n),
            functools.partial(scale, n),
        )
        for n in sizes
    ]
    sites = tuple(means[0])
    apart = sorted({site for by_site in means for site in by_site.keys() ^ {*sites}})
    if apart:
        raise ValueError(
            "gradkit.check_coordinates: sites must have the same names at every size, got "
            f"only at some: {apart}. Bring them together by rename=."
        )
    activation, change = (
        np.stack(
            [
                np.stack([np.asarray(by_site[s][i]) for s in sites], -1)
                for by_site in means
            ]
        )
        for i in (0, 1)
    )
    return Coordinates(tuple(sizes), sites, activation, change)


def _measure(
    model: experiment.Experiment,
    learning_rate: float,
    steps: int,
    seeds: int,
    rename: Callable[[str], str | None],
    scale: Callable[[str], float],
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """By site, both means, `[seeds, steps + 1]`: all seeds in one compiled program."""
    names: list[str] = []

    def activations(params: Any, batch: Any) -> list[jax.Array]:
        sites = record.activations(model.loss, params, batch)
        names[:] = [name for name, _ in sites]
        return [x for _, x in sites]

    def run(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        for_params, for_batch = jax.random.split(key)
        params, batch = model.init(for_params), model.batch(for_batch)
        tx = model.tx(jnp.asarray(learning_rate))
        shapes = jax.eval_shape(activations, params, batch)
        unknown = [jnp.zeros(x.shape, x.dtype) for x in shapes]

        def step(carry: Any, count: jax.Array) -> Any:
            params, opt, first = carry
            now = activations(params, batch)
            first = [jnp.where(count == 0, x, x0) for x, x0 in zip(now, first)]
            means = [
                (jnp.mean(jnp.abs(x)), jnp.mean(jnp.abs(x - x0)))
                for x, x0 in zip(now, first)
            ]
            params, opt, _ = experiment.train(model, tx, params, opt, batch)
            return (params, opt, first), means

        start = params, tx.init(params), unknown
        return jax.lax.scan(step, start, jnp.arange(steps + 1))[1]

    means = jax.jit(jax.vmap(run), compiler_options=QUICK)(experiment.keys(seeds))
    groups: dict[str, list[Any]] = {}
    for name, pair in zip(names, means):
        shared = rename(name)
        if shared is not None:
            groups.setdefault(shared, []).append([scale(name) * x for x in pair])
    return {
        name: (jnp.mean(jnp.stack(x), 0), jnp.mean(jnp.stack(change), 0))
        for name, (x, change) in ((k, zip(*v)) for k, v in groups.items())
    }
