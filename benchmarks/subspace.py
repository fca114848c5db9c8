"""What does a subspace cost? Ordinary steps, steps that renew bases, and state bytes.

Ordinary and renewing steps of GaLore beside optax's, which takes the singular vectors of whole
gradients and always projects the large side; then each basis beside a fixed one, on the same inner
transform. All sides are measured in turn, so that a drifting machine drifts for all;
a ratio is the median of the ratios of neighbouring rounds. Below 1 gradkit is faster, or smaller.
Decompositions are LAPACK's: `OPENBLAS_NUM_THREADS=1` keeps its threads from waiting for XLA's.

    python benchmarks/subspace.py --width 256 --rank 64 --rounds 9
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradkit as gk

NEVER = 10**6  # updates until the next renewal


def by_normals(inner: Any, rank: int, every: int) -> Any:
    """`project_by_random` with the paper's Gaussian sketch in place of Rademacher's."""
    return gk.subspace.project(
        inner,
        rank,
        basis=gk.subspace.gaussian(),
        schedule=gk.subspace.every_n(every),
        residual=gk.subspace.norm_matched(),
    )


BASES: dict[str, Callable[..., Any]] = {
    "svd": gk.project_by_svd,
    "range_finder": gk.project_by_range_finder,
    "power_iteration": gk.project_by_power_iteration,
    "random": gk.project_by_random,
    "random, normal": by_normals,
    "grass_walk": gk.project_by_grass_walk,
    "grass_jump": gk.project_by_grass_jump,
    "fira": gk.project_by_fira,
}


class Side:
    """One compiled step that updates and applies, and what it is carried on."""

    def __init__(self, tx: Any, params: Any):
        """Compile nothing yet."""
        tx = optax.with_extra_args_support(tx)

        def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.carry = [jax.tree.map(jnp.copy, params), jax.jit(tx.init)(params)]
        self.nbytes = sum(x.nbytes for x in jax.tree.leaves(self.carry[1]))

    def seconds(self, grads: Any, calls: int) -> float:
        """Mean seconds a call."""
        start = time.perf_counter()
        for _ in range(calls):
            self.carry[:] = self.step(*self.carry, grads)
        jax.block_until_ready(self.carry)
        return (time.perf_counter() - start) / calls


def in_turn(
    txs: list[Any], params: Any, rounds: int, calls: int
) -> list[tuple[float, float, int]]:
    """Of each: median seconds of a step, median ratio to the first, bytes of its state."""
    sides = [Side(tx, params) for tx in txs]
    grads = jax.tree.map(lambda p: 0.1 * p + 1e-3, params)
    for side in sides:
        side.seconds(grads, 1)  # compiles, and finds the first bases
    times = [[side.seconds(grads, calls) for side in sides] for _ in range(rounds)]
    return [
        (
            statistics.median(t[i] for t in times),
            statistics.median(t[i] / t[0] for t in times),
            side.nbytes,
        )
        for i, side in enumerate(sides)
    ]


def matrices(width: int, shape: tuple[int, int], count: int) -> dict[str, jax.Array]:
    """`count` random matrices of `shape`, in units of the width."""
    rows, cols = (width * n for n in shape)
    draw = lambda i: jax.random.normal(jax.random.key(i), (rows, cols))
    return {f"w{i}": draw(i) for i in range(count)}


def beside_optax(width: int, rank: int, rounds: int) -> list[str]:
    """GaLore: the ordinary step, and the step that renews."""
    lines = [
        "| matrix | step | gradkit ms | optax ms | time | state |",
        "|" + "---|" * 6,
    ]
    for shape in [(1, 1), (1, 3), (1, 4), (4, 1)]:
        params = matrices(width, shape, 2)
        for what, every, calls in [("ordinary", NEVER, 8), ("renewing", 1, 1)]:
            theirs = optax.contrib.galore(1e-3, rank=rank, update_proj_gap=every)
            exact = gk.galore(1e-3, rank=rank, every=every)
            large = gk.galore(1e-3, rank=rank, every=every, side="large")
            inner = gk.scale_by_adam(eps=1e-8)
            sketch = gk.project_by_range_finder(inner, rank=rank, every=every)
            sketch = gk.chain(sketch, gk.step_by_learning_rate(1e-3))
            rows = in_turn([theirs, exact, large, sketch], params, rounds, calls)
            for name, row in zip(
                ["svd", "svd of large side", "range_finder"], rows[1:]
            ):
                sides = f"{width * shape[0]} x {width * shape[1]}"
                lines.append(
                    f"| {sides} | {what}, {name} | {1e3 * row[0]:.2f} | "
                    f"{1e3 * rows[0][0]:.2f} | **{row[1]:.2f}** | "
                    f"{row[2] / rows[0][2]:.2f} |"
                )
    return lines


def beside_a_fixed_basis(width: int, rank: int, rounds: int) -> list[str]:
    """Each basis over 200 updates, beside a basis found once."""
    lines = ["| basis | step ms, over 200 | time | state MB |", "|---|---|---|---|"]
    params = matrices(width, (1, 4), 2)
    adam = gk.scale_by_adam()
    txs = [gk.project_by_svd(adam, rank=rank, every=NEVER)]
    txs += [make(adam, rank=rank, every=200) for make in BASES.values()]
    rows = in_turn(txs, params, max(rounds // 3, 1), 200)
    for name, row in zip(["fixed", *BASES], rows):
        lines.append(
            f"| {name} | {1e3 * row[0]:.2f} | **{row[1]:.2f}** | {row[2] / 1e6:.2f} |"
        )
    return lines


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device = jax.devices()[0].device_kind
    print(f"jax {jax.__version__}, optax {optax.__version__}, {device}, float32\n")
    print("\n".join(beside_optax(args.width, args.rank, args.rounds)), "\n")
    print("\n".join(beside_a_fixed_basis(args.width, args.rank, args.rounds)))


if __name__ == "__main__":
    main()
