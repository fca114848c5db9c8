"""How far is each recipe, its state in few bits, from its float32 run?

Every recipe, at its default rate, trains a network that predicts a byte of text from the four before
it, in float32 and under each codec, from the same parameters on the same batches. The distance is of parameters, in units of the way of the
float32 run: `rms(params - params_float32) / rms(params_float32 - params_0)`. Beside it are two
distances of float32 runs: one from parameters that differ by 1e-6 of their size, for what the recipe
itself makes of a rounding error, and one on other batches, for what is not a distance worth having.

    python benchmarks/codecs.py --out benchmarks/results

`--only adamw,muon` runs some recipes. What has run is kept in the JSON file of `--resume`.
"""

import argparse
import inspect
import json
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import gradkit as gk
from gradkit._lab import tasks
from gradkit.catalogue import METHODS

RECIPES = [m.name for m in METHODS if m.family == "recipe"]
CODECS: dict[str, Callable[..., Any]] = {
    "bfloat16_plus8": gk.store_by_bfloat16_plus8,
    "bfloat16": gk.store_by_bfloat16,
    "int8": gk.store_by_int8,
    "fp8": gk.store_by_fp8,
    "int4": gk.store_by_int4,
}
LAST = 20  # steps whose losses are the last loss
ADDED = {"sgd": {"momentum": 0.9}}  # by default its sum is the last gradient
WIDTH, CONTEXT, BATCH = 16, 4, 128  # of an embedding; bytes; windows


def next_byte() -> gk.Task:
    """Predict a byte with an embedding, a hidden layer and a head: three leaves, all encoded."""
    inside = WIDTH * CONTEXT
    shapes = {"embed": (256, WIDTH), "hidden": (inside, inside), "head": (inside, 256)}

    def init(key: jax.Array) -> Any:
        keys = jax.random.split(key, len(shapes))
        draws = {k: jax.random.normal(x, shapes[k]) for k, x in zip(shapes, keys)}
        return {k: x * len(x) ** -0.5 for k, x in draws.items()} | {
            "embed": draws["embed"] * WIDTH**-0.5
        }

    def loss(params: Any, windows: jax.Array) -> jax.Array:
        x = params["embed"][windows[:, :-1]].reshape(len(windows), inside)
        x = x + jax.nn.relu(x @ params["hidden"])
        return tasks.cross_entropy(x @ params["head"], windows[:, -1])

    sizes = {"width": WIDTH, "context": CONTEXT, "batch": BATCH}
    model = "embedding, hidden layer and head"
    return tasks.of_bytes("bytes", model, init, loss, None, None, **sizes)


def made(name: str, task: gk.Task) -> Any:
    """The recipe at its default rate, with the arguments that suit the size of the task."""
    recipe, more = getattr(gk, name), ADDED.get(name, {})
    takes = inspect.signature(recipe).parameters
    return recipe(**{k: x for k, x in task.arguments.items() if k in takes}, **more)


def trained(tx: Any, task: gk.Task) -> Callable[..., tuple[Any, jax.Array]]:
    """`run(params, keys)`: the last parameters, and the loss before each step."""
    tx = optax.with_extra_args_support(tx)

    def run(params: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
        def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            params, state = carry
            loss, grads = jax.value_and_grad(task.loss)(params, task.data(key))
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), keys)
        return params, losses

    return jax.jit(run)


def flat(params: Any) -> np.ndarray:
    """All parameters, in float64."""
    leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(params)]
    return np.concatenate(leaves)


def rms(x: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(x**2)))


def measured(name: str, task: gk.Task, steps: int) -> dict[str, Any]:
    """Distances, last losses and bytes of state of one recipe."""
    first = jax.jit(task.init)(jax.random.key(0))
    here, other = (jax.random.split(jax.random.key(i), steps) for i in (1, 2))
    draw = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda x: x * (1 + 1e-6 * draw.normal(size=x.shape)).astype(x.dtype), first
    )
    tx = made(name, task)
    run = trained(tx, task)
    want, losses = run(first, here)
    want, start = flat(want), flat(first)
    far = lambda params: rms(flat(params) - want) / rms(want - start)
    near = run(moved, here)[0]
    found = {
        "float32": {"loss": float(np.mean(losses[-LAST:])), "bytes": size(tx, first)},
        "1e-6 away": {"distance": far(near)},
        "other batches": {"distance": far(run(first, other)[0])},
    }
    for codec, store in CODECS.items():
        coded = store(tx)
        params, losses = trained(coded, task)(first, here)
        found[codec] = {
            "distance": far(params),
            "loss": float(np.mean(losses[-LAST:])),
            "bytes": size(coded, first),
        }
    return found


