"""Results from the losses of a recipe: the best rate, its curve, the steps to a target loss."""

from typing import Any

import numpy as np

Curve = list[float | None]  # None where not finite


def judge(
    rates: list[float], losses: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """Final losses at every rate and seed, the rate of lowest held-out loss, and its curve.

    `losses` are `[steps, rates, seeds]`, `held_out` `[rates, seeds]`.
    """
    curves = smooth(losses.astype(np.float64))
    mean = np.where(np.isfinite(held_out), held_out, np.inf).mean(axis=1)
    best = int(np.argmin(mean))
    return {
        "rates": rates,
        "final_train_loss": numbers(curves[-1]),
        "final_eval_loss": numbers(held_out.astype(np.float64)),
        "best_rate": rates[best],
        "best_at_edge": best in (0, len(rates) - 1),
        "curve": numbers(curves[:, best].mean(axis=-1)),
    }


def final(result: dict[str, Any], split: str = "eval") -> float:
    """The mean over seeds of a final loss at the best rate; infinite if a seed diverged."""
    losses = result[f"final_{split}_loss"][result["rates"].index(result["best_rate"])]
    return float("inf") if None in losses else sum(losses) / len(losses)


def smooth(losses: np.ndarray) -> np.ndarray:
    """Moving means over the latest tenth of all steps."""
    window = max(1, len(losses) // 10)
    means = [
        losses[max(0, i - window) : i].mean(axis=0) for i in range(1, len(losses) + 1)
    ]
    return np.stack(means)


def steps_to(curve: Curve, target: float | None) -> int | None:
    """The first step at which the curve is at most `target`; None if it never is."""
    if target is None:
        return None
    reached = (i + 1 for i, x in enumerate(curve) if x is not None and x <= target)
    return next(reached, None)


def numbers(array: np.ndarray) -> Any:
    """Nested lists of numbers, with None for non-finite ones."""
    if np.ndim(array):
        return [numbers(part) for part in array]
    return float(array) if np.isfinite(array) else None
