"""What does matrix work cost: beside optax's Muon, beside the machine, and beside momentum?

One run measures all sides in turn, so that a drifting machine drifts for all; ratios are medians
of the ratios of neighbouring rounds. Three questions:

1. `muon` beside `optax.contrib.muon` on small decoders: step and compile time, and the share of
   the rate at which this machine multiplies matrices of that width.
2. Is the cost of compiling matrix work one for all leaves of a shape, or one for each? `muon`
   beside `sgd` with momentum on 10 to 2,000 matrices, each a leaf, or all of them one leaf.
3. What do the published coefficients cost?

    python benchmarks/matrix.py --out benchmarks/results/matrix.md
"""

import argparse
import functools
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from step_time import compare, gpt_like, seconds, step_of

import gradkit as gk
from gradkit._core.matrix import newton_schulz, polar


def products(
    shape: tuple[int, ...], steps: newton_schulz.Coefficients = newton_schulz.JORDAN
) -> float:
    """The flops of the matrix products of one polar factor."""
    small, large = sorted(shape)
    flops = 0
    for run in polar.runs(steps, (small, large), jnp.float32):
        squares = sum(c != 0 for _, _, c in run)
        flops += 4 * small**2 * large + 2 * small**3 * (squares + 3 * len(run) - 3)
    return flops


def product_seconds(width: int, calls: int = 20) -> float:
    """The least time of one `[width, width] @ [width, 4 * width]`."""
    a, b = jnp.ones((width, width)), jnp.ones((width, 4 * width))
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(a, b))
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(multiply(a, b))
        times.append(time.perf_counter() - start)
    return min(times)


def beside_optax(width: int, layers: int, rounds: int, calls: int) -> str:
    """One row: both Muons on a decoder, and the rate of ours beside that of one product."""
    params = gpt_like(width, layers)
    row = compare("muon", params, rounds, calls)
    matrices = (row.matrix for row in gk.routes(gk.muon(), params))
    flops = sum(products(matrix) for matrix in matrices if matrix is not None)
    rate = flops / row["step_ms"][0] / 1e6
    peak = 8 * width**3 / product_seconds(width) / 1e9
    (ours, theirs), (c_ours, c_theirs) = row["step_ms"], row["compile_s"]
    return (
        f"| {width} | {layers} | {ours:.1f} | {theirs:.1f} | **{row['step_ratio']:.2f}** | "
        f"{c_ours:.2f} | {c_theirs:.2f} | **{row['compile_ratio']:.2f}** | "
        f"{rate:.0f} | {peak:.0f} | {rate / peak:.0%} |"
    )


def against_count(count: int, shape: tuple[int, int], rounds: int, calls: int) -> str:
    """One row: Muon on `count` leaves, Muon on one stack of them, and momentum on the leaves."""
    leaves = {
        f"w{i}": 0.02 * jax.random.normal(jax.random.key(i), shape)
        for i in range(count)
    }
    sides: dict[str, tuple[Callable[[], Any], Any]] = {
        "leaves": (lambda: gk.muon(1e-3), leaves),
        "stack": (
            lambda: gk.muon(1e-3, batch_axes=(0,)),
            {"w": jnp.stack(list(leaves.values()))},
        ),
        "sgd": (lambda: gk.sgd(1e-3, momentum=0.9), leaves),
    }
    compiles: dict[str, float] = {}
    runs: dict[str, Callable[[int], float]] = {}
    for name, (make, params) in sides.items():
        tx = make()
        state = jax.jit(tx.init)(params)
        jax.clear_caches()
        start = time.perf_counter()
        jitted = jax.jit(step_of(tx), donate_argnums=(0, 1))
        step = jitted.lower(params, state, params).compile()
        compiles[name] = time.perf_counter() - start
        carry = [jax.tree.map(jnp.copy, params), state]
        runs[name] = functools.partial(seconds, step, carry, params)
        runs[name](1)
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run(calls))
    ms = {name: 1e3 * statistics.median(t) for name, t in times.items()}
    return (
        f"| {count} | {ms['leaves']:.1f} | {ms['stack']:.1f} | {ms['sgd']:.1f} | "
        f"{compiles['leaves']:.2f} | {compiles['stack']:.2f} | {compiles['sgd']:.2f} | "
        f"{compiles['leaves'] - compiles['sgd']:.2f} |"
    )


def against_sets(width: int, rounds: int) -> list[str]:
    """Rows: the time of one `[width, 4 * width]` polar factor by each published set."""
    x = jax.random.normal(jax.random.key(0), (width, 4 * width))
    steps = {
        k: v for k, v in vars(newton_schulz).items() if k.isupper() and k[0] != "_"
    }
    run = {
        k: jax.jit(functools.partial(polar.polar_factor, eps=0.0, coefficients=v))
        for k, v in steps.items()
    }
    times: dict[str, list[float]] = {k: [] for k in run}
    for _ in range(rounds + 1):
        for name, f in run.items():
            start = time.perf_counter()
            jax.block_until_ready(f(x))
            times[name].append(time.perf_counter() - start)
    values = {k: jnp.linalg.svd(f(x), compute_uv=False) for k, f in run.items()}
    return [
        f"| {k} | {len(steps[k])} | {products(x.shape, steps[k]) / 1e6:.0f} | "
        f"{1e3 * statistics.median(times[k][1:]):.1f} | "
        f"{values[k].min():.3f} to {values[k].max():.3f} |"
        for k in steps
    ]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="128,256,512")
    parser.add_argument("--layers", default="6")
    parser.add_argument("--counts", default="10,100,400,2000")
    parser.add_argument("--side", type=int, default=64, help="of the counted matrices")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2, help="steps in one timing")
    parser.add_argument("--out", type=pathlib.Path, help="also write the tables here")
    args = parser.parse_args()
    numbers = lambda text: [int(n) for n in text.split(",") if n]
    lines = [
        f"jax {jax.__version__}, optax {optax.__version__}, "
        f"{jax.devices()[0].device_kind}, float32. Medians of {args.rounds} rounds.\n",
        "## `muon` beside `optax.contrib.muon`\n",
        "| width | layers | step ms | optax | ratio | compile s | optax | ratio | "
        "GFLOP/s | one product | share |",
        "|" + "---|" * 11,
    ]
    for width in numbers(args.widths):
        for layers in numbers(args.layers):
            lines.append(beside_optax(width, layers, args.rounds, args.calls))
            print(lines[-1], flush=True)
    shape = (args.side, 2 * args.side)
    lines += [
        f"\n## `muon` on many matrices of {shape}, beside `sgd` with momentum\n",
        "| matrices | step ms, leaves | one stack | sgd | compile s, leaves | one stack | "
        "sgd | leaves - sgd |",
        "|" + "---|" * 8,
    ]
    for count in numbers(args.counts):
        lines.append(against_count(count, shape, 3, 1))
        print(lines[-1], flush=True)
    lines += [
        "\n## Published coefficients on a `[256, 1024]` matrix of noise\n",
        "| set | steps | MFLOP of products | ms | singular values |",
        "|" + "---|" * 5,
        *against_sets(256, args.rounds),
    ]
    print("\n" + "\n".join(lines))
    if args.out:
        args.out.write_text("# Matrix work\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
