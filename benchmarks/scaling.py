"""How many bytes does a device send for one update, on 8 to 512 devices?

The update alone, without forward and backward pass, is compiled for so many host devices and never
run. What is counted are the collectives of the optimized HLO, each by its ring algorithm. On a
ring of n devices each device sends

    (n - 1) / n of the gathered array       all-gather
    (n - 1) / n of the array to be summed   reduce-scatter
    2 (n - 1) / n of the summed array       all-reduce, a reduce-scatter and an all-gather
    (n - 1) / n of the array on a device    all-to-all
    the array on a device                   collective-permute, by the devices that send

    JAX_PLATFORMS=cpu python benchmarks/scaling.py
    JAX_PLATFORMS=cpu python benchmarks/scaling.py --compiler tpu   # with libtpu; needs no TPU

The first has XLA's partitioner for CPUs, which knows fewer collectives, the second the one for a
TPU v5p. Each program is compiled in a process of its own.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

BYTES = {"pred": 1, "bf16": 2, "f16": 2}  # others: the number in their name, in bits
KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
NAME = r"%?([\w.\-]+)"
INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?{NAME} = (.*?) ([\w\-]+)\((.*)$")
COMPUTATION = re.compile(rf"^(ENTRY )?{NAME} \(.*\{{$")
CALLED = re.compile(
    rf"(?:to_apply|calls|body|condition|true_computation|false_computation)={NAME}"
)
FLAGS = (
    "--xla_backend_optimization_level=0",
)  # of LLVM, after all collectives are placed
UNUSED = " without set_mesh"  # no mesh is in use while the update is traced
EXPLICIT = " on Explicit axes"
LAYOUTS = ("FSDP", "ZeRO-1", "FSDP" + EXPLICIT, "FSDP" + UNUSED, "ZeRO-1" + UNUSED)
CUBES = {8: "2x2x2", 64: "4x4x4", 512: "8x8x8"}
TPU = {  # no question to a metadata server
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
PAIRS = re.compile(r"source_target_pairs=\{([{}\d,]*)\}")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Collective(NamedTuple):
    """One collective of a compiled program."""

    kind: str
    group: int  # devices that take part together
    sent: float  # bytes that a device sends on average, each time
    times: int  # in one update, by loops of a known length
    loop: (
        int  # 0, or the number of the loop of unknown length that runs it now and then
    )


def size(shapes: str) -> list[int]:
    """The bytes of each array in an HLO type."""
    found = []
    for kind, lengths in ARRAY.findall(shapes):
        bits = re.search(r"\d+", kind)
        each = BYTES.get(kind) or int(bits[0] if bits else 32) / 8
        found.append(int(each * math.prod(map(int, filter(None, lengths.split(","))))))
    return found


def sent(op: str, result: str, group: int) -> float:
    """The bytes that each device of a ring sends, from the type of a collective's result."""
    arrays = size(result)
    if op == "all-gather-start":  # operands, then results
        arrays = arrays[len(arrays) // 2 :]
    if op.startswith(
        "collective-permute"
    ):  # in "-start" the operand, the result, context
        return arrays[0]
    kind = op.removesuffix("-start")
    times = {"all-reduce": 2, "reduce-scatter": group}.get(kind, 1)
    return times * sum(arrays) * (group - 1) / group


def group_size(line: str, devices: int) -> int:
    """The devices that take part together, of an HLO instruction."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(found[2])
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(found[1].split(","))
    return devices


def collectives(text: str, devices: int) -> list[Collective]:
    """All collectives of a compiled program, those in loops and branches too."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            lines = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith(" "):
            lines.append(line)

    loops = itertools.count(1)

    def walk(name: str, times: int, loop: int) -> Iterator[Collective]:
        for line in bodies.get(name, ()):
            if not (found := INSTRUCTION.match(line)):
                continue
            _, result, op, rest = found.groups()
            kind = op.removesuffix("-start")
            if kind in KINDS:
                n = group_size(rest, devices)
                each = sent(op, result, n)
                if pairs := PAIRS.search(rest):
                    each *= pairs[1].count("{") / devices
                yield Collective(kind, n, each, times, loop)
                continue
            inner, within = times, loop
            if op == "while":
                if trips := re.search(r'"known_trip_count":\{"n":"(\d+)"', rest):
                    inner = times * int(trips[1])
                else:
                    within = loop or next(loops)
            called = CALLED.findall(rest)
            for many in BRANCHES.findall(rest):
                called += re.findall(NAME, many)
            for computation in called:
                yield from walk(computation, inner, within)

    return [*walk(entry, 1, 0)]


class Model(NamedTuple):
    """A decoder, and the rank of low-rank methods."""

    width: int = 1024
    layers: int = 2
    rank: int = 64


def shapes(model: Model) -> dict[str, Any]:
    """A decoder's parameters."""
    width = model.width
    block = {
        **dict.fromkeys(("query", "key", "value", "out"), (width, width)),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "norm1": (width,),
        "norm2": (width,),
    }
    return {f"layer{i}": block for i in range(model.layers)} | {"embed": (32768, width)}


def methods(rank: int) -> dict[str, Callable[[], Any]]:
    """Methods by name."""
    import gradkit as gk

    return {
        "adamw": gk.adamw,
        "clip + adamw": lambda: gk.chain(gk.clip_by_global_norm(1.0), gk.adamw()),
        "muon": gk.muon,
        "dion": lambda: gk.dion(rank=rank),
        "soap": gk.soap,
    }


def compiled(
    compiler: str, method: str, layout: str, devices: int, model: Model
) -> str:
    """The optimized HLO of an update on all devices."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    import gradkit as gk

    found = jax.devices("cpu")
    if compiler == "tpu":
        found = topologies.get_topology_desc(f"v5p:{CUBES[devices]}", "tpu").devices
        jax.default_backend = lambda: "tpu"  # by which methods choose their program
    kind = AxisType.Explicit if layout.endswith(EXPLICIT) else AxisType.Auto
    mesh = Mesh(np.array(found), ("data",), axis_types=(kind,))
    spec = PartitionSpec("data") if layout.startswith("FSDP") else PartitionSpec()
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(
            shape, jnp.float32, sharding=NamedSharding(mesh, spec)
        ),
        shapes(model),
        is_leaf=lambda x: isinstance(x, tuple),
    )
    tx = methods(model.rank)[method]()
    axis = "data" if layout.startswith("ZeRO-1") else None
    placed = gk.state_sharding(tx, params, mesh, axis=axis)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(tx.init, params),
        placed,
    )
    in_use = not layout.endswith(UNUSED)
    with jax.set_mesh(mesh) if in_use else contextlib.nullcontext():
        out = jax.tree.map(lambda p: p.sharding, params), placed
        update = jax.jit(tx.update, out_shardings=out)
        return str(update.lower(params, state, params).compile().as_text())


def child(compiler: str, method: str, layout: str, devices: int, model: Model) -> None:
    """Print the collectives of one program."""
    text = compiled(compiler, method, layout, devices, model)
    print("\n" + json.dumps(collectives(text, devices)))


def alone(
    compiler: str, method: str, layout: str, devices: int, model: Model, timeout: float
) -> list[Collective] | None:
    """`collectives` of one program, in a process of its own; None after `timeout` seconds."""
    flags = " ".join([*FLAGS, f"--xla_force_host_platform_device_count={devices}"])
    given = json.dumps([compiler, method, layout, devices, model])
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--child", given],
            env=os.environ | TPU | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(f"{given}:\n{done.stderr[-4000:]}")
    return [Collective(*c) for c in json.loads(done.stdout.splitlines()[-1])]


def megabytes(found: Sequence[Collective], loop: int) -> float:
    """What a device sends in one run of a loop, or in every update."""
    return sum(c.sent * c.times for c in found if c.loop == loop) / 1e6


def fit(points: Mapping[int, float], at: int) -> tuple[float, float]:
    """`a (n - 1) / n + b n` with `b >= 0` at a number of devices, and its largest relative error.

    It is the least squares of relative errors.
    """
    import numpy as np

    n, y = (np.array(x, float) for x in (list(points), list(points.values())))
    if not y.all():
        return 0.0, 0.0
    basis = lambda n: np.stack([(n - 1) / n, n], -1)
    x = basis(n) / y[:, None]
    ab = np.linalg.lstsq(x, np.ones(len(n)), rcond=None)[0]
    if ab[1] < 0:
        ab = np.array([x[:, 0].sum() / np.square(x[:, 0]).sum(), 0])
    error = np.max(np.abs(x @ ab - 1))
    return float(basis(np.array(float(at))) @ ab), float(error)


def main() -> None:
    """Compile all and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compiler", choices=("cpu", "tpu"), default="cpu")
    parser.add_argument("--devices", default="8,64,512")
    parser.add_argument("--only", default="adamw,clip + adamw,muon,dion,soap")
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--width", type=int, default=Model().width)
    parser.add_argument("--layers", type=int, default=Model().layers)
    parser.add_argument("--at", type=int, default=1000, help="devices to fit to")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a program")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        compiler, method, layout, devices, model = json.loads(args.child)
        child(compiler, method, layout, devices, Model(*model))
        return
    counts = [*map(int, args.devices.split(","))]
    head = [*(f"{n} devices" for n in counts), f"{args.at} by the fit", "its error"]
    print(f"| method | layout | MB sent | {' | '.join(head)} | collectives | seconds |")
    print("|---" * (len(head) + 5) + "|")
    model = Model(args.width, args.layers)
    for method in args.only.split(","):
        for layout in args.layouts.split(","):
            found, seconds = {}, []
            for n in counts:
                start = time.monotonic()
                program = args.compiler, method, layout, n, model
                found[n] = alone(*program, args.timeout)
                seconds.append(f"{time.monotonic() - start:.0f}")
            done = {n: x for n, x in found.items() if x is not None}
            most = max((c.loop for x in done.values() for c in x), default=0)
            for loop in range(most + 1):
                when = "each update" if loop == 0 else f"now and then, {loop}"
                points = {n: megabytes(x, loop) for n, x in done.items()}
                cells = [
                    f"{points[n]:.4g}" if n in points else "not compiled"
                    for n in counts
                ]
                value, error = fit(points, args.at)
                kinds = Counter(c.kind for c in done[max(done)] if c.loop == loop)
                used = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
                row = [method, layout, when, *cells, f"{value:.4g}", f"{error:.0%}"]
                row += [used, ", ".join(seconds)]  # of the process, with tracing
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
