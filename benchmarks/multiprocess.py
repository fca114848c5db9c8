"""Do several processes train to the losses of one?

Processes on one machine, connected by `jax.distributed` over loopback and gloo, train the byte
transformer with batches split over them and the state sharded over them (ZeRO-1). Each process has
one CPU device. The losses of each batch, before its update, are compared with those of one process
that takes the whole batch.

    python benchmarks/multiprocess.py --out benchmarks/results
"""

import argparse
import functools
import hashlib
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradkit as gk

RECIPES: dict[str, Callable[[], Any]] = {
    "adamw": lambda: gk.adamw(3e-3),
    "muon": lambda: gk.muon(0.02),
    "soap": lambda: gk.soap(3e-3),
    "dion": lambda: gk.dion(0.01, rank=16),
    "adamw in int8": lambda: gk.store_by_int8(gk.adamw(3e-3)),
}


FLAGS = (
    "--xla_force_host_platform_device_count=1",
    "--xla_backend_optimization_level=0",  # compile fast: no time is measured
    "--xla_cpu_parallel_codegen_split_count=1",
)


class Run(NamedTuple):
    """What a process saw of one recipe."""

    losses: list[float]  # of each batch, before its update
    parameters: str  # a hash of the last ones
    fraction: float  # of the bytes of the state that this process holds


class Size(NamedTuple):
    """Of the transformer and of its training."""

    width: int = 64
    layers: int = 2
    batch: int = 16
    steps: int = 30


def train(
    make: Callable[[], Any], size: Size, devices: Any = None, order: int = 1
) -> Run:
    """Train on all devices, or these; each process is given its part of every batch.

    With `order=-1` the examples of every batch stand in reverse, which rounds their sum otherwise.
    """
    from gradkit._lab import tasks, text  # the parent needs no flax

    tx = make()
    task = tasks.next_byte(width=size.width, layers=size.layers, batch=size.batch)
    devices = devices or jax.devices()
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    replicated, split = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",))
    )
    data, length = text.standard_library().train, task.units // size.batch + 1
    mine = np.split(np.arange(size.batch), jax.process_count())[jax.process_index()]
    rng = np.random.default_rng(0)
    with jax.set_mesh(mesh):
        params = jax.jit(task.init, out_shardings=replicated)(jax.random.key(0))
        placed = gk.state_sharding(tx, params, mesh, axis="data")
        state = jax.jit(tx.init, out_shardings=placed)(params)

        @functools.partial(jax.jit, out_shardings=(replicated, placed, replicated))
        def step(params: Any, state: Any, windows: jax.Array) -> Any:
            loss, grads = jax.value_and_grad(task.loss)(params, windows)
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        losses = []
        for _ in range(size.steps):
            starts = rng.integers(len(data) - length + 1, size=size.batch)[::order][
                mine
            ]
            windows = data[starts[:, None] + np.arange(length)].astype(np.int32)
            windows = jax.make_array_from_process_local_data(split, windows)
            params, state, loss = step(params, state, windows)
            losses.append(float(loss))
    digest = hashlib.sha256()
    for p in jax.tree.leaves(params):
        digest.update(np.asarray(p.addressable_data(0)).tobytes())
    here = sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(state))
    total = sum(x.nbytes for x in jax.tree.leaves(state))
    return Run(losses, digest.hexdigest(), here / total)


