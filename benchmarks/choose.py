"""Does what docs/how_to_choose.md advises help? One small experiment a symptom, one table each.

Every method is tuned over the grid that its table names, on seeds of its own; the numbers are
means over other seeds, plus or minus their standard error. `*` marks a best setting at the edge
of its grid. The experiments are in gradkit/_lab/claims; tests/test_claims.py runs some of them.

    python benchmarks/choose.py --out benchmarks/results/choose.md --picture docs/choose.png

About half an hour on two cores; `--only games,memory` runs some of it.
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit as gk
from gradkit import catalogue
from gradkit._lab.claims import (
    games,
    grokking,
    heavy_tails,
    memorizing,
    pruning,
    rotation,
    spikes,
)
from gradkit._lab.claims.run import Tuned, product, tuned

Make = Callable[..., Any]  # hyperparameters -> transforms of a chain


class Sheet(NamedTuple):
    """One table, and what was done to fill it."""

    title: str
    what: str
    columns: list[str]
    rows: list[list[str]]


def chained(*parts: Any) -> optax.GradientTransformation:
    """A chain; a number or schedule in it is the learning rate."""
    steps: list[Any] = [
        part if isinstance(part, tuple) else gk.step_by_learning_rate(part)
        for part in parts
    ]
    return gk.chain(*steps)


def number(values: Any) -> str:
    """Mean and standard error."""
    values = np.asarray(values, np.float64)
    if not np.all(np.isfinite(values)):
        return "diverged"
    if np.all(values == values[0]):
        return f"{values[0]:.3g}"
    return f"{values.mean():.3g} ± {values.std(ddof=1) / len(values) ** 0.5:.1g}"


def setting(found: Tuned) -> str:
    """The best setting."""
    return ", ".join(f"{x:.3g}" for x in found.setting) + "*" * found.at_edge


def falling(rate: Any, steps: int) -> Any:
    """The rate that falls linearly to zero."""
    return gk.schedule_by_linear_decay(rate, steps)


def spiked(seeds: int) -> Sheet:
    """Gradients a thousand times too large."""
    steps, rates = 500, [0.003, 0.01, 0.03, 0.1]
    rng = np.random.default_rng(0)
    conditions = {
        "none": [],
        "one": [200],
        "2 %": 50 + np.flatnonzero(rng.random(steps - 50) < 0.02),
        "4 of the first 15": [0, 4, 9, 14],
        "none, 4 bits": [],
    }
    adam = gk.scale_by_adam
    methods: dict[str, tuple[Make, list[float]]] = {
        "scale_by_adam": (lambda c: [], [0.0]),
        "clip_by_global_norm": (lambda c: [gk.clip_by_global_norm(c)], [0.1, 0.3, 1.0]),
        "clip_by_ema_norm": (lambda c: [gk.clip_by_ema_norm()], [0.0]),
        "clip_by_zscore": (lambda c: [gk.clip_by_zscore()], [0.0]),
        "clip_by_percentile": (lambda c: [gk.clip_by_percentile()], [0.0]),
        "clip_by_spike": (lambda c: [gk.clip_by_spike()], [0.0]),
        "scale_by_gradient_norm": (lambda c: [gk.scale_by_gradient_norm()], [0.0]),
        "both of them": (
            lambda c: [gk.clip_by_spike(), gk.scale_by_gradient_norm()],
            [0.0],
        ),
    }

    def loss(before: Make, at: Any, bits: Any, rate: Any, c: Any, seed: Any) -> Any:
        tx = chained(*before(c), adam(), falling(rate, steps))
        losses = spikes.regress(tx, seed, spikes.spiky(steps, at), bits)
        return 1e3 * jnp.mean(losses[-steps // 20 :])

    rows = []
    for name, (before, grid) in methods.items():
        cells = []
        for condition, at in conditions.items():
            bits = 4 if "bits" in condition else None
            one = functools.partial(loss, before, at, bits)
            cells.append(number(tuned(one, rates, grid, seeds=seeds).losses))
        rows.append([name, *cells])
    what = (
        f"A two-layer network's regression, {steps} updates by Adam behind the method, "
        "some gradients times 1000; held-out loss, in thousandths. Rates "
        f"{rates}, thresholds of `clip_by_global_norm` [0.1, 0.3, 1]; all others as they "
        "come. In the last column inputs, weights and hidden units have 4 bits."
    )
    return Sheet("Loss spikes", what, ["method", *conditions], rows)


def tailed(seeds: int) -> Sheet:
    """Noise without a variance."""
    steps, rates, limits = (
        1000,
        [0.5**k for k in range(1, 10, 2)],
        [20 / 4**k for k in range(6)],
    )
    methods: dict[str, tuple[Make, list[float]]] = {
        "an average": (lambda c: [gk.average_by_ademamix(0.9, alpha=0.0)], [0.0]),
        "scale_by_adam": (lambda c: [gk.scale_by_adam()], [0.0]),
        "clip_by_global_norm": (lambda c: [gk.clip_by_global_norm(c)], limits),
        "clip_by_global_norm, an average": (
            lambda c: [
                gk.clip_by_global_norm(c),
                gk.average_by_ademamix(0.9, alpha=0.0),
            ],
            limits,
        ),
        "clip_by_global_norm, scale_by_adam": (
            lambda c: [gk.clip_by_global_norm(c), gk.scale_by_adam()],
            limits,
        ),
        "clip_by_median": (lambda c: [gk.clip_by_median(c)], limits),
    }

    def loss(make: Make, noise: Any, rate: Any, c: Any, seed: Any) -> Any:
        tx = chained(*make(c), falling(rate, steps))
        return heavy_tails.minimize(tx, seed, steps, noise)

    rows = []
    for name, (make, grid) in methods.items():
        cells = []
        for noise in (heavy_tails.symmetric, heavy_tails.skewed):
            found = tuned(
                functools.partial(loss, make, noise), rates, grid, seeds=seeds
            )
            cells += [number(found.losses), setting(found)]
        rows.append([name, *cells])
    what = (
        "A quadratic in 10 dimensions, noise of tail index 1.2: symmetric, or skewed with mean "
        f"0. Mean loss over the last tenth of {steps} updates; rates from 1/2 to 1/512, "
        "thresholds from 20 to 0.02."
    )
    columns = ["method", "symmetric", "rate, threshold", "skewed", "rate, threshold"]
    return Sheet("Heavy-tailed noise: minimizing", what, columns, rows)


def estimated(seeds: int) -> Sheet:
    """What a direction says of the gradient under noise without a variance."""
    steps, decays = 1000, [0.9, 0.97, 0.99, 0.999]
    limits = [100 / 4**k for k in range(6)]
    ema = lambda b: gk.average_by_ademamix(b, alpha=0.0)
    methods: dict[str, tuple[Make, list[list[float]]]] = {
        "an average": (lambda b: [ema(b)], [decays]),
        "clip_by_global_norm, an average": (
            lambda c, b: [gk.clip_by_global_norm(c), ema(b)],
            [limits, decays],
        ),
        "clip_by_median": (lambda c: [gk.clip_by_median(c)], [limits]),
        "clip_by_median, an average": (
            lambda c, b: [gk.clip_by_median(c), ema(b)],
            [limits, decays],
        ),
        "average_by_running_median": (lambda: [gk.average_by_running_median()], []),
    }

    def error(make: Make, length: float, *given: Any) -> Any:
        *hyper, seed = given
        tx = gk.chain(*make(*hyper))
        return heavy_tails.estimate(tx, seed, steps, length)

    rows = []
    for name, (make, grids) in methods.items():
        cells = []
        for length in (1.0, 10.0, 100.0):
            found = tuned(functools.partial(error, make, length), *grids, seeds=seeds)
            cells += [number(found.losses), setting(found)]
        rows.append([name, *cells])
    what = (
        "A steady gradient of norm 1, 10 or 100 in 10 dimensions under the symmetric noise above: "
        "the distance from it, in norms of it, over the second half of 1000 updates. Thresholds "
        f"from 100 to 0.1, decays {decays}."
    )
    columns = ["method", "norm 1", "best", "norm 10", "best", "norm 100", "best"]
    return Sheet("Heavy-tailed noise: estimating", what, columns, rows)


def turned(seeds: int) -> Sheet:
    """Momentum on scale-invariant weights."""
    steps, rates = 1000, [0.03, 0.1, 0.3, 1, 3, 10]
    heavy = lambda: gk.average_by_heavy_ball(0.9)
    methods: dict[str, Make] = {
        "average_by_heavy_ball": heavy,
        "normalize_by_tangent of it": lambda: gk.normalize_by_tangent(heavy()),
        "scale_by_adam": gk.scale_by_adam,
        "normalize_by_tangent of that": lambda: gk.normalize_by_tangent(
            gk.scale_by_adam()
        ),
    }

    def run(make: Make, rate: Any, seed: Any) -> rotation.Turning:
        return rotation.turn(chained(make(), rate), seed, steps)

    rows = []
    for name, make in methods.items():
        constant = lambda r, s, make=make: rotation.end(run(make, r, s))
        fall = lambda r, s, f=constant: f(falling(r, steps), s)
        cells = []
        for f in (constant, fall):
            found = tuned(f, rates, seeds=seeds)
            cells += [number(found.losses), setting(found)]
        last = product(functools.partial(run, make, 0.3), np.arange(seeds, 2 * seeds))
        growth = last.norm[:, -1] / last.norm[:, 0]
        angle = last.moved[:, -1] / last.norm[:, -1]
        rows.append([name, *cells, number(growth), number(angle)])
    what = (
        f"A committee of 8 units whose weights are normalized, noisy answers, {steps} updates; "
        "mean error over the last tenth, at a constant rate and at one that falls to zero. "
        "Growth of the norm and the last update's angle at the constant rate 0.3."
    )
    columns = ["direction", "constant", "rate", "falling", "rate", "growth", "angle"]
    return Sheet("Scale-invariant layers", what, columns, rows)


DECAYS = [2.0**-k for k in range(2, 15)]


def errors_of_decay(seeds: int) -> dict[str, tuple[list[float], np.ndarray]]:
    """Errors `[rates, decays]` of decay in the gradient and decoupled from it."""
    steps = 1000
    heavy = lambda rate: chained(gk.average_by_heavy_ball(0.9), rate)
    adam = lambda rate: chained(gk.scale_by_adam(), rate)

    def coupled(make: Make) -> Make:
        return lambda rate, decay, seed: rotation.end(
            rotation.turn(make(rate), seed, steps, decay)
        )

    def decoupled(make: Make) -> Make:
        return lambda rate, decay, seed: rotation.end(
            rotation.turn(gk.chain(make(rate), gk.decay_by_weight(decay)), seed, steps)
        )

    runs = {
        "momentum, in the gradient": (coupled(heavy), [0.04, 0.16, 0.64]),
        "momentum, decay_by_weight": (decoupled(heavy), [0.04, 0.16, 0.64]),
        "Adam, in the gradient": (coupled(adam), [0.02, 0.08, 0.32]),
        "Adam, decay_by_weight": (decoupled(adam), [0.02, 0.08, 0.32]),
    }
    return {
        name: (rates, np.asarray(product(f, rates, DECAYS, np.arange(seeds))).mean(-1))
        for name, (f, rates) in runs.items()
    }


def decayed(errors: dict[str, tuple[list[float], np.ndarray]]) -> Sheet:
    """Where the best decay is at each rate."""
    rows = []
    for name, (rates, error) in errors.items():
        best = [f"2^{np.log2(DECAYS[i]):.0f}" for i in error.argmin(axis=1)]
        least = [f"{e:.3g}" for e in error.min(axis=1)]
        log = np.log(error)
        spread = np.exp(np.std(log[:, 4:9], axis=0).mean())
        lost = np.exp(log.mean(axis=0).min() - log.min(axis=1).mean())
        rows.append(
            [
                name,
                ", ".join(f"{r:g}" for r in rates),
                ", ".join(best),
                ", ".join(least),
                f"{spread:.2f}",
                f"{lost:.2f}",
            ]
        )
    what = (
        "The same committee at three constant rates, decays from 2^-2 to 2^-14: the best decay "
        "at each rate and its error; and, at a fixed decay from 2^-6 to 2^-10, the factor by which "
        "the error differs between rates (geometric standard deviation); and the factor that one "
        "decay for all rates loses to one for each."
    )
    columns = ["decay", "rates", "best decay", "error", "between rates", "one for all"]
    return Sheet(
        "Weight decay that need not be tuned with the rate", what, columns, rows
    )


def grokked(seeds: int) -> Sheet:
    """Memorizing without understanding."""
    steps, rates, seeds = 500, [0.01, 0.03], min(seeds, 3)
    adam = gk.scale_by_adam
    methods: dict[str, Make] = {
        "scale_by_adam": lambda rate: chained(adam(), rate),
        "scale_by_adam, decay_by_weight(0.001)": lambda rate: chained(
            adam(), rate, gk.decay_by_weight(0.001)
        ),
        "scale_by_adam, decay_by_weight(0.01)": lambda rate: chained(
            adam(), rate, gk.decay_by_weight(0.01)
        ),
        "normalize_by_orthograd, scale_by_adam": lambda rate: chained(
            gk.normalize_by_orthograd(), adam(), rate
        ),
        "scale_by_adam, retract_by_fixed_norm": lambda rate: chained(
            adam(), rate, gk.retract_by_fixed_norm()
        ),
    }
    rows = []
    for name, make in methods.items():
        learn = lambda rate, seed, make=make: grokking.learn(make(rate), seed, steps)
        seen = jax.tree.map(np.asarray, product(learn, rates, np.arange(2 * seeds)))
        best = int(seen.understood[:, :seeds].mean(axis=1).argmax())
        late = [x[best, seeds:] for x in seen]
        cells = [number(x) for x in late]
        rows.append([name, f"{rates[best]:g}", *cells])
    what = (
        f"Addition modulo 23, 60 % of the table, an MLP of two layers of 128 without biases, "
        f"{steps} full-batch updates at constant rates of {rates}, the best by held-out accuracy: "
        "share of right answers on training and other pairs, share of training pairs with a "
        "float32 loss of exactly 0, cosine of minus the gradient and the weights, growth of the norm."
    )
    columns = ["method", "rate", "train", "held out", "collapsed", "cosine", "growth"]
    return Sheet("Memorizing without understanding", what, columns, rows)


def memorized(seeds: int) -> Sheet:
    """Few examples and large batches."""
    steps, rates = 1000, [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]
    adam, decays = gk.scale_by_adam, [0.001, 0.003, 0.01, 0.03]
    methods: dict[str, tuple[Make, list[float]]] = {
        "scale_by_adam": (lambda r, d: [adam(), r], [0.0]),
        "scale_by_adam, decay_by_weight": (
            lambda r, d: [adam(), r, gk.decay_by_weight(d)],
            decays,
        ),
        "scale_by_adam, decay_by_unit_norm": (
            lambda r, d: [adam(), r, gk.decay_by_unit_norm(d)],
            decays,
        ),
        "scale_by_adam, retract_by_fixed_norm": (
            lambda r, d: [adam(), r, gk.retract_by_fixed_norm()],
            [0.0],
        ),
        "normalize_by_orthograd, scale_by_adam": (
            lambda r, d: [gk.normalize_by_orthograd(), adam(), r],
            [0.0],
        ),
    }
    rows = []
    for name, (make, grid) in methods.items():
        run = lambda r, d, seed, make=make: memorizing.memorize(
            chained(*make(r, d)), seed, steps
        )
        again = lambda r, d, seed, make=make: memorizing.relearn(
            chained(*make(r, d)), seed, steps, 100
        )
        seen = product(run, rates, grid, np.arange(2 * seeds))
        seen = jax.tree.map(np.asarray, seen)
        mean = seen.held_out[..., :seeds].mean(axis=-1)
        i, j = np.unravel_index(mean.argmin(), mean.shape)
        worst = seen.held_out[:, j, seeds:].mean(axis=-1).max()
        late = [
            seen.held_out[i, j, seeds:],
            seen.accuracy[i, j, seeds:],
            seen.growth[i, j, seeds:],
        ]
        relearned = product(again, rates, [grid[j]], np.arange(seeds, 2 * seeds))
        soon = np.asarray(relearned).mean(axis=-1).min()
        best = f"{rates[i]:g}" + f", {grid[j]:g}" * (len(grid) > 1)
        rows.append([name, best, *map(number, late), f"{worst:.3g}", f"{soon:.3g}"])
    what = (
        f"128 examples of 4 classes, all in every batch, {steps} updates, rates {rates}, decays "
        f"{decays}: held-out loss and accuracy and growth of the norm where the loss is least; the "
        "loss at the worst rate; and updates until 95 % of other labels are learned, at the best rate."
    )
    columns = [
        "method",
        "rate, decay",
        "loss",
        "accuracy",
        "growth",
        "worst",
        "relearned",
    ]
    return Sheet("Overfitting, full batches", what, columns, rows)


def pruned(seeds: int) -> Sheet:
    """Groups that should go."""
    steps, rates, penalties = 600, [0.01, 0.03], [0.01, 0.03, 0.1, 0.3, 1.0]
    axes = (-2,)
    half = lambda eps: (
        lambda r, s: [r, gk.shrink_by_half_space(s * r, eps, steps // 2, axes)]
    )
    methods: dict[str, Make] = {
        "no penalty": lambda r, s: [r],
        "shrink_by_group_lasso": lambda r, s: [
            r,
            gk.shrink_by_group_lasso(s * r, axes),
        ],
        "shrink_by_nonconvex": lambda r, s: [r, gk.shrink_by_nonconvex(s * r, 3 * s)],
        "shrink_by_half_space(eps=0)": half(0.0),
        "shrink_by_half_space(eps=0.5)": half(0.5),
        "shrink_by_half_space(eps=0.9)": half(0.9),
    }
    rows = []
    for name, make in methods.items():
        run = lambda r, s, seed, make=make: pruning.prune(
            chained(*make(r, s)), seed, steps
        )
        seen = product(run, rates, penalties, np.arange(2 * seeds))
        seen = jax.tree.map(np.asarray, seen)
        mean = seen.error[..., :seeds].mean(axis=-1)
        i, j = np.unravel_index(mean.argmin(), mean.shape)
        cells = [number(x[i, j, seeds:]) for x in (seen.error, seen.found, seen.lost)]
        whole = seen.found[..., seeds:].mean(axis=-1) >= 0.95
        price = np.where(whole, seen.error[..., seeds:].mean(axis=-1), np.inf).min()
        rows.append(
            [
                name,
                f"{rates[i]:g}, {penalties[j]:g}",
                *cells,
                f"{price:.3g}" if np.isfinite(price) else "never",
            ]
        )
    what = (
        f"Regression on 48 inputs of which 8 matter, batches of 16, {steps} updates, constant rates "
        f"{rates}, penalties {penalties}: squared distance from the truth where it is least, share "
        "there of the 40 idle inputs found and of the 8 others lost; and the least distance at "
        "which 95 % of the idle inputs are found. Half-space steps warm up for half of the run."
    )
    columns = ["step", "rate, penalty", "error", "found", "lost", "error, 95 % found"]
    return Sheet("Pruning", what, columns, rows)


def played(seeds: int) -> Sheet:
    """A game of two players."""
    methods: dict[str, Any] = {
        "the gradient": optax.identity(),
        "average_by_heavy_ball(0.9)": gk.average_by_heavy_ball(0.9),
        "average_by_nesterov(0.9)": gk.average_by_nesterov(0.9),
        "optax.trace(-0.5)": optax.trace(-0.5),
        "scale_by_adam": gk.scale_by_adam(),
        "average_by_optimism(scale_by_adam)": gk.average_by_optimism(
            gk.scale_by_adam()
        ),
        "average_by_complex": gk.average_by_complex(),
        "average_by_optimism": gk.average_by_optimism(optax.identity()),
    }
    rates = [0.01, 0.03, 0.1, 0.3]
    rows = []
    for name, tx in methods.items():
        end = np.asarray(
            product(lambda r, tx=tx: games.play(chained(tx, r), 1000), rates)
        )
        rows.append([name, *(f"{x:.2g}" for x in end)])
    what = "`min over x, max over y of x * y` from distance 1: the distance after 1000 updates."
    return Sheet("Games", what, ["direction", *(f"rate {r:g}" for r in rates)], rows)


def scaled(seeds: int) -> Sheet:
    """Gradients in other units."""
    steps, rates = 500, [0.003, 0.01, 0.03, 0.1]
    sizes = [1.0, 1e-6, 1e-9, 1e-12]
    methods: dict[str, Make] = {
        "scale_by_adam": gk.scale_by_adam,
        "scale_by_adam(eps=1e-30)": lambda: gk.scale_by_adam(eps=1e-30),
        "scale_by_adam_atan2": gk.scale_by_adam_atan2,
        "scale_by_novograd": gk.scale_by_novograd,
        "average_by_lion": gk.average_by_lion,
        "normalize_by_block, scale_by_adam": lambda: gk.chain(
            gk.normalize_by_block(), gk.scale_by_adam()
        ),
    }

    def loss(make: Make, size: float, rate: Any, seed: Any) -> Any:
        tx = chained(make(), falling(rate, steps))
        losses = spikes.regress(tx, seed, jnp.full(steps, size))
        return 1e3 * jnp.mean(losses[-steps // 20 :])

    rows = []
    for name, make in methods.items():
        finds = [
            tuned(functools.partial(loss, make, size), rates, seeds=seeds)
            for size in sizes
        ]
        rows.append([name, *(number(f.losses) for f in finds)])
    what = (
        f"The regression of the first table, all gradients times one number; rates {rates}, "
        "held-out loss in thousandths."
    )
    return Sheet("Gradients in other units", what, ["method", *map(str, sizes)], rows)


def weighed(seeds: int) -> Sheet:
    """What recipes remember."""
    width, layers = 512, 8
    block = {
        "qkv": (width, 3 * width),
        "proj": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "norm": (width,),
    }
    shapes = {f"layer{i}": block for i in range(layers)} | {"embed": (8192, width)}
    params = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    count = sum(x.size for x in jax.tree.leaves(params))
    found: dict[float, list[str]] = {}
    for method in catalogue.METHODS:
        if method.family == "recipe" and hasattr(gk, method.name):
            state = jax.eval_shape(getattr(gk, method.name)().init, params)
            leaves = [x for x in jax.tree.leaves(state) if hasattr(x, "dtype")]
            held = sum(x.size * x.dtype.itemsize for x in leaves)
            found.setdefault(round(held / count, 2), []).append(method.name)
    rows = [[f"{k:.2f}", ", ".join(v)] for k, v in sorted(found.items())]
    what = (
        f"Bytes of state per float32 parameter of a decoder of {count / 1e6:.1f} million "
        f"parameters ({layers} layers of width {width}, 8192 tokens), every argument as it comes. "
        "Computed, not measured."
    )
    return Sheet("Memory", what, ["bytes", "recipes"], rows)


def markdown(sheet: Sheet) -> str:
    """The table, and above it what was done."""
    lines = [
        f"## {sheet.title}\n",
        sheet.what + "\n",
        f"| {' | '.join(sheet.columns)} |",
        "|" + "---|" * len(sheet.columns),
        *(f"| {' | '.join(row)} |" for row in sheet.rows),
    ]
    return "\n".join(lines) + "\n"


def draw(errors: dict[str, tuple[list[float], np.ndarray]], path: pathlib.Path) -> None:
    """Error by decay, one line a rate, one panel a kind of decay."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=160, layout="constrained")
    names = [name for name in errors if name.startswith("momentum")]
    panels = figure.subplots(1, len(names), sharey=True)
    for axes, name in zip(panels, names):
        rates, error = errors[name]
        for rate, line, colour in zip(rates, error, ("#0072B2", "#E69F00", "#D55E00")):
            axes.plot(
                DECAYS, line, "o-", color=colour, markersize=4, label=f"rate {rate:g}"
            )
            least = int(line.argmin())
            axes.plot(DECAYS[least], line[least], "o", color=colour, markersize=10)
        axes.set(xscale="log", yscale="log", title=name, xlabel="decay")
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("error (large mark: the best decay)")
    panels[0].legend(frameon=False)
    figure.savefig(path)


