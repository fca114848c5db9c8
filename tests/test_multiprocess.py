"""Several processes train to the losses of one, and the bytes of collectives are counted."""

import contextlib
import functools
import math
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))
import multiprocess
import scaling

SIZE = multiprocess.Size(width=32, layers=1, batch=8, steps=3)
ATOL = {"adamw": 1e-4, "muon": 1e-4, "soap": 1e-2}  # new bases depend on rounding
SLEEP = [sys.executable, "-ISc", "import time; time.sleep(3600)"]


def check(count: int, *names: str) -> None:
    every = multiprocess.runs(count, names, SIZE, timeout=1200)
    assert len(every) == count
    for name in names:
        make, first = multiprocess.RECIPES[name], jax.devices()[:1]
        alone = multiprocess.train(make, SIZE, first)
        for run in (found[name] for found in every):
            np.testing.assert_allclose(run.losses, alone.losses, atol=ATOL[name])
            assert run.parameters == every[0][name].parameters
            assert run.fraction < 1.01 / count


def test_two_processes_train_to_the_losses_of_one() -> None:
    check(2, "adamw", "muon")


@pytest.mark.slow
def test_four_processes_train_to_the_losses_of_one() -> None:
    check(4, *ATOL)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """All processes that were started."""
    found: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            found.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return found


def test_a_process_that_fails_is_quoted_and_ends_the_others(started) -> None:
    broken = [sys.executable, "-ISc", "raise SystemExit('no such text')"]
    with pytest.raises(RuntimeError, match="exit code 1 of process 1:\nno such text"):
        multiprocess.together([SLEEP, broken], timeout=600)
    assert [p.returncode for p in started] == [-signal.SIGKILL, 1]


def test_when_the_time_is_up_all_are_killed(started) -> None:
    with pytest.raises(TimeoutError, match=r"not done after 0.1 s\nprocess 0:\n"):
        multiprocess.together([SLEEP, SLEEP], timeout=0.1)
    assert [p.returncode for p in started] == [-signal.SIGKILL] * 2


def test_collectives_are_counted_with_their_loops() -> None:
    """A gather in every update, sums in a loop of five, and one that runs now and then."""
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    split, whole = (NamedSharding(mesh, PartitionSpec(*a)) for a in (("data",), ()))
    sums = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec()
    )

    @functools.partial(jax.jit, in_shardings=(split, whole), out_shardings=whole)
    def f(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        @functools.partial(sums, check_vma=False)
        def add(y: jax.Array) -> jax.Array:
            return jax.lax.psum(y * y, "data")

        five = jax.lax.fori_loop(0, 5, lambda _, y: add(y), y)
        more = jax.lax.while_loop(lambda y: y[0] < 9, add, five)
        return x, five, more

    text = f.lower(jnp.ones((1024, 4)), jnp.ones(256)).compile().as_text()
    found = {
        (c.kind, c.group, c.sent, c.times, c.loop > 0)
        for c in scaling.collectives(text, 8)
    }
    assert found == {
        ("all-gather", 8, 7 / 8 * 16384, 1, False),
        ("all-reduce", 8, 2 * 7 / 8 * 1024, 5, False),
        ("all-reduce", 8, 2 * 7 / 8 * 1024, 1, True),
    }


@pytest.mark.parametrize(
    "line,expected",
    [
        (
            "%a = (f32[2,4]{1,0}, bf16[8]{0}) all-to-all(%x, %y), replica_groups=[2,4]<=[8]",
            ("all-to-all", 4, 3 / 4 * 48),
        ),
        (
            "ROOT %b = f32[16]{0} reduce-scatter(%x), replica_groups={{0,1},{2,3}}",
            ("reduce-scatter", 2, 64),
        ),
        (
            "%c = (f32[4]{0}, f32[32]{0:T(128)}) all-gather-start(%x), replica_groups=[1,8]<=[8]",
            ("all-gather", 8, 7 / 8 * 128),
        ),
        (
            "%d = (s32[2]{0}, s32[2]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 8, 2),
        ),
    ],
)  # fmt: skip
def test_one_collective_is_read(line: str, expected: tuple[str, int, float]) -> None:
    text = f"ENTRY %main (x: f32[4]) -> f32[] {{\n  {line}\n}}\n"
    (found,) = scaling.collectives(text, 8)
    assert found[:3] == expected


@pytest.mark.parametrize("layout,factor", [("FSDP", 0), ("ZeRO-1", 7 / 8)])
def test_adamw_gathers_its_updates_in_zero1_alone(layout: str, factor: float) -> None:
    model = scaling.Model(width=16, layers=1)
    leaves = jax.tree.leaves(scaling.shapes(model), is_leaf=lambda x: type(x) is tuple)
    size = 4 * sum(map(math.prod, leaves))
    text = scaling.compiled("cpu", "adamw", layout, 8, model)
    assert scaling.megabytes(scaling.collectives(text, 8), 0) * 1e6 == factor * size


@pytest.mark.parametrize("layout", ["FSDP", "ZeRO-1", "FSDP" + scaling.EXPLICIT])
def test_muon_sends_a_small_multiple_of_its_matrices(layout: str) -> None:
    """Padding to the number of devices is not sent: here 4 and 2 matrices of two shapes."""
    model = scaling.Model(width=16, layers=1)
    leaves = jax.tree.leaves(scaling.shapes(model), is_leaf=lambda x: type(x) is tuple)
    hidden = 4 * 12 * model.width**2
    rest = 4 * sum(map(math.prod, leaves)) - hidden if layout == "ZeRO-1" else 0
    text = scaling.compiled("cpu", "muon", layout, 8, model)
    found = scaling.megabytes(scaling.collectives(text, 8), 0) * 1e6
    assert 0 < found - 7 / 8 * rest < 2.5 * hidden


@pytest.mark.parametrize("in_use", [None, AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("make", [gk.muon, lambda: gk.dion(rank=4)])
def test_sharded_updates_are_those_of_one_device(make, in_use) -> None:
    """Three matrices on eight devices, which divide both sides."""
    tx, rng = make(), np.random.default_rng(0)
    p, *grads = (
        {f"{i}/kernel": np.float32(rng.normal(size=(16, 32))) for i in range(3)}
        for _ in range(3)
    )
    mesh = jax.make_mesh((8,), ("data",), (in_use or AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    there = jax.device_put(p, split)
    placed = gk.state_sharding(tx, there, mesh)
    update, u = jax.jit(tx.update), None
    update_there, v = jax.jit(tx.update, out_shardings=(split, placed)), None
    state = tx.init(p)
    state_there = jax.device_put(state, placed)
    for g in grads:
        u, state = update(g, state, p)
        g = jax.device_put(g, split)
        with jax.set_mesh(mesh) if in_use else contextlib.nullcontext():
            v, state_there = update_there(g, state_there, there)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), u, v)