def size(tx: Any, params: Any) -> int:
    """The bytes of the first state."""
    leaves = jax.tree.leaves(jax.eval_shape(tx.init, params))
    return sum(x.size * x.dtype.itemsize for x in leaves)


def table(found: dict[str, Any]) -> str:
    """Distances in percent of the way, with the last losses, one recipe a row."""
    columns = ["1e-6 away", "other batches", *CODECS]
    lines = [
        f"| recipe | float32 | {' | '.join(columns)} |",
        f"|---|{'---|' * (len(columns) + 1)}",
    ]
    for name, runs in sorted(found.items()):
        cells = [f"{runs['float32']['loss']:.3f}"]
        for column in columns:
            run = runs[column]
            loss = f", {run['loss']:.3f}" if "loss" in run else ""
            kept = column in CODECS and run["bytes"] >= runs["float32"]["bytes"]
            cells.append(
                "nothing to encode" if kept else percent(run["distance"]) + loss
            )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(x: float) -> str:
    """Two significant digits."""
    return f"{float(f'{100 * x:.2g}'):g} %"


def summary(found: dict[str, Any]) -> str:
    """Of each codec, the spread over recipes with something to encode, and the farthest."""
    lines = [
        "| codec | median | 90 % of recipes within | farthest | largest gap of losses | bytes of state |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for codec in CODECS:
        runs = {k: (v[codec], v["float32"]) for k, v in found.items()}
        runs = {k: (x, y) for k, (x, y) in runs.items() if x["bytes"] < y["bytes"]}
        far = {k: x["distance"] for k, (x, _) in runs.items()}
        gap = {k: abs(x["loss"] - y["loss"]) for k, (x, y) in runs.items()}
        bits = [x["bytes"] / y["bytes"] for x, y in runs.values()]
        last = sorted(far, key=far.__getitem__)[-3:][::-1]
        farthest = ", ".join(f"`{k}` {percent(far[k])}" for k in last)
        most = max(gap, key=gap.__getitem__)
        cells = [percent(float(np.quantile([*far.values()], q))) for q in (0.5, 0.9)]
        cells += [
            farthest,
            f"`{most}` {gap[most]:.3f}",
            percent(float(np.median(bits))),
        ]
        lines.append(f"| `store_by_{codec}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print both tables, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", default=",".join(RECIPES))
    parser.add_argument("--resume", type=pathlib.Path, help="JSON of what has run")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    task = next_byte()
    found: dict[str, Any] = {}
    if args.resume and args.resume.exists():
        found = json.loads(args.resume.read_text())
    for name in args.only.split(","):
        if name in found:
            continue
        clock = time.perf_counter()
        found[name] = measured(name, task, args.steps)
        print(f"{name}: {time.perf_counter() - clock:.0f} s", flush=True)
        if args.resume:
            args.resume.write_text(json.dumps(found))
        jax.clear_caches()
    text = f"""# How far recipes are from their float32 runs under each codec

Each recipe at its default rate, {args.steps} steps: {task.summary}; parameters of seed 0 and batches of seed 1;
leaves of 256 by 16, 64 by 64 and 64 by 256, all encoded, codecs at their defaults. On {jax.devices()[0].device_kind}, Python {platform.python_version()}, JAX {jax.__version__}, optax
{optax.__version__}. `python benchmarks/codecs.py --out benchmarks/results` measures it.

A distance is `rms(params - params_float32) / rms(params_float32 - params_0)`; beside it is the mean loss of the last {LAST} steps. "1e-6 away"
is a float32 run from parameters that differ by a millionth: how far the recipe itself carries a rounding error. "Other batches" is a
float32 run on batches of seed 2: no codec can be expected to matter more than those.

{summary(found)}

{table(found)}
"""
    print(text)
    if args.out:
        (args.out / "codecs.md").write_text(text)


if __name__ == "__main__":
    main()