SHEETS: dict[str, Callable[[int], Sheet]] = {
    "spikes": spiked,
    "tails": tailed,
    "estimates": estimated,
    "rotation": turned,
    "grokking": grokked,
    "memorizing": memorized,
    "pruning": pruned,
    "games": played,
    "units": scaled,
    "memory": weighed,
}


def main() -> None:
    """Run the experiments, print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="reported; as many choose")
    parser.add_argument("--only", default=",".join([*SHEETS, "decay"]))
    parser.add_argument("--out", type=pathlib.Path, help="write the tables as Markdown")
    parser.add_argument("--picture", type=pathlib.Path, help="draw the decay's as PNG")
    args = parser.parse_args()
    head = (
        "# What docs/how_to_choose.md measured\n\nWritten by `benchmarks/choose.py`.\n"
    )
    texts = [head]
    for name in args.only.split(","):
        clock = time.perf_counter()
        if name == "decay":
            errors = errors_of_decay(args.seeds)
            sheet = decayed(errors)
            if args.picture:
                draw(errors, args.picture)
        else:
            sheet = SHEETS[name](args.seeds)
        texts.append(markdown(sheet))
        print(texts[-1], f"({time.perf_counter() - clock:.0f} s)\n", flush=True)
    if args.out:
        args.out.parent.mkdir(exist_ok=True)
        args.out.write_text("\n".join(texts))


if __name__ == "__main__":
    main()
