"""What does preconditioning cost a step, beside a loop over leaves in JAX and beside torch?

One run measures all sides in turn: gradkit; the same algorithm written leaf by leaf in plain JAX,
as its torch release has it; and pytorch_optimizer, where it can be imported by `--torch`, a Python
that has it. Times are milliseconds: a step that turns nothing, one that does, and the mean
over a period.

    python benchmarks/precondition.py --width 256 --layers 2 --torch ../torch/bin/python
"""

import argparse
import functools
import importlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

METHODS = ("soap", "shampoo", "psgd")
Shapes = list[tuple[int, int]]


def shapes_of(width: int, layers: int) -> Shapes:
    """The matrices of a small decoder."""
    block = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    return block * layers


def measured(step: Callable[[], None], every: int, rounds: int) -> dict[str, float]:
    """Least milliseconds of the steps of some periods, of which the first of each turns bases."""
    turns, others = [], []
    for t in range(every * rounds):
        start = time.perf_counter()
        step()
        took = 1e3 * (time.perf_counter() - start)
        (others if t % every else turns).append(took)
    plain, turn = min(others), min(turns)
    return {"plain": plain, "turn": turn, "mean": (turn + (every - 1) * plain) / every}


def in_jax(
    name: str, side: str, shapes: Shapes, every: int, rounds: int
) -> dict[str, Any]:
    """gradkit, or the plain loop, jitted with donated state."""
    import jax

    key = jax.random.key(0)
    params = [0.02 * jax.random.normal(key, s) for s in shapes]
    grads = [
        0.1 * jax.random.normal(jax.random.fold_in(key, i), s)
        for i, s in enumerate(shapes)
    ]
    init, update = (ours if side == "gradkit" else plain)(name, every)
    state = jax.jit(init)(params)
    jitted = jax.jit(update, donate_argnums=(1, 2))
    start = time.perf_counter()
    compiled = jitted.lower(grads, state, params).compile()
    took = time.perf_counter() - start
    carry = [state, params]

    def step() -> None:
        carry[:] = jax.block_until_ready(compiled(grads, *carry))

    for _ in range(every):
        step()  # the next one turns
    return measured(step, every, rounds) | {"compile": 1e3 * took}


