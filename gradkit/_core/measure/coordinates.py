"""How activations, and their changes in training, grow with a model's size."""

from typing import Any, NamedTuple

import numpy as np

from gradkit._core import table
from gradkit._core.measure import fit
from gradkit._core.measure.fit import Estimate


class Power(NamedTuple):
    """Exponents of the model size: mean |x| and mean |change| of one site grow as these powers."""

    activation: Estimate
    change: Estimate


class Coordinates(NamedTuple):
    """Mean sizes of activations and of their changes, `[sizes, seeds, steps + 1, sites]`."""

    sizes: tuple[int, ...]
    sites: tuple[str, ...]  # names of the activations
    activation: np.ndarray  # mean |x_t|
    change: np.ndarray  # mean |x_t - x_0|

    def powers(self, step: int = -1) -> dict[str, Power]:
        """Fitted exponents by site, after `step` updates; by default after the last."""
        slopes = [
            fit.exponents(self.sizes, values[:, :, step])
            for values in (self.activation, self.change)
        ]
        return {
            site: Power(*(fit.mean(slope[:, i]) for slope in slopes))
            for i, site in enumerate(self.sites)
        }

    def failures(self, tolerance: float = 0.1, step: int = -1) -> dict[str, str]:
        """Failing sites, and why each fails.

        Activations must be finite, and must not grow by more than a power `tolerance` of the
        size. Changes must not be zero, and must neither grow nor vanish by more than that power.

        A power is beyond `tolerance` if its whole interval is. With one seed there is no
        interval, and the power itself counts.
        """
        verdicts = {}
        sizes = np.moveaxis(self.activation[:, :, step], -1, 0)
        for x, (site, (activation, change)) in zip(sizes, self.powers(step).items()):
            if not np.isfinite(x).all():
                verdicts[site] = "diverges"
            elif np.isnan(change.value):
                verdicts[site] = f"does not move{self._why(site)}"
            elif change.above(tolerance):
                verdicts[site] = "change grows"
            elif change.below(-tolerance):
                verdicts[site] = f"change vanishes{self._why(site) * self._zero(site)}"
            elif activation.above(tolerance):
                verdicts[site] = "grows"
        return verdicts

    def _why(self, site: str) -> str:
        """Reason for no change: this site, or a later one, is zero at initialization."""
        if self._zero(site):
            return " (starts at zero)"
        later = self.sites[self.sites.index(site) :]
        zeros = [s for s in later if self._zero(s)]
        return f" (below {zeros[-1]}, which starts at zero)" if zeros else ""

    def _zero(self, site: str) -> bool:
        """Whether all of an activation is zero before the first update."""
        return not self.activation[:, :, 0, self.sites.index(site)].any()

    def ok(self, tolerance: float = 0.1) -> bool:
        """Whether no site fails after the last update."""
        return not self.failures(tolerance)

    def table(self, tolerance: float = 0.1, step: int = -1) -> str:
        """One line per site: means at the first and last size, powers with intervals, verdict.

        The verdict is "more seeds would tell" if a power, but not its interval, is beyond
        `tolerance`.
        """
        first, last = self.sizes[0], self.sizes[-1]
        heads = [
            (f"{x} at {first}", f"at {last}", "power") for x in ("|x|", "|x - x0|")
        ]
        rows = [("site", *heads[0], *heads[1], "")]
        means = [v[:, :, step].mean(axis=1) for v in (self.activation, self.change)]
        failures = self.failures(tolerance, step)
        for i, (site, powers) in enumerate(self.powers(step).items()):
            beyond = max(powers.activation.value, abs(powers.change.value)) > tolerance
            verdict = failures.get(site, "more seeds would tell" if beyond else "")
            x, change = (
                (f"{mean[0, i]:.3g}", f"{mean[-1, i]:.3g}", str(power))
                for mean, power in zip(means, powers)
            )
            rows.append((site, *x, *change, verdict))
        return table.aligned(rows)

    def plot(self, axes: Any, step: int = -1) -> None:
        """Draw every site's mean change against the size on matplotlib's `axes`."""
        change = self.change[:, :, step].mean(axis=1)
        for i, site in enumerate(self.sites):
            axes.plot(self.sizes, change[:, i], "o-", label=site)
        axes.set(xscale="log", yscale="log", xlabel="size", ylabel="mean |x - x0|")
