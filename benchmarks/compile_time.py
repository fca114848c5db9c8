"""How long does one step take to trace and to compile, as leaves become more?

Each number is from a process of its own, at XLA's default options: CPU seconds and seconds by the
clock, of lowering and of compiling, beside the same of optax's and beside the least that one can
do: a program that does no more than the arithmetic that cannot be left out.

    python benchmarks/compile_time.py --leaves 100,400,800 --only clip_adamw,novograd
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradkit as gk

BLOCK = [(64, 192), (64, 64), (64, 256), (256, 64), (64,), (64,), (256,), (192,)]
MATRICES = [(64, 64), (64, 256)]


def transform(tx: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The first state, and a step as a training loop does it."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return tx.init, step


def plain(step: Callable[..., Any], init: Callable[..., Any] = jnp.zeros_like) -> Any:
    """A step that is one function of each leaf's parameter, state and gradient."""
    return lambda p: jax.tree.map(init, p), step


def sums(p: Any, s: Any, g: Any) -> Any:
    """Gradient descent by one norm of all: one sum and one product a leaf."""
    squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(g)]
    factor = 1 / jnp.sqrt(jnp.sum(jnp.stack(squares)))
    return jax.tree.map(lambda p, g: p - factor * g, p, g), s


def leafwise(p: Any, s: Any, g: Any) -> Any:
    """Momentum: two numbers a leaf and entry are read and written."""
    s = jax.tree.map(lambda s, g: 0.9 * s + g, s, g)
    return jax.tree.map(lambda p, s: p - 0.1 * s, p, s), s


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "adamw": lambda: {
        "gradkit": transform(gk.adamw(1e-3)),
        "optax": transform(optax.adamw(1e-3)),
        "momentum alone": plain(leafwise),
    },
    "clip_adamw": lambda: {
        "gradkit": transform(
            gk.chain(gk.clip_by_global_norm(max_norm=1.0), gk.adamw(1e-3))
        ),
        "optax": transform(
            optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
        ),
        "norm alone": plain(sums),
    },
    "clip": lambda: {
        "gradkit": transform(gk.clip_by_global_norm(max_norm=1.0)),
        "optax": transform(optax.clip_by_global_norm(1.0)),
        "norm alone": plain(sums),
    },
    "novograd": lambda: {
        "gradkit": transform(gk.novograd(1e-3)),
        "optax": transform(optax.novograd(1e-3)),
        "norm alone": plain(sums),
    },
    "psgd": lambda: {
        "gradkit": transform(gk.psgd(1e-3)),
        "muon": transform(gk.muon(1e-3)),
    },
}


def measured(case: str, side: str, leaves: int) -> dict[str, float]:
    """Of one step: what it takes to lower and to compile, and how much it is."""
    init, step = CASES[case]()[side]
    shapes = MATRICES if case == "psgd" else BLOCK
    params = {
        f"w{i}": jax.ShapeDtypeStruct(shapes[i % len(shapes)], jnp.float32)
        for i in range(leaves)
    }
    state = jax.eval_shape(init, params)
    start = time.process_time(), time.perf_counter()
    lowered = jax.jit(step).lower(params, state, params)
    between = time.process_time(), time.perf_counter()
    text = str(lowered.compile().as_text())
    end = time.process_time(), time.perf_counter()
    return {
        "lower_cpu": between[0] - start[0],
        "compile_cpu": end[0] - between[0],
        "lower": between[1] - start[1],
        "compile": end[1] - between[1],
        "instructions": text.count(" = "),
        "kernels": len(re.findall(r" fusion\(", text)),
    }


def alone(case: str, side: str, leaves: int) -> dict[str, float]:
    """`measured`, in a process of its own."""
    command = [sys.executable, __file__, "--one", case, side, str(leaves)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", default="100,400,800")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--sides", help="of each case; all where not given")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        case, side, leaves = args.one
        print(json.dumps(measured(case, side, int(leaves))))
        return
    print(
        f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}, float32\n"
    )
    print(
        "| step | leaves | of | lower CPU s | compile CPU s | lower s | compile s | instructions | kernels |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in args.only.split(","):
        for leaves in args.leaves.split(","):
            for side in args.sides.split(",") if args.sides else CASES[case]():
                r = alone(case, side, int(leaves))
                cells = [
                    f"{r[k]:.1f}"
                    for k in ("lower_cpu", "compile_cpu", "lower", "compile")
                ]
                counts = [str(r[k]) for k in ("instructions", "kernels")]
                print(
                    f"| {case} | {leaves} | {side} | {' | '.join(cells + counts)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