def ours(name: str, every: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """gradkit's recipe as (init, update)."""
    import optax

    import gradkit as gk

    share = lambda step: (step % every == 0).astype("float32")
    tx = {
        "soap": functools.partial(gk.soap, every=every),
        "shampoo": functools.partial(gk.shampoo, every=every),
        "psgd": functools.partial(gk.psgd, fit_share=share),
    }[name](1e-3)

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        u, state = tx.update(grads, state, params)
        return state, optax.apply_updates(params, u)

    return tx.init, update


def plain(name: str, every: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The release's algorithm, a loop over leaves, each with its own condition."""
    import jax
    import jax.numpy as jnp

    def init(params: Any) -> Any:
        def leaf(p: Any) -> Any:
            m, n = p.shape
            eyes = jnp.eye(m), jnp.eye(n)
            return [
                jnp.zeros_like(p),
                jnp.zeros_like(p),
                *eyes,
                *(1.0 * e for e in eyes),
            ]

        return jnp.zeros([], jnp.int32), [leaf(p) for p in params]

    def soap(
        step: Any, g: Any, m: Any, v: Any, l: Any, r: Any, ql: Any, qr: Any
    ) -> Any:
        low = ql.T @ g @ qr
        m = 0.95 * (ql.T @ m @ qr) + 0.05 * low
        v = 0.95 * v + 0.05 * low**2
        u = ql @ (m / (jnp.sqrt(v) + 1e-8)) @ qr.T
        m = ql @ m @ qr.T
        l, r = 0.95 * l + 0.05 * g @ g.T, 0.95 * r + 0.05 * g.T @ g

        def turn() -> Any:
            order = [jnp.argsort(-jnp.diag(q.T @ a @ q)) for a, q in ((l, ql), (r, qr))]
            new = [
                jnp.linalg.qr(a @ q[:, o])[0]
                for a, q, o in zip((l, r), (ql, qr), order)
            ]
            return v[order[0]][:, order[1]], *new

        v, ql, qr = jax.lax.cond(step % every == 0, turn, lambda: (v, ql, qr))
        return u, [m, v, l, r, ql, qr]

    def shampoo(
        step: Any, g: Any, m: Any, v: Any, l: Any, r: Any, pl: Any, pr: Any
    ) -> Any:
        m = 0.9 * m + 0.1 * g
        l, r = 0.99 * l + 0.01 * g @ g.T, 0.99 * r + 0.01 * g.T @ g

        def take() -> Any:
            return [_root(a) for a in (l, r)]

        pl, pr = jax.lax.cond(step % every == 0, take, lambda: [pl, pr])
        return pl @ m @ pr, [m, v, l, r, pl, pr]

    def _root(a: Any) -> Any:
        values, vectors = jnp.linalg.eigh(a + 1e-6 * jnp.eye(len(a)))
        return (vectors * jnp.maximum(values, 1e-12) ** -0.25) @ vectors.T

    def psgd(step: Any, g: Any, m: Any, v: Any, c: Any, d: Any, q: Any, s: Any) -> Any:
        m = 0.9 * m + 0.1 * g
        solve = jax.scipy.linalg.solve_triangular

        def fit() -> Any:
            noise = jax.random.normal(
                jax.random.fold_in(jax.random.key(0), step), g.shape
            )
            a, b = q @ g @ s.T, solve(s, solve(q, noise, trans=1).T, trans=1).T
            moved = []
            for x, y, z in ((a, b, q), (a.T, b.T, s)):
                one, two = x @ x.T, y @ y.T
                both = one + two
                size = jnp.linalg.norm(both @ (both[0] / jnp.linalg.norm(both[0])))
                moved.append(z - 0.1 / size * jnp.triu(one - two) @ z)
            return moved

        q, s = jax.lax.cond(step % every == 0, fit, lambda: [q, s])
        return q.T @ (q @ m @ s.T) @ s, [m, v, c, d, q, s]

    rule = {"soap": soap, "shampoo": shampoo, "psgd": psgd}[name]

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        step, leaves = state
        done = [rule(step, g, *leaf) for g, leaf in zip(grads, leaves)]
        params = [p - 1e-3 * u for p, (u, _) in zip(params, done)]
        return (step + 1, [leaf for _, leaf in done]), params

    return init, update


def in_torch(name: str, shapes: Shapes, every: int, rounds: int) -> dict[str, Any]:
    """pytorch_optimizer's method of that name, at the same period."""
    torch = importlib.import_module("torch")
    releases = importlib.import_module("pytorch_optimizer")
    torch.manual_seed(0)
    params = [torch.nn.Parameter(0.02 * torch.randn(s)) for s in shapes]
    for p in params:
        p.grad = 0.1 * torch.randn(p.shape)
    make = {
        "soap": lambda: releases.SOAP(params, lr=1e-3, precondition_frequency=every),
        "shampoo": lambda: releases.ScalableShampoo(
            params,
            lr=1e-3,
            start_preconditioning_step=1,
            preconditioning_compute_steps=every,
            block_size=8192,
            shape_interpretation=False,
            use_svd=True,
        ),
        "psgd": lambda: releases.Kron(
            params, lr=1e-3, pre_conditioner_update_probability=1 / every
        ),
    }
    optimizer = make[name]()
    for _ in range(every - 1 + (name == "soap")):
        optimizer.step()  # the next one turns
    return measured(optimizer.step, every, rounds) | {"compile": 0.0}


def main() -> None:
    """Measure every method on every side and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--every", type=int, default=10, help="steps in a period")
    parser.add_argument("--rounds", type=int, default=3, help="periods measured")
    parser.add_argument("--only", default=",".join(METHODS), help="comma-separated")
    parser.add_argument("--torch", default=sys.executable, help="a Python with torch")
    parser.add_argument("--side", help="measure one side and print it as JSON")
    args = parser.parse_args()
    shapes = shapes_of(args.width, args.layers)
    names = args.only.split(",")
    if args.side:
        one = (
            in_torch if args.side == "torch" else functools.partial(_swapped, args.side)
        )
        rows = {name: one(name, shapes, args.every, args.rounds) for name in names}
        print(json.dumps({"about": _about(args.side), "rows": rows}))
        return
    found = {side: _run(side, args.torch) for side in ("gradkit", "plain JAX", "torch")}
    for side, result in found.items():
        print(f"{side}: {result['about'] if result else 'not available'}")
    print(f"{len(shapes)} matrices of {sorted(set(shapes))}, every {args.every}\n")
    print(
        "| method | side | plain ms | turning ms | mean ms | gradkit / it | compile s |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in names:
        mine = found["gradkit"]["rows"][name]["mean"]
        for side, result in found.items():
            if result:
                r = result["rows"][name]
                print(
                    f"| {name} | {side} | {r['plain']:.1f} | {r['turn']:.1f} | "
                    f"{r['mean']:.1f} | {mine / r['mean']:.2f} | {r['compile'] / 1e3:.1f} |"
                )


def _swapped(side: str, name: str, *rest: Any) -> dict[str, Any]:
    return in_jax(name, side, *rest)


def _run(side: str, torch: str) -> Any:
    """One side in a process of its own; None where its packages are missing."""
    python = torch if side == "torch" else sys.executable
    root = pathlib.Path(__file__).resolve().parents[1]
    command = [python, __file__, *sys.argv[1:], "--side", side]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode and "ModuleNotFoundError" not in done.stderr:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout) if not done.returncode else None


def _about(side: str) -> str:
    """Versions and threads."""
    if side == "torch":
        torch = importlib.import_module("torch")
        version = importlib.metadata.version("pytorch_optimizer")
        return (
            f"torch {torch.__version__}, pytorch_optimizer {version}, "
            f"{torch.get_num_threads()} threads"
        )
    import jax

    return (
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
