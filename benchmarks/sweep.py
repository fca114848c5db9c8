"""How long does a sweep take, beside the same points trained one by one?

All train the byte transformer of `gradkit race` with AdamW at a grid of rates from several seeds. One by one is a
loop over compiled steps, the hyperparameters traced, so that it is compiled once as well: what most
people write. The floor is that loop in as many processes as there are cores, each on a core of its own with
its part of the rates: no way to use these cores for whole runs is faster. Seconds are whole, with
compilation, and for the training alone.

    python benchmarks/sweep.py --width 64 --steps 100 --rates 8 --seeds 2
"""

import argparse
import functools
import os
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit as gk
from gradkit._lab import tasks


def one_by_one(
    task: gk.Task, rates: list[float], steps: int, seeds: int
) -> tuple[np.ndarray, float, float]:
    """Losses `[rates, seeds, steps]`, seconds in all, and without the first step's compilation."""

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def step(rate: Any, params: Any, state: Any, key: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(task.loss)(params, task.data(key))
        updates, state = gk.adamw(rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    clock, compiled = time.perf_counter(), 0.0
    losses = np.zeros((len(rates), seeds, steps))
    for i, rate in enumerate(rates):
        for seed in range(seeds):
            first, batches = jax.random.split(jax.random.key(seed))
            params = jax.jit(task.init)(first)
            state, seen = gk.adamw(rate).init(params), []
            for key in jax.random.split(batches, steps):
                params, state, loss = step(jnp.float32(rate), params, state, key)
                seen.append(loss)
                compiled = compiled or time.perf_counter() - clock
            losses[i, seed] = jnp.stack(seen)
    whole = time.perf_counter() - clock
    return losses, whole, whole - compiled


def floor(args: argparse.Namespace, cores: list[int]) -> tuple[float, float]:
    """The slowest process of as many as there are cores: seconds in all, and for training."""
    asked = [f"--{k}={getattr(args, k)}" for k in ("width", "steps", "rates", "seeds")]
    command = [sys.executable, __file__, *asked]
    processes = [
        subprocess.Popen(
            [*command, f"--core={core}", f"--part={k}/{len(cores)}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for k, core in enumerate(cores)
    ]
    said = [process.communicate()[0].split() for process in processes]
    whole, training = np.array(said, float).max(axis=0)
    return whole, training


def main() -> None:
    """Measure all, and print how far losses are apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rates", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--core", type=int, help="train on this core alone")
    parser.add_argument("--part", help="of the rates, such as 0/2")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})  # before JAX counts its threads
    task = tasks.next_byte(width=args.width)
    rates = np.geomspace(1e-3, 1e-1, args.rates).tolist()
    if args.part:
        k, parts = map(int, args.part.split("/"))
        print(*one_by_one(task, rates[k::parts], args.steps, args.seeds)[1:])
        return

    clock = time.perf_counter()
    found = gk.sweep(
        gk.adamw,
        {"learning_rate": rates},
        task.loss,
        task.data,
        args.steps,
        init=task.init,
        seeds=args.seeds,
    )
    swept = time.perf_counter() - clock
    losses, looped, training = one_by_one(task, rates, args.steps, args.seeds)
    lowest, lowest_training = floor(args, cores)
    runs = args.rates * args.seeds
    apart = float(np.max(np.abs(losses[..., -10:] - found.losses[..., -10:])))
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {len(cores)} cores, width "
        f"{args.width}, {runs} runs of {args.steps} steps\n"
        f"one by one {looped:.1f} s, {training:.1f} s without compilation\n"
        f"sweep {swept:.1f} s, {swept / looped:.2f} of one by one\n"
        f"floor {lowest:.1f} s, {lowest / looped:.2f}; without compilation "
        f"{lowest_training:.1f} s, {lowest_training / training:.2f}\n"
        f"last losses of the sweep at most {apart:.2g} from those of the loop"
    )


if __name__ == "__main__":
    main()
