"""What does preconditioning cost a step, beside a loop over leaves in JAX and beside torch?

Sides, each in a process of its own, take turns at whole periods, so that a drifting machine
drifts for all. All see the same shapes, float32, cores and period, and four gradients in turn,
so that covariances have full rank.

- gradkit.
- plain: the same algorithm at the same period as a user of JAX would write it, from the equations
  with `jnp.linalg`, leaf by leaf. SOAP is that of the port SOAP_JAX: momentum in the bases, and
  products as it has them. Shampoo has eigendecompositions, which cost less than the padded
  iterations of the JAX release. PSGD multiplies in the order that psgd_jax finds by opt_einsum.
- port: SOAP_JAX itself, where it can be imported. The others' ports do not run with today's JAX.
- torch: pytorch_optimizer, by a Python that has it and opt_einsum, without which torch multiplies
  PSGD's factors with each other. Its SOAP projects momentum anew in each step; its Shampoo takes
  singular values and also grafts.

Times are medians in milliseconds: of the longest step of each period, which turns bases, of all
others, and of the mean; ratios are medians of those of neighbouring turns, with the middle half
of them. After so many `--seconds` of a method no round starts but the first.

    python benchmarks/precondition.py --width 256 --layers 2 --torch ../torch/bin/python

On a machine that does other things, `--cores 1` counts the time that one core works instead.
LAPACK's own threads disturb XLA's: see what `OPENBLAS_NUM_THREADS=1` does.
"""

import argparse
import functools
import importlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

METHODS = ("soap", "shampoo", "psgd")
SIDES = ("gradkit", "plain", "port", "torch")
GRADIENTS = 4
Shapes = list[tuple[int, int]]


def shapes_of(width: int, layers: int) -> Shapes:
    """The matrices of a small decoder."""
    block = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    return block * layers


def in_jax(
    side: str, name: str, shapes: Shapes, every: int
) -> tuple[Callable[[], None], int, float]:
    """A step of a side in JAX, jitted with donated state; seconds to compile."""
    import jax

    def draw(size: float, seed: int) -> list[Any]:
        keys = jax.random.split(jax.random.key(seed), len(shapes))
        return [size * jax.random.normal(k, s) for k, s in zip(keys, shapes)]

    params, grads = draw(0.02, 0), [draw(0.1, 1 + i) for i in range(GRADIENTS)]
    make = {"gradkit": ours, "plain": plain, "port": port}[side]
    init, update = make(name, every)
    carry = [jax.jit(init)(params), params]
    jitted = jax.jit(update, donate_argnums=(1, 2))
    start = time.perf_counter()
    compiled = jitted.lower(grads[0], *carry).compile()
    took, given = time.perf_counter() - start, itertools.cycle(grads)

    def step() -> None:
        carry[:] = jax.block_until_ready(compiled(next(given), *carry))

    return step, every, took


