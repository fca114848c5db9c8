"""How long does a sweep take, beside the same points trained one by one?

Both train the byte transformer of `gradkit race` with AdamW at a grid of rates from several seeds. One by one is a
loop over compiled steps, the hyperparameters traced, so that it is compiled once as well: what most
people write. Seconds are whole, with compilation, and for the training alone.

    python benchmarks/sweep.py --width 64 --steps 100 --rates 8 --seeds 2
"""

import argparse
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit as gk
from gradkit._lab import tasks


def main() -> None:
    """Measure both, and print how far their losses are apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rates", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    task = tasks.next_byte(width=args.width)
    rates = np.geomspace(1e-3, 1e-1, args.rates).tolist()

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

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def step(rate: Any, params: Any, state: Any, key: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(task.loss)(params, task.data(key))
        updates, state = gk.adamw(rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    clock = time.perf_counter()
    losses = np.zeros((args.rates, args.seeds, args.steps))
    for i, rate in enumerate(rates):
        for seed in range(args.seeds):
            first, batches = jax.random.split(jax.random.key(seed))
            params = jax.jit(task.init)(first)
            state, seen = gk.adamw(rate).init(params), []
            for key in jax.random.split(batches, args.steps):
                params, state, loss = step(jnp.float32(rate), params, state, key)
                seen.append(loss)
            losses[i, seed] = jnp.stack(seen)
    looped = time.perf_counter() - clock
    runs = args.rates * args.seeds
    apart = float(np.max(np.abs(losses[..., -10:] - found.losses[..., -10:])))
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, width {args.width}, "
        f"{runs} runs of {args.steps} steps\n"
        f"sweep {swept:.1f} s, one by one {looped:.1f} s, ratio {swept / looped:.2f}; "
        f"last losses at most {apart:.2g} apart"
    )


if __name__ == "__main__":
    main()
