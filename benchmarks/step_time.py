"""Is any recipe slower than optax's of the same name? Step time, compile time, state bytes.

One run measures both sides in turn, so that a drifting machine drifts for both; the ratio is the
median of the ratios of neighbouring rounds. Below 1 gradkit is faster, or smaller.

    python benchmarks/step_time.py --width 256 --layers 6 --rounds 15
"""

import argparse
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradkit as gk

PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "sgd": (
        lambda: gk.sgd(1e-3, momentum=0.9),
        lambda: optax.sgd(1e-3, momentum=0.9),
    ),
    "adamw": (lambda: gk.adamw(1e-3), lambda: optax.adamw(1e-3)),
    "ademamix": (lambda: gk.ademamix(1e-3), lambda: optax.contrib.ademamix(1e-3)),
    "lion": (lambda: gk.lion(1e-3), lambda: optax.lion(1e-3)),
    "novograd": (lambda: gk.novograd(1e-3), lambda: optax.novograd(1e-3)),
    "muon": (lambda: gk.muon(1e-3), lambda: optax.contrib.muon(1e-3)),
    "galore": (
        lambda: gk.galore(1e-3, rank=32, every=10**6),
        lambda: optax.contrib.galore(1e-3, rank=32, update_proj_gap=10**6),
    ),
}


def gpt_like(width: int, layers: int) -> dict[str, Any]:
    """Parameter shapes of a small decoder: embedding, attention, MLP, gains."""
    block = {
        "qkv": (width, 3 * width),
        "proj": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "norm": (width,),
    }
    shapes = {f"layer{i}": block for i in range(layers)} | {"embed": (256, width)}
    is_shape = lambda x: isinstance(x, tuple)
    count = iter(range(10**6))
    draw = lambda s: 0.02 * jax.random.normal(jax.random.key(next(count)), s)
    return jax.tree.map(draw, shapes, is_leaf=is_shape)


def step_of(tx: Any) -> Callable[..., Any]:
    """Update and apply, as a training loop does."""

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def compiled(make: Callable[[], Any], params: Any) -> tuple[list[float], Any, Any]:
    """Seconds to trace and compile one step, three times; the step; and its first state."""
    tx = make()
    state = jax.jit(tx.init)(params)

    def build() -> tuple[float, Any]:
        jax.clear_caches()
        jitted = jax.jit(step_of(tx), donate_argnums=(0, 1))
        start = time.perf_counter()
        step = jitted.lower(params, state, params).compile()
        return time.perf_counter() - start, step

    builds = [build() for _ in range(3)]
    return [took for took, _ in builds], builds[-1][1], state


def seconds(step: Any, carry: list[Any], grads: Any, calls: int) -> float:
    """Mean seconds a call over `calls` calls; `carry` holds params and state."""
    start = time.perf_counter()
    for _ in range(calls):
        carry[:] = step(*carry, grads)
    jax.block_until_ready(carry)
    return (time.perf_counter() - start) / calls


def compare(name: str, params: Any, rounds: int, calls: int) -> dict[str, Any]:
    """One row: both sides in turn, `rounds` times, after the step that refreshes bases."""
    grads = jax.tree.map(lambda p: 0.1 * p + 1e-3, params)
    copy = functools.partial(jax.tree.map, jnp.copy)
    compiles, steps, carries, state_bytes = [], [], [], []
    for side, make in enumerate(PAIRS[name]):
        took, step, state = compiled(make, params)
        compiles.append(took)
        steps.append(step)
        carries.append([copy(params), state])
        state_bytes.append(sum(x.nbytes for x in jax.tree.leaves(state)))
        seconds(step, carries[side], grads, 1)
    times = [
        [seconds(steps[side], carries[side], grads, calls) for side in (0, 1)]
        for _ in range(rounds)
    ]
    medians = [statistics.median(t[side] for t in times) for side in (0, 1)]
    return {
        "recipe": name,
        "step_ms": [1e3 * m for m in medians],
        "step_ratio": statistics.median(ours / theirs for ours, theirs in times),
        "compile_s": [min(c) for c in compiles],
        "compile_ratio": min(compiles[0]) / min(compiles[1]),
        "state_mb": [b / 1e6 for b in state_bytes],
        "state_ratio": state_bytes[0] / max(state_bytes[1], 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| recipe | step ms | optax | ratio | compile s | optax | ratio | state MB | optax | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [
            f"{r[k][0]:.2f} | {r[k][1]:.2f} | **{r[q]:.2f}**"
            for k, q in (
                ("step_ms", "step_ratio"),
                ("compile_s", "compile_ratio"),
                ("state_mb", "state_ratio"),
            )
        ]
        lines.append(f"| {r['recipe']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of timings")
    parser.add_argument("--calls", type=int, default=5, help="steps in one timing")
    parser.add_argument(
        "--only", default=",".join(PAIRS), help="recipes, comma-separated"
    )
    parser.add_argument("--out", type=pathlib.Path, help="also write the rows as JSON")
    args = parser.parse_args()
    params = gpt_like(args.width, args.layers)
    sizes = [x.size for x in jax.tree.leaves(params)]
    print(
        f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}, "
        f"float32, {len(sizes)} leaves, {sum(sizes) / 1e6:.2f} M parameters "
        f"(width {args.width}, {args.layers} layers), gradkit beside optax\n"
    )
    rows = [
        compare(name, params, args.rounds, args.calls) for name in args.only.split(",")
    ]
    print(table(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
