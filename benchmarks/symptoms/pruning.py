"""Groups that should go."""

import jax
import numpy as np

import gradkit as gk
from gradkit._lab.claims import pruning
from gradkit._lab.claims.run import product

from .sheet import Make, Sheet, chained, number


def pruned(seeds: int) -> Sheet:
    """Groups that should go."""
    steps, rates, penalties = 600, [0.01, 0.03], [0.01, 0.03, 0.1, 0.3, 1.0]
    axes = (-2,)
    half = lambda eps: (
        lambda r, s: [
            r,
            gk.shrink_by_half_space(s * r, eps=eps, warmup=steps // 2, axes=axes),
        ]
    )
    methods: dict[str, Make] = {
        "no penalty": lambda r, s: [r],
        "shrink_by_group_lasso": lambda r, s: [
            r,
            gk.shrink_by_group_lasso(s * r, axes=axes),
        ],
        "shrink_by_nonconvex": lambda r, s: [
            r,
            gk.shrink_by_nonconvex(s * r, plateau=3 * s),
        ],
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
