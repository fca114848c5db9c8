"""What does training in low precision cost: in loss, and in time a step?

Loss: a byte transformer, whose parameters are in bfloat16 between two steps, is trained from the same
seeds on the same batches as in float32. The network itself computes in float32 from those parameters,
so that what differs is parameters, gradients, which arrive in bfloat16, and state. The difference is of held-out losses, seed by
seed, with its 95 % interval of Student's t; `sd` is how far seeds are apart in float32.

Time: update and apply, donated, in turn with AdamW in float32; the columns are those of
`benchmarks/roofline.py`, but `times float32` is the time of a step over that of AdamW in float32, and `floor`
the same for the bytes that must move.

    python benchmarks/precision.py --out benchmarks/results
"""

import argparse
import math
import pathlib
import platform
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import roofline

import gradkit as gk
from gradkit._lab import tasks, text

QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
CONTEXT = 32  # bytes
HELD_OUT = 1024  # windows of the test split, 64 at once


class Setup(NamedTuple):
    """One way to train."""

    dtype: Any  # of the parameters
    make: Callable[[Any], Any]  # rate -> transform


def stored(recipe: Any, store: Any, rounded: Any) -> Setup:
    """`recipe` with its state under `store`, landing on bfloat16 by `rounded`."""
    make = lambda rate: gk.chain(store(recipe(rate)), rounded())
    return Setup(jnp.bfloat16, make)


def adamw(rate: Any) -> Any:
    """AdamW with the weight decay of the races."""
    return gk.adamw(rate, weight_decay=0.01)


FLOAT32 = {
    "adamw": Setup(jnp.float32, adamw),
    "muon": Setup(jnp.float32, gk.muon),
}
LOW = {
    "optax.adamw": Setup(
        jnp.bfloat16, lambda rate: optax.adamw(rate, weight_decay=0.01)
    ),
    "store_by_bfloat16(adamw), round_by_kahan": stored(
        adamw, gk.store_by_bfloat16, gk.round_by_kahan
    ),
    "store_by_int8(adamw), round_by_error_correction": stored(
        adamw, gk.store_by_int8, gk.round_by_error_correction
    ),
    "store_by_int8(adamw), round_by_stochastic": stored(
        adamw, gk.store_by_int8, gk.round_by_stochastic
    ),
    "store_by_int8(muon), round_by_error_correction": stored(
        gk.muon, gk.store_by_int8, gk.round_by_error_correction
    ),
}


