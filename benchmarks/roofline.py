"""How near are the recipes that work entry by entry to one pass over memory?

The floor of a step is what must be read and written once: gradient, parameter and state read,
parameter and state written. `bytes` is that floor for a parameter, `XLA` what the operations of
the compiled step read and write in all (much of it from caches), `between` the bytes of arrays that
live only within a step, new memory each time, `ns` the measured time for a parameter, and `times
floor` that time over the floor at the bandwidth of AdamW's step in the same run. optax's methods of the same name and torch's fused
AdamW, where torch is installed, run in turn with ours, so that a drifting machine drifts for all.

    python benchmarks/roofline.py --side 1024 --leaves 24 --rounds 15
"""

import argparse
import functools
import importlib.util
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradkit as gk

RATE = 1e-3
OURS = [
    "adamw",
    "sgd",
    "lion",
    "adan",
    "stable_spam",
    "zclip_adamw",
    "diffgrad",
    "mars",
    "lamb",
    "adamp",
    "adam_atan2",
    "ademamix",
    "adagc",
    "grams",
    "novograd",
    "amsgrad",
    "innaprop",
    "adabound",
    "amsbound",
    "adamomentum",
    "opt_amsgrad",
    "lars",
    "lawn",
    "lion_kappa",
    "madgrad",
    "gravity",
    "sgdp",
    "adamw_subset_norm",
]
OPTAX: dict[str, Callable[[], Any]] = {
    "adamw": lambda: optax.adamw(RATE),
    "lion": lambda: optax.lion(RATE),
    "adan": lambda: optax.adan(RATE),
    "lamb": lambda: optax.lamb(RATE),
    "clip + adamw": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(RATE)
    ),
    "ademamix": lambda: optax.contrib.ademamix(RATE),
    "novograd": lambda: optax.novograd(RATE),
    "amsgrad": lambda: optax.amsgrad(RATE),
}


class Step(NamedTuple):
    """A compiled step, what it carries, and its bytes a parameter."""

    run: Callable[[Any], Any]  # carry -> carry
    carry: list[Any]
    floor: float
    xla: float | None = None
    between: float | None = None


def of_transform(tx: Any, params: Any, grads: Any) -> Step:
    """Update and apply in one donated program."""

    def step(carry: Any, grads: Any) -> Any:
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = (jax.tree.map(jnp.copy, params), jax.jit(tx.init)(params))
    run = jax.jit(step, donate_argnums=0).lower(carry, grads).compile()
    cost: Any = run.cost_analysis()
    size = sum(x.size for x in params)
    floor = (2 * nbytes(carry) + nbytes(grads)) / size
    xla = cost["bytes accessed"] / size
    memory: Any = run.memory_analysis()
    between = memory.temp_size_in_bytes / size
    return Step(lambda carry: run(carry, grads), [carry], floor, xla, between)


def nbytes(t: Any) -> int:
    """Bytes of all arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(t))


def of_torch(params: Any, threads: int) -> Step | None:
    """torch's fused AdamW; None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(threads)
    leaves = [torch.ones(p.shape, requires_grad=True) for p in params]
    for leaf in leaves:
        leaf.grad = torch.full_like(leaf, 0.1)
    opt = torch.optim.AdamW(leaves, lr=RATE, fused=True)
    return Step(lambda carry: opt.step(), [None], 28.0)


def seconds(step: Step, calls: int) -> float:
    """Mean seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        step.carry[0] = step.run(step.carry[0])
    jax.block_until_ready(step.carry)
    return (time.perf_counter() - start) / calls


def main() -> None:
    """Measure all in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="of a square leaf")
    parser.add_argument("--leaves", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=3, help="steps in one timing")
    parser.add_argument("--only", default=",".join(OURS), help="recipes, by commas")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--out", type=pathlib.Path, help="folder for roofline_table.md")
    args = parser.parse_args()
    keys = jax.random.split(jax.random.key(0), 2 * args.leaves)
    draw = lambda key: 0.02 * jax.random.normal(key, (args.side, args.side))
    params, grads = (
        [draw(k) for k in keys[: args.leaves]],
        [draw(k) for k in keys[args.leaves :]],
    )
    size = sum(p.size for p in params)
    names = args.only.split(",")
    makers: dict[str, Callable[[], Step | None]] = {
        **{
            f"`{n}`": functools.partial(
                of_transform, getattr(gk, n)(RATE), params, grads
            )
            for n in names
        },
        **{
            f"optax {n}": functools.partial(of_transform, make(), params, grads)
            for n, make in OPTAX.items()
            if n in names or n == "clip + adamw"
        },
        "torch fused AdamW": functools.partial(of_torch, params, args.threads),
    }
    adamw = of_transform(gk.adamw(RATE), params, grads)
    print(
        f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}, "
        f"float32, {args.leaves} leaves of {args.side} x {args.side}, median of {args.rounds}\n"
    )
    lines = [
        "| | bytes | XLA | between | ns | times floor |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name, make in makers.items():
        step = make()
        if step is None:
            continue
        pairs = [
            (seconds(step, args.calls), seconds(adamw, args.calls))
            for _ in range(args.rounds + 1)
        ][1:]
        ns = 1e9 * statistics.median(ours for ours, _ in pairs) / size
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        times = ratio * adamw.floor / step.floor
        seen = ["" if x is None else f"{x:.0f}" for x in (step.xla, step.between)]
        lines.append(
            f"| {name} | {step.floor:.0f} | {' | '.join(seen)} | {ns:.2f} | {times:.2f} |"
        )
        print(lines[-1], flush=True)
    if args.out:
        (args.out / "roofline_table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