def ours(name: str, every: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """gradkit's recipe as (init, update)."""
    import gradkit as gk

    share = lambda step: (step % every == 0).astype("float32")
    tx = {
        "soap": functools.partial(gk.soap, every=every),
        "shampoo": functools.partial(gk.shampoo, every=every),
        "psgd": functools.partial(gk.psgd, fit_probability=share),
    }[name](1e-3)
    return _stepper(tx)


def port(name: str, every: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A public port to JAX as (init, update)."""
    soap = importlib.import_module({"soap": "soap_jax"}[name]).soap
    return _stepper(soap(1e-3, precondition_frequency=every))


def _stepper(tx: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import optax

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        u, state = tx.update(grads, state, params)
        return state, optax.apply_updates(params, u)

    return tx.init, update


def plain(name: str, every: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The algorithm as a loop over leaves, each with its own condition."""
    import jax
    import jax.numpy as jnp

    def init(params: Any) -> Any:
        def leaf(p: Any) -> Any:
            zeros, m, n = jnp.zeros_like, *p.shape
            squares = jnp.zeros((m, m)), jnp.zeros((n, n)), jnp.eye(m), jnp.eye(n)
            if name == "psgd":
                return [zeros(p), *squares[2:]]
            return [zeros(p), *[zeros(p)] * (name == "soap"), *squares]

        return jnp.zeros([], jnp.int32), [leaf(p) for p in params]

    def soap(
        step: Any, g: Any, m: Any, v: Any, l: Any, r: Any, ql: Any, qr: Any
    ) -> Any:
        low = ql.T @ g @ qr
        m, v = 0.95 * m + 0.05 * low, 0.95 * v + 0.05 * low**2
        u = ql @ (m / (jnp.sqrt(v) + 1e-8)) @ qr.T
        l, r = 0.95 * l + 0.05 * g @ g.T, 0.95 * r + 0.05 * g.T @ g

        def turn() -> Any:
            sides = (l, ql), (r, qr)
            one, two = (jnp.argsort(-jnp.diag(q.T @ a @ q)) for a, q in sides)
            a, b = (
                jnp.linalg.qr(a @ q[:, o])[0] for (a, q), o in zip(sides, (one, two))
            )
            return a.T @ (ql @ m @ qr.T) @ b, v[one][:, two], a, b

        kept = lambda: (m, v, ql, qr)
        m, v, ql, qr = jax.lax.cond(step % every == 0, turn, kept)
        return u, [m, v, l, r, ql, qr]

    def shampoo(step: Any, g: Any, m: Any, l: Any, r: Any, pl: Any, pr: Any) -> Any:
        m = 0.9 * m + 0.1 * g
        l, r = 0.99 * l + 0.01 * g @ g.T, 0.99 * r + 0.01 * g.T @ g

        def take() -> Any:
            return [_root(a) for a in (l, r)]

        pl, pr = jax.lax.cond(step % every == 0, take, lambda: [pl, pr])
        return pl @ m @ pr, [m, l, r, pl, pr]

    def _root(a: Any) -> Any:
        values, vectors = jnp.linalg.eigh(a + 1e-6 * jnp.eye(len(a)))
        return (vectors * jnp.maximum(values, 1e-12) ** -0.25) @ vectors.T

    def psgd(step: Any, g: Any, m: Any, q: Any, s: Any) -> Any:
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
        u = q.T @ (q @ m @ s.T) @ s
        u = u / jnp.maximum(1, jnp.sqrt(jnp.mean(u**2)) / 2)
        return jnp.clip(u, -10, 10), [m, q, s]

    rule = {"soap": soap, "shampoo": shampoo, "psgd": psgd}[name]

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        step, leaves = state
        done = [rule(step, g, *leaf) for g, leaf in zip(grads, leaves)]
        params = [p - 1e-3 * u for p, (u, _) in zip(params, done)]
        return (step + 1, [leaf for _, leaf in done]), params

    return init, update


def in_torch(
    name: str, shapes: Shapes, every: int
) -> tuple[Callable[[], None], int, float]:
    """A step of pytorch_optimizer's method of that name, at the same period."""
    torch = importlib.import_module("torch")
    releases = importlib.import_module("pytorch_optimizer")
    importlib.import_module("opt_einsum")
    torch.manual_seed(0)
    params = [torch.nn.Parameter(0.02 * torch.randn(s)) for s in shapes]
    grads = [[0.1 * torch.randn(s) for s in shapes] for _ in range(GRADIENTS)]
    make = {
        "soap": lambda: releases.SOAP(params, lr=1e-3, precondition_frequency=every),
        "shampoo": lambda: releases.ScalableShampoo(
            params,
            lr=1e-3,
            start_preconditioning_step=1,
            preconditioning_compute_steps=every,
            block_size=8192,
            shape_interpretation=False,
            use_svd=True,  # its default, an iteration, takes longer
        ),
        "psgd": lambda: releases.Kron(
            params, lr=1e-3, pre_conditioner_update_probability=1 / every
        ),
    }
    optimizer, given = make[name](), itertools.cycle(grads)

    def step() -> None:
        for p, g in zip(params, next(given)):
            p.grad = g
        optimizer.step()

    return step, every - (name != "soap"), 0.0


def work(side: str, name: str, shapes: Shapes, every: int, cores: int) -> None:
    """One side: a line when compiled and warm, then one of step times for every line read."""
    make = in_torch if side == "torch" else functools.partial(in_jax, side)
    step, ahead, took = make(name, shapes, every)
    clock = time.process_time if cores == 1 else time.perf_counter

    def milliseconds() -> float:
        start = clock()
        step()
        return 1e3 * (clock() - start)

    for _ in range(every + ahead):
        step()  # the next one turns, not for the first time
    print(json.dumps({"about": _about(side), "compile": took}), flush=True)
    for _ in sys.stdin:
        print(json.dumps([milliseconds() for _ in range(every)]), flush=True)


def compare(name: str, args: argparse.Namespace) -> list[str]:
    """The rows of one method: every side in turn, a period each."""
    end = time.monotonic() + args.seconds
    sides, first = {}, {}
    for side in SIDES:
        sides[side] = _started(side, name, args)
        line = sides[side].stdout.readline()
        if line:
            first[side] = json.loads(line)
    periods: dict[str, list[list[float]]] = {side: [] for side in first}
    for i in range(args.rounds):
        if i and time.monotonic() > end:
            break
        for side in periods:
            time.sleep(0.2)  # until the threads of the other sides do too
            sides[side].stdin.write("\n")
            sides[side].stdin.flush()
            periods[side].append(json.loads(sides[side].stdout.readline()))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    rows = []
    mine = [sum(p) for p in periods["gradkit"]]
    for side, times in periods.items():
        turn = statistics.median(max(p) for p in times)
        other = statistics.median(t for p in times for t in sorted(p)[:-1])
        ratios = [a / sum(p) for a, p in zip(mine, times)]
        some = ratios if len(ratios) > 1 else 2 * ratios
        low, ratio, high = statistics.quantiles(some, n=4, method="inclusive")
        rows.append(
            f"| {name} | {side} | {other:.1f} | {turn:.1f} | "
            f"{(turn + (args.every - 1) * other) / args.every:.1f} | **{ratio:.2f}** | "
            f"{low:.2f} to {high:.2f} | {first[side]['compile']:.1f} |"
        )
        ABOUT[side] = first[side]["about"]
    return rows


ABOUT: dict[str, str] = {}


def main() -> None:
    """Measure every method on every side and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--every", type=int, default=10, help="steps in a period")
    parser.add_argument("--rounds", type=int, default=5, help="periods measured")
    parser.add_argument("--seconds", type=float, default=60, help="see above")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--only", default=",".join(METHODS), help="comma-separated")
    parser.add_argument("--torch", default=sys.executable, help="a Python with torch")
    parser.add_argument("--side", help="be one side, and do as `compare` says")
    args = parser.parse_args()
    shapes = shapes_of(args.width, args.layers)
    if args.side:
        work(args.side, args.only, shapes, args.every, args.cores)
        return
    print(f"{len(shapes)} matrices of {sorted(set(shapes))}, every {args.every}\n")
    print(
        "| method | side | plain ms | turning ms | mean ms | gradkit / it | middle half | "
        "compile s |"
    )
    print("|" + "---|" * 8)
    for name in args.only.split(","):
        print("\n".join(compare(name, args)), flush=True)
    print()
    for side, about in ABOUT.items():
        print(f"{side}: {about}")


def _started(side: str, name: str, args: argparse.Namespace) -> subprocess.Popen[str]:
    """One side in a process of its own, on so many cores."""
    python = args.torch if side == "torch" else sys.executable
    root = pathlib.Path(__file__).resolve().parents[1]
    command = [python, __file__, *sys.argv[1:], "--side", side, "--only", name]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    mine = sorted(os.sched_getaffinity(0))[-args.cores :]
    return subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, mine)), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if side in ("gradkit", "plain") else subprocess.DEVNULL,
        text=True,
        env=env,
    )


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

    cores = len(os.sched_getaffinity(0))
    return f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {cores} cores"


if __name__ == "__main__":
    main()