def child(
    rank: int, count: int, port: int, names: Sequence[str], size: Size, order: int
) -> None:
    """Be one of the processes, and print a line for each recipe."""
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, rank)
    for name in names:
        print(json.dumps(train(RECIPES[name], size, order=order)), flush=True)
    if count > 1:
        jax.distributed.shutdown()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nothing else is given while this socket is open.

    gRPC may listen on it besides: it sets SO_REUSEPORT too, and this socket does not listen.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def together(commands: Sequence[Sequence[str]], timeout: float) -> list[str]:
    """What these commands print, run at the same time.

    When one fails, or the time is up, all are killed, and the error has the end of the stderr of
    the first to fail, or of all.
    """
    with tempfile.TemporaryDirectory() as folder:
        outs, errs = (
            [pathlib.Path(folder, f"{kind}{i}") for i in range(len(commands))]
            for kind in ("out", "err")
        )
        end = lambda i: f"process {i}:\n{errs[i].read_text(errors='replace')[-4000:]}"
        flags = os.environ.get("XLA_FLAGS", "")
        env = os.environ | {
            "XLA_FLAGS": " ".join([flags, *FLAGS]),
            "JAX_PLATFORMS": "cpu",
            "OPENBLAS_NUM_THREADS": "1",
        }
        processes: list[subprocess.Popen[bytes]] = []
        deadline = time.monotonic() + timeout
        try:
            for command, out, err in zip(commands, outs, errs):
                with out.open("wb") as stdout, err.open("wb") as stderr:
                    processes.append(
                        subprocess.Popen(
                            command,
                            stdin=subprocess.DEVNULL,
                            stdout=stdout,
                            stderr=stderr,
                            env=env,
                        )
                    )
            while None in (codes := [p.poll() for p in processes]) or any(codes):
                failed = next((i for i, code in enumerate(codes) if code), None)
                if failed is not None:
                    text = f"exit code {codes[failed]} of {end(failed)}"
                    raise RuntimeError(text)
                if time.monotonic() > deadline:
                    ends = "\n".join(map(end, range(len(commands))))
                    raise TimeoutError(f"not done after {timeout:g} s\n{ends}")
                time.sleep(0.05)
        finally:
            for p in processes:
                p.kill()
                p.wait()
        return [out.read_text() for out in outs]


def runs(
    count: int,
    names: Sequence[str],
    size: Size,
    *,
    order: int = 1,
    timeout: float = 600,
) -> list[dict[str, Run]]:
    """What each of `count` processes saw of each recipe."""
    with reserved_port() as port:
        last = [str(port), json.dumps([*names]), json.dumps(size), str(order)]
        one = [sys.executable, __file__, "--child"]
        printed = together(
            [[*one, str(rank), str(count), *last] for rank in range(count)], timeout
        )
    found = [
        [Run(*json.loads(line)) for line in text.splitlines() if line[:2] == "[["]
        for text in printed  # gloo prints too
    ]
    return [dict(zip(names, of, strict=True)) for of in found]


def difference(a: Run, b: Run) -> float:
    """The largest between the losses of two runs."""
    return float(np.max(np.abs(np.subtract(a.losses, b.losses))))


def main() -> None:
    """Run all, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=Size().steps)
    parser.add_argument("--only", default=",".join(RECIPES))
    parser.add_argument("--counts", default="2,4")
    parser.add_argument("--timeout", type=float, default=1200)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        rank, count, port, names, size, order = map(json.loads, args.child)
        child(rank, count, port, names, Size(*size), order)
        return
    size, names = Size(steps=args.steps), args.only.split(",")
    (alone,) = runs(1, names, size, timeout=args.timeout)
    (reverse,) = runs(1, names, size, order=-1, timeout=args.timeout)
    head = "recipe | processes | first loss | last loss | largest difference | of one process, reversed | parameters in all processes | state in a process"
    lines = [f"| {head} |", "|" + "---|" * 8]
    print(*lines, sep="\n")
    for count in map(int, args.counts.split(",")):
        found = runs(count, names, size, timeout=args.timeout)
        for name in names:
            of = [run[name] for run in found]
            same = len({run.parameters for run in of}) == 1
            largest = max(difference(run, alone[name]) for run in of)
            cells = [
                f"`{name}`",
                str(count),
                *(f"{alone[name].losses[i]:.4f}" for i in (0, -1)),
                f"{largest:.1e}",
                f"{difference(reverse[name], alone[name]):.1e}",
                "bit for bit the same" if same else "different",
                f"{max(run.fraction for run in of):.3f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    text = f"""# Several processes and one

The byte transformer, {size.layers} layers of width {size.width}, {size.steps} steps on batches of {size.batch} x 32 bytes; JAX {jax.__version__} with gloo on
{platform.machine()} CPUs, one device a process, float32. `python benchmarks/multiprocess.py --steps {size.steps} --out benchmarks/results` measures it.

{chr(10).join(lines)}

First and last losses, in nats, are those of one process. The difference is the largest over all steps and processes. Beside it is that of one
process which sums the examples of each batch in reverse: what another rounding does. SOAP enlarges it, as its bases of directions that few
examples showed depend on rounding. The last column is the fraction of the
state's bytes that one process holds, by `gk.state_sharding(..., axis="data")`.
"""
    if args.out:
        (args.out / "multiprocess.md").write_text(text)


if __name__ == "__main__":
    main()
