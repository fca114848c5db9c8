"""Law 24."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.versions import enable_x64
from gradkit.testing._compare import numbers, require
from gradkit.testing._law import law
from gradkit.testing._subject import Subject, copies

UPDATES = 12
TOLERANCE = 1e-2  # of a leaf's largest entry


@law(24)
def follows_float64(s: Subject) -> None:
    """Updates in float32 are those in float64, also of gradients that lack rank.

    Where this does not hold, rounding comes out at the size of updates: weights that have no
    gradient move, by more than what parameters are rounded to. Of a key both must draw the same
    numbers, so they are drawn in one dtype.
    """
    cases = {"of one example": one_example(s.shapes), "of many": many(s.shapes)}
    largest = lambda x: np.max(np.abs(x), initial=0)
    one_unit = {k: np.spacing(largest(p)) for k, p in small(s).items()}
    for what, g in cases.items():
        for t, (got, want) in enumerate(zip(narrow(s, g), wide(s, g), strict=True), 1):
            for path, due in want.items():
                error = largest(numbers(got[path]) - due)
                require(
                    error <= TOLERANCE * largest(due) + one_unit[path],
                    f"update {t} of leaf {path!r} with one gradient {what} must be that "
                    f"in float64, of entries up to {largest(due):.3g}, within {TOLERANCE:g} "
                    f"of it, got an error of {error:.3g}",
                )


def one_example(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Matrices of rank one, whose first row is zero; of other leaves the first is zero.

    Products of numbers of 11 bits, which float32 holds: what it rounds would have full rank.
    """
    rng = np.random.default_rng(0)
    draw = lambda *shape: np.round(rng.uniform(-1, 1, shape) * 2**11) / 2**11

    def leaf(shape: tuple[int, ...], zero: bool) -> np.ndarray:
        if len(shape) < 2:
            return draw(*shape) * (not zero)
        rows = draw(*shape[:-1], 1)
        rows.reshape(-1)[:1] = 0
        return rows * draw(shape[-1])

    flat = [k for k, shape in shapes.items() if len(shape) < 2]
    return {k: leaf(shape, k in flat[:1]) for k, shape in shapes.items()}


def many(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Numbers without any structure."""
    rng = np.random.default_rng(1)
    return {k: rng.normal(size=shape) for k, shape in shapes.items()}


def small(s: Subject) -> dict[str, np.ndarray]:
    """Parameters that curved updates at them do not grow with."""
    return {k: (numbers(p) / 16).astype(np.float32) for k, p in s.params.items()}


def narrow(s: Subject, g: dict[str, np.ndarray]) -> list[Any]:
    """The updates in float32."""
    to_float32 = lambda x: jnp.asarray(x, jnp.float32)
    grads, params = jax.tree.map(to_float32, (g, small(s)))
    state, out = s.tx.init(params), []
    for _ in range(UPDATES):
        state, _, updates = s.donating_step(grads, copies(state), copies(params))
        out.append(updates)
    return out


def wide(s: Subject, g: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The updates of the same numbers in float64."""
    with enable_x64():
        exact = lambda x: jnp.asarray(np.float32(x), jnp.float64)
        grads, params = jax.tree.map(exact, (g, small(s)))
        update, state, out = jax.jit(s.update), s.tx.init(params), []
        for _ in range(UPDATES):
            updates, state = update(grads, state, params)
            out.append({k: numbers(x) for k, x in updates.items()})
        return out