def held_out_losses(
    setup: Setup, rates: list[float], task: gk.Task, test: Any, steps: int, seeds: int
) -> np.ndarray:
    """The last losses `test`, `[rates, seeds]`."""
    wide = lambda t: jax.tree.map(lambda p: p.astype(jnp.float32), t)

    def run(rate: jax.Array, key: jax.Array) -> jax.Array:
        first, draws = jax.random.split(key)
        schedule = gk.schedule_by_linear_decay(rate, steps=steps, warmup=steps // 10)
        tx = setup.make(schedule)
        params = jax.tree.map(lambda p: p.astype(setup.dtype), task.init(first))

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            params, state = carry
            grads = jax.grad(lambda p: task.loss(wide(p), task.data(key)))(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = params, tx.init(params)
        (params, _), _ = jax.lax.scan(step, start, jax.random.split(draws, steps))
        return test(wide(params))

    runs = jax.jit(jax.vmap(run, (None, 0)))
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    found = [runs(jnp.float32(x), keys) for x in rates]
    jax.clear_caches()
    return np.asarray(found)


def losses(task: gk.Task, steps: int, seeds: int, rates: list[float]) -> str:
    """A table of held-out losses beside those in float32."""
    windows = tasks.windows(text.standard_library().test, CONTEXT)
    test = tasks.held_out(task.loss, windows, 64, HELD_OUT // 64)
    lines = [
        "| rate | | loss | sd over seeds | minus float32 | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    rows: list[tuple[float, str]] = []
    for recipe, plain in FLOAT32.items():
        named = {f"{recipe}, float32": plain}
        named |= {k: v for k, v in LOW.items() if recipe in k}
        want = None
        for name, setup in named.items():
            got = held_out_losses(setup, rates, task, test, steps, seeds)
            want = got if want is None else want
            for rate, ours, gap in zip(rates, got, got - want):
                cells = [f"{ours.mean():.4f}", f"{ours.std(ddof=1):.4f}"]
                half = QUANTILE[seeds] * gap.std(ddof=1) / math.sqrt(seeds)
                low, high = gap.mean() - half, gap.mean() + half
                cells += [f"{gap.mean():+.4f}", f"{low:+.4f} to {high:+.4f}"]
                cells = [*cells[:2], "", ""] if got is want else cells
                rows.append((rate, f"| {rate:g} | `{name}` | {' | '.join(cells)} |"))
                print(rows[-1][1], flush=True)
    return "\n".join(lines + [row for _, row in sorted(rows, key=lambda x: x[0])])


def times(side: int, leaves: int, rounds: int, calls: int) -> str:
    """A table of step times beside AdamW's in float32."""
    draw = lambda key: 0.02 * jax.random.normal(key, (side, side))
    keys = jax.random.split(jax.random.key(0), 2 * leaves)
    params, grads = [*map(draw, keys[:leaves])], [*map(draw, keys[leaves:])]

    def step(setup: Setup) -> roofline.Step:
        cast = lambda t: [x.astype(setup.dtype) for x in t]
        tx = setup.make(roofline.RATE)
        return roofline.of_transform(tx, cast(params), cast(grads))

    plain = step(FLOAT32["adamw"])
    lines = [
        "| | bytes | XLA | between | ns | times float32 | floor |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    size = leaves * side**2
    setups = {"adamw, float32": FLOAT32["adamw"]} | LOW
    for name, setup in setups.items():
        if "muon" in name:
            continue
        ours = step(setup)
        pairs = [
            (roofline.seconds(ours, calls), roofline.seconds(plain, calls))
            for _ in range(rounds + 1)
        ][1:]
        ns = 1e9 * statistics.median(x for x, _ in pairs) / size
        ratio = statistics.median(x / y for x, y in pairs)
        cells = [
            f"`{name}`",
            f"{ours.floor:.0f}",
            f"{ours.xla:.0f}",
            f"{ours.between:.1f}",
            f"{ns:.2f}",
        ]
        lines.append(
            f"| {' | '.join(cells)} | {ratio:.2f} | {ours.floor / plain.floor:.2f} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    """Measure both, print the tables, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5, choices=QUANTILE)
    parser.add_argument("--rates", default="1e-3,1e-2", help="by commas")
    parser.add_argument("--side", type=int, default=1024, help="of a square leaf")
    parser.add_argument("--leaves", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=2, help="steps in one timing")
    parser.add_argument("--only", choices=["losses", "times"])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    task = tasks.next_byte(context=CONTEXT)
    parts = [
        f"""# Training in low precision

On {jax.devices()[0].device_kind}, Python {platform.python_version()}, JAX {jax.__version__}, optax {optax.__version__}. `python benchmarks/precision.py --out benchmarks/results` measures it.
"""
    ]
    if args.only != "times":
        rates = [float(x) for x in args.rates.split(",")]
        table = losses(task, args.steps, args.seeds, rates)
        parts.append(f"""## Loss

{task.summary}; {args.steps} steps, {args.seeds} seeds; held-out loss of {HELD_OUT} windows, in nats a byte.

{table}
""")
    if args.only != "losses":
        table = times(args.side, args.leaves, args.rounds, args.calls)
        parts.append(f"""## Time a step

{args.leaves} leaves of {args.side} x {args.side}, median of {args.rounds}. `bytes` must move for a parameter; `XLA` is what the operations of the compiled step read and
write in all, `between` the bytes of arrays that live only within a step, `ns` the time for a parameter.

{table}
""")
    if args.out:
        (args.out / "precision.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
