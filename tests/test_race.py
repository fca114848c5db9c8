"""A race is fair, says what it found, and survives being stopped."""

import contextlib
import functools
import io
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from entry import REPRESENTATIVE
from rich.console import Console
from typer.testing import CliRunner

import gradkit as gk
from gradkit._core.measure import space
from gradkit._lab import (
    bench,
    checkpoints,
    plan,
    progress,
    report,
    screen,
    start,
    tasks,
    text,
)
from gradkit._lab.complaint import Complaint
from gradkit.catalogue import METHODS
from gradkit.cli import app

RECIPES = [m.name for m in METHODS if m.kind == "recipe"]
TIMES = ("seconds_per_step", "seconds_to_compile")  # all else is equal, bit for bit
SMALL = ["--task=lstsq", "--width=8", "--batch=8", "--trials=2", "--seeds=2"]
TWO = [*SMALL, "--recipes=adamw,lion"]
LONG = [*TWO, "--steps=40000"]


def race(*arguments: object) -> str:
    """What a race that ends well says."""
    result = CliRunner().invoke(app, ["race", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: object, code: int = 2) -> str:
    """The one line that a request which cannot be done ends with."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stderr.splitlines()[-1]


def results(out: pathlib.Path) -> dict[str, Any]:
    """Everything in results.json but times."""
    found = json.loads((out / "results.json").read_text())
    for result in found["recipes"].values():
        for name in TIMES:
            assert result.pop(name) > 0
    return found


def send(out: pathlib.Path, recipe: str, number: signal.Signals) -> tuple[int, str]:
    """Start or resume a race, and send it a signal once `recipe` is trained."""
    command = [sys.executable, "-m", "gradkit", "race", *LONG, "--resume", "--out"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, str(out)], **pipes)
    while process.poll() is None and not list(out.glob(f"runs/{recipe}/*/sweep.json")):
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(number)
    _, said = process.communicate()
    return process.returncode, said


STOPS = {  # how a race is stopped, once which recipe is trained: exit code, and what it says
    signal.SIGTERM: ("adamw", 128 + signal.SIGTERM, "stopped by SIGTERM. The same"),
    signal.SIGINT: ("lion", 130, "The same command with --resume goes on."),
    signal.SIGKILL: ("lion", -signal.SIGKILL, ""),
}


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([signal.SIGINT], id="once"),
        pytest.param([*STOPS], id="three times", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_race_ends_with_the_same_numbers(stops, tmp_path):
    out = tmp_path / "stopped"
    for number in stops:
        recipe, code, words = STOPS[number]
        got, said = send(out, recipe, number)
        assert got == code and words in said
        assert not (out / "results.json").exists()
    kept = {path: path.read_bytes() for path in out.glob("runs/adamw/*/run_*.npz")}
    assert len(kept) == 4
    race(*LONG, "--out", out, "--resume")
    assert kept == {path: path.read_bytes() for path in kept}
    race(*LONG, "--out", tmp_path / "whole")
    assert results(out) == results(tmp_path / "whole")
    assert not list(out.rglob("unfinished*")) and not list(out.rglob("*.draft"))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> pathlib.Path:
    """The folder of a short race."""
    out = tmp_path_factory.mktemp("race") / "new" / "folder"
    said = race(*TWO, "--steps", 6, "--out", out)
    assert "adamw" in said and "results.json" in said
    return out


def test_a_race_leaves_a_table_a_picture_and_all_numbers(done):
    found = results(done)
    adamw, lion = found["recipes"]["adamw"], found["recipes"]["lion"]
    assert np.shape(adamw["test_losses"]) == (2,)
    assert [x["learning_rate"] for x in lion["trials"]] == pytest.approx(
        [1e-4 / 3, 1e-2]
    )
    assert adamw["chosen"]["learning_rate"] in [
        x["learning_rate"] for x in adamw["trials"]
    ]
    assert adamw["marks"] == [1, 2, 3, 4, 5, 6] and len(adamw["curve"]) == 6
    assert adamw["steps_to_adamw"] <= 6
    assert adamw["curve"][-1] == pytest.approx(np.mean(adamw["test_losses"]))
    assert adamw["low"] < adamw["test_loss"] < adamw["high"]
    assert adamw["state_bytes"] == 2 * lion["state_bytes"] - 4  # but for the count
    assert found["versions"]["jax"] == jax.__version__
    table = (done / "table.md").read_text()
    assert all(f"| {name} |" in table for name in ("adamw", "lion"))
    assert "adamw(weight_decay=0.01)" in table
    assert (done / "curves.png").read_bytes().startswith(b"\x89PNG")
    files = {"curves.png", "runs", "results.json", "settings.json", "table.md"}
    assert {path.name for path in done.iterdir()} == files


def test_choosing_and_reporting_see_other_seeds_and_other_data(done):
    settings = [
        json.loads((done / "runs/adamw" / loss / "sweep.json").read_text())
        for loss in ("validation", "test")
    ]
    assert not {*settings[0]["seeds"]} & {*settings[1]["seeds"]}
    asked = []

    def held_out(name: str) -> Any:
        return lambda w: asked.append(name) or jnp.sum(w**2)

    task = gk.Task(
        "bowl",
        lambda key: jnp.ones(2),
        lambda w, x: jnp.sum((w - x) ** 2),
        lambda key: jnp.zeros(2),
        held_out("validation"),
        lambda w: asked.append("test") or 100 + jnp.sum(w**2),
    )
    found = gk.race({"sgd": gk.sgd}, task, 3, trials=2, seeds=1).results["sgd"]
    assert asked.index("test") > asked.index("validation")
    assert found.trials.final.max() < 3 and found.loss.value > 100


@pytest.mark.parametrize(
    "changed, said",
    [
        ([], "Add --resume"),
        (["--resume", "--steps", 7], "steps was 6, now 7"),
        (["--resume", "--recipes", "adamw"], "recipes was"),
        (["--resume", "--recipes", "adamw(b2=0.9),lion"], "recipes was"),
        (["--resume", "--seeds", 3], "seeds was 2, now 3"),
        (["--resume", "--schedule", "cosine"], "schedule was"),
        (["--resume", "--batch", 9], "summary was"),
    ],
)
def test_what_a_folder_holds_is_never_lost(done, changed, said):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    assert said in refused("race", *TWO, "--steps", 6, "--out", done, *changed)
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*")}


def test_a_finished_race_is_not_run_again(done):
    before = results(done)
    runs = {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*/*.npz")}
    race(*TWO, "--steps", 6, "--out", done, "--resume")
    assert results(done) == before and len(runs) == 10
    assert runs == {path: path.stat().st_mtime_ns for path in runs}


def test_another_version_or_a_damaged_run_is_said_in_one_line(done, monkeypatch):
    again = ["race", *TWO, "--steps", 6, "--out", done, "--resume"]
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    said = refused(*again)
    assert "the same numerics" in said and "now --xla_cpu_enable_fast_math=true" in said
    monkeypatch.undo()
    run = next(done.glob("runs/lion/test/run_*"))
    kept = run.read_bytes()
    run.write_bytes(kept[:-9])
    assert f"{run.name} must be of this sweep, got a damaged" in refused(*again)
    run.write_bytes(kept)
    costs = done / "runs/lion/test/costs.npz"
    kept = costs.read_bytes()
    costs.write_bytes(kept[:-9])
    assert "costs.npz must be of this sweep, got a damaged" in refused(*again)
    costs.write_bytes(kept)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (
            "--recipes adamw,nope",
            "no recipe 'nope'. gradkit list --family recipe names",
        ),
        ("--recipes adamv", "no recipe 'adamv'. Did you mean adamw"),
        ("--recipes adamw,AdamW", "named twice"),
        ("--recipes adamw,adamw", "named twice"),
        ("--recipes adamw@fast", "must name a rate from 1e-36 to 1e+36"),
        ("--recipes adamw@-1", "must name a rate from 1e-36 to 1e+36"),
        ("--recipes adamw@1e300", "must name a rate from 1e-36 to 1e+36"),
        ("--recipes adamw@nan", "must name a rate from 1e-36 to 1e+36"),
        ("--task nope", "no task 'nope'. Choose from bytes, digits, rnn, vit"),
        ("--task byte", "no task 'byte'. Did you mean bytes?"),
        ("--task digits --data .", "--data is for bytes, rnn; digits brings its own."),
        ("--task digits --heads 2", "--heads is for bytes, vit; digits takes"),
        ("--steps 0", "--steps must be at least 1, got 0"),
        ("--trials 0", "--trials must be at least 1"),
        ("--warmup 1", "--warmup must be a part of all steps, in [0, 1), got 1"),
        ("--schedule slow", "no schedule 'slow'. Choose from linear, cosine"),
        ("--tune speed", "no hyperparameter 'speed'."),
        (
            "--recipes adamw(b3=1)",
            "adamw takes no 'b3', in 'adamw(b3=1)'. It takes lear",
        ),
        ("--recipes adamw(b2=x)", "'x' in 'adamw(b2=x)' must be a number"),
        ("--recipes adamw(b2=0.9..0.8)", "must go from a number to a larger one"),
        ("--recipes adamw(b2=0.9", "'adamw(b2=0.9' must close its bracket"),
        ("--recipes adamw(learning_rate='x@y')", "must be a number, got 'x@y'"),
        ("--recipes adamw(b2)", "must read name=0.9, name=0.9|0.99 or name=0.05..1."),
        ("--recipes adamw(b2=1,b2=2)", "'b2' is there twice"),
        ("--recipes adamw(learning_rate=0.1..1)@0.3", "'learning_rate' is there twice"),
        ("--recipes adamw(learning_rate=0.1)@0.3", "'learning_rate' is there twice"),
        ("--recipes builtins:dict", "'builtins:dict' must say what it takes"),
        (
            "--recipes math:sqrt",
            "'math:sqrt' must take learning_rate, as gk.adamw does",
        ),
        ("--recipes math:pi", "'math:pi' must be a function of learning_rate"),
        ("--seeds -1", "--seeds must be at least 1"),
        ("--task digits --steps 1000000000", "would take at least 56 GB"),
        ("--task digits --seeds 1000000000", "--seeds must be at most 100000"),
        ("--trials 1000000", "--trials must be at most 100000, got 1000000"),
        ("--data nowhere", "no data at nowhere"),
        ("--data full/one.txt/in", "no data at full/one.txt/in"),
        ("--data link", "no data at link"),
        ("--data /dev/zero", "/dev/zero is no regular file"),
        ("--data fifo", "fifo is no regular file"),
        (f"--data {'a' * 5000}", "File name too long"),
        ("--data full --out full", "full is where results go, in full"),
        ("--data full/one.txt --out full", "full/one.txt is where results go, in full"),
        ("--task digits --out link", "link is a link to gone, which is not there"),
        ("--task digits --out link/in", "link is a link to gone, which is not there"),
        ("--task digits --out taken", "taken/results.json is a folder"),
        ("--task digits --out foreign", "foreign/settings.json was not written by a"),
        ("--task digits --out foreign --resume", "was not written by a race"),
        ("--task digits --out \udcff", "\\udcff is no UTF-8, which checkpoints need"),
        ("--data empty", "too little data: 0 bytes"),
        ("--data empty/one.txt", "too little data: 0 bytes"),
        ("--data empty --out full", "too little data"),
        ("--task digits --out full", "full is not empty and holds no race"),
        ("--task digits --out full/one.txt", "cannot write to full/one.txt"),
        ("--task digits --out full/one.txt/in", "cannot write to full/one.txt/in"),
    ],
)
def test_a_wrong_request_says_so_in_one_line(tmp_path, monkeypatch, wrong, said):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "full"):
        pathlib.Path(folder).mkdir()
        pathlib.Path(folder, "one.txt").touch()
    pathlib.Path("taken", "results.json").mkdir(parents=True)
    pathlib.Path("foreign").mkdir()
    pathlib.Path("foreign", "settings.json").write_text('{"editor.fontSize": 12}')
    pathlib.Path("link").symlink_to("gone")
    os.mkfifo("fifo")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["race", *wrong.split()])
    assert result.exit_code == 2 and said in result.stderr
    assert result.stderr.startswith("gradkit: ") and result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_race_does_not_read_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(20):
        pathlib.Path(f"{i}.txt").write_bytes(bytes([i]) * 50)
    out = pathlib.Path("runs/race")

    def read() -> tuple[str, str]:
        task = tasks.next_byte(
            pathlib.Path("."), without=out, width=4, batch=2, context=8
        )
        return tasks.fingerprint(task), task.summary

    before = read()
    assert f"the next byte of {tmp_path.name} (" in before[1]
    out.mkdir(parents=True)
    (out / "settings.json").write_text("{}")
    pathlib.Path("latest").symlink_to(out / "settings.json")
    assert read() == before
    pathlib.Path("runs/other").write_text("This is data.")
    assert read() != before


def test_names_are_shown_as_they_are(tmp_path):
    odd = os.fsdecode(b"mk[v2] [bold] :dog: \xff")
    folder = tmp_path / odd
    folder.mkdir()
    for i in range(20):
        (folder / os.fsdecode(b"\xff%d" % i)).write_bytes(bytes([i]) * 50)
    task = tasks.next_byte(folder, width=8, layers=1, context=8, batch=1)
    shown = "the next byte of mk[v2] [bold] :dog: \\udcff ("
    assert task.summary.startswith(shown)
    console = screen.console()
    with console.capture() as said:
        console.print("-", task.summary, soft_wrap=True)
    assert shown in said.get()


def test_make_race_touches_no_race_of_a_users_own():
    makefile = pathlib.Path(__file__).parents[1] / "Makefile"
    (recipe,) = re.findall(r"^race:.*\n((?:\t.*\n)+)", makefile.read_text(), re.M)
    assert "rm " not in recipe and "--resume" not in recipe
    assert (
        "--out runs/make-race-$$(date " in recipe
    )  # new each time, and not the default


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def forbid(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(Complaint, match=f"cannot read {tmp_path}: Permission denied."):
        text.given(tmp_path)


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "results.json")

    out = tmp_path / "out"
    monkeypatch.setattr(np, "savez", full)
    said = refused("race", *TWO, "--steps", 1, "--out", out)
    assert "No space left on device. Mend that" in said and "\n" not in said
    monkeypatch.undo()
    monkeypatch.setattr(gk, "race", lambda *_, **__: None)
    monkeypatch.setattr(start.report, "results", full)
    assert refused("race", *TWO, "--steps", 1, "--out", out, "--resume") == (
        "gradkit: [Errno 28] No space left on device: 'results.json'. "
        "Once that is mended, the same command with --resume goes on."
    )


def test_what_does_not_fit_into_memory_is_said_in_one_line(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB.\nBuffers: all")

    monkeypatch.setattr(gk, "race", full)
    said = refused("race", *TWO, "--steps", 1, "--out", tmp_path / "out")
    assert said == "gradkit: out of memory: RESOURCE_EXHAUSTED: 9 GB. Ask for less."


def test_calls_say_what_is_fixed_and_what_is_tuned():
    task = tasks.lstsq(width=8)
    spec = (
        "adamw(b2=0.95|0.99), muon(adam_lr_ratio=0.05..1,momentum=0.9)@0.02,"
        "adamw(weight_decay=0.3)@3e-3,optax:sgd(momentum=0..0.9)"
    )
    with pytest.raises(Complaint, match="takes no 'momentum'"):
        plan.plan("lion(momentum=0.9)", steps=2)
    entries = plan.plan(spec, steps=2, tune="rate,b1").entries(task)
    first, muon, second, sgd = entries.values()
    assert [*entries] == [
        "adamw(b2=0.95|0.99)",
        "muon",
        "adamw(weight_decay=0.3)@3e-3",
        "optax:sgd",
    ]
    assert first.space["b2"] == [0.95, 0.99] and first.space["b1"] == gk.Uniform(
        0.8, 0.98
    )
    assert first.about == "adamw(weight_decay=0.01)"
    assert muon.space["adam_lr_ratio"] == gk.LogUniform(0.05, 1.0)
    assert muon.space["learning_rate"] == pytest.approx((0.002, 0.2))
    assert "momentum=0.9" in muon.about
    assert second.space["learning_rate"] == pytest.approx((3e-4, 3e-2))
    assert "weight_decay=0.3" in second.about
    assert sgd.space["momentum"] == gk.Uniform(0.0, 0.9)
    assert "learning_rate" not in sgd.space
    (fixed,) = plan.plan("sgd(learning_rate=0.1)", steps=2).entries(task).values()
    assert fixed.about == "sgd(learning_rate=0.1, weight_decay=0.01)"
    default = gk.race({"a": muon._replace(space={"b1": [0.9]})}, bowl(), 1, trials=1)
    assert default.results["a"].trials.space["learning_rate"] == pytest.approx(
        (0.02 / 3, 2.0)
    )


def test_every_recipe_has_the_same_budget():
    task = tasks.lstsq(width=8, batch=8)
    entries = plan.plan("adamw,muon(adam_lr_ratio=0.05..1)", steps=3).entries(task)
    found = gk.race(entries, task, 3, trials=6, seeds=1)
    for result in found.results.values():
        assert len(result.trials.points) == 6
        assert len({point["learning_rate"] for point in result.trials.points}) == 6
    ratios = [point["adam_lr_ratio"] for point in found.results["muon"].trials.points]
    assert min(ratios) < 0.15 and max(ratios) > 0.4


def test_lists_are_tried_in_as_many_points_as_they_have():
    lists = {"learning_rate": [0.1, 0.2, 0.3], "momentum": [0.0, 0.5, 0.9]}
    for trials, count in ((2, 2), (8, 8), (9, 9), (20, 9)):
        found = [*map(repr, space.points("race", lists, trials, 0))]
        assert len(found) == len({*found}) == count


@pytest.mark.parametrize("kind", plan.SCHEDULES)
def test_schedules_of_a_race_rise_and_take_traced_rates(kind):
    made = plan.plan("sgd", steps=20, schedule=kind, cooldown=0.25).schedule
    rates = jax.jit(lambda peak: jnp.stack([made(peak, 20)(i) for i in range(20)]))(2.0)
    assert rates[0] == pytest.approx(1.0) and rates.max() == pytest.approx(2.0)
    fallen = {"linear": 0.112, "cosine": 0.016, "wsd": 0.4, "sqrt": 0.22, "constant": 2}
    assert rates[19] == pytest.approx(fallen[kind], abs=0.03)
    assert (rates[12] == pytest.approx(2.0)) == (kind in ("wsd", "sqrt", "constant"))
    made(0.1, 1)(0)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(k, marks=[pytest.mark.slow] * (k not in REPRESENTATIVE))
        for k in RECIPES
    ],
)
def test_every_recipe_can_race(name):
    task = tasks.lstsq(width=4, batch=2)
    (entry,) = plan.plan(name, steps=2).entries(task).values()
    params = jax.eval_shape(task.init, jax.random.key(0))

    def steps(rate: jax.Array, key: jax.Array) -> Any:
        tx = optax.with_extra_args_support(entry.make_tx(learning_rate=rate))
        params = task.init(key)
        loss, grads = jax.value_and_grad(task.loss)(params, task.data(key))
        updates, _ = tx.update(grads, tx.init(params), params, value=loss)
        return optax.apply_updates(params, updates)

    assert jax.eval_shape(steps, jnp.float32(0.1), jax.random.key(0)) == params


def test_a_race_in_python_is_runs_one_by_one():
    task = tasks.lstsq(width=8, batch=8)
    raced = gk.race({"adamw": gk.adamw}, task, 20, trials=3, seeds=2)
    found: Any = raced.results["adamw"]
    rate = gk.schedule_by_linear_decay(found.point["learning_rate"], steps=20, warmup=2)
    tx, (first, batches) = gk.adamw(rate), jax.random.split(jax.random.key(1))
    params = task.init(first)
    state, losses = tx.init(params), []
    step = jax.jit(jax.value_and_grad(task.loss))
    for key in jax.random.split(batches, 20):
        loss, grads = step(params, task.data(key))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    np.testing.assert_allclose(found.report.losses[0, 1], losses, rtol=1e-3)
    np.testing.assert_allclose(found.losses[1], task.test(params), rtol=1e-3)
    assert found.report.marks == tuple(range(1, 21))
    assert found.steps_to(found.curve[9]) <= 10 and found.steps_to(0.0) is None


def bowl(scale: float = 1.0) -> gk.Task:
    """Two numbers that any recipe finds."""
    target = scale * jnp.array([1.0, -2.0])
    loss = lambda w, x: jnp.mean((w - x) ** 2)
    held_out = lambda w: loss(w, target)
    data = lambda key: target + 0.1 * jax.random.normal(key, (2,))
    init = lambda key: jnp.zeros(2)
    return gk.Task("bowl", init, loss, data, held_out, held_out)


def test_a_recipe_that_always_diverges_is_a_row():
    lost = gk.RaceEntry(gk.sgd, {"learning_rate": [1e20, 1e30]})
    found = gk.race({"adamw": gk.adamw, "sgd": lost}, bowl(), 8, trials=2)
    assert [name for name, _ in found.ranked()] == ["adamw", "sgd"]
    assert "Every trial diverged: sgd." in found.table()
    assert found.rows()[1]["steps_to_adamw"] is None
    figure, axes = plt.subplots(1, 2)
    found.plot(axes)
    plt.close(figure)
    blind = bowl()._replace(validation=lambda w: jnp.float32(jnp.nan))
    unjudged = gk.race({"sgd": gk.sgd}, blind, 4, trials=2).results["sgd"]
    assert unjudged.pick is None  # and not the one of the lowest training loss
    written = report.results({"schedule": {}}, found)["recipes"]["sgd"]
    assert written["test_loss"] is None and written["chosen"] is None


def test_a_picture_has_a_line_for_each_recipe_and_one_for_each_grid():
    found = gk.race({"adamw": gk.adamw, "sgd": gk.sgd}, bowl(), 8, trials=3)
    figure, (fall, tuned) = plt.subplots(1, 2)
    found.plot((fall, tuned))
    assert sorted(line.get_label().split()[0] for line in fall.get_lines()) == [
        "adamw",
        "sgd",
    ]
    assert tuned.get_xscale() == "log" and len(tuned.get_lines()) == 4
    plt.close(figure)


def recipe(wrong: str, learning_rate: Any = 0.1) -> Any:
    """A recipe that ends in an error where `wrong` says, with one of its own."""

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"the {wrong}\nis broken.")

    if wrong == "factory":
        fails()
    made = gk.sgd(learning_rate)._asdict()
    return optax.GradientTransformationExtraArgs(**made | {wrong: fails})


def narrowed(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    """Updates as they are, and a state of another dtype."""
    del params
    return updates, state.astype(jnp.float16)


NARROWED = optax.GradientTransformation(lambda params: params, narrowed)
BAD: Any = gk.RaceEntry  # with what it does not take


@pytest.mark.parametrize("wrong", ["factory", "init", "update"])
def test_an_error_of_a_recipe_names_it_and_is_kept(tmp_path, monkeypatch, wrong):
    make = functools.partial(recipe, wrong)
    asked = []
    watched = {"watch": asked.append, "trials": 2}
    with pytest.raises(ValueError, match=f"'mine' must .* the {wrong} is br") as found:
        gk.race({"sgd": gk.sgd, "mine": make}, bowl(), 2, **watched)
    assert isinstance(found.value.__cause__, RuntimeError) and not asked
    module = types.ModuleType("mine")
    module.__dict__.update(make=make)
    monkeypatch.setitem(sys.modules, "mine", module)
    command = ["race", *SMALL, "--recipes=sgd,mine:make", f"--out={tmp_path}/out"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1  # no bars
    assert result.stderr.startswith("gradkit: recipe 'mine:make' must ")


def test_bars_are_full_in_the_end_and_gone_above_an_error():
    def shown(error: Exception | None) -> str:
        to = io.StringIO()
        now = SimpleNamespace(finished=1, points=2, step=0, steps=2, loss=3e-7)
        with (
            contextlib.suppress(KeyError, progress.Stopped),
            progress.board(["adamw", "sgd"], Console(file=to)) as watch,
        ):
            if error is not None:
                watch(SimpleNamespace(recipe="sgd", reporting=False, progress=now))
                raise error
        return to.getvalue()

    assert shown(None).count("100%") == 2
    assert shown(KeyError()).splitlines() == ["sgd: tuning"]
    stopped = shown(progress.Stopped(2))
    assert "100%" in stopped and "25%" in stopped and "3e-07" in stopped


def test_small_losses_and_few_trials_are_said_as_they_are():
    entries = {
        "one": gk.RaceEntry(gk.sgd, {"learning_rate": [0.1]}),
        "many": gk.RaceEntry(gk.sgd, {"learning_rate": [0.1, 0.2]}),
    }
    found = gk.race(entries, bowl(), 2, trials=4, seeds=1)
    result: Any = found.results["one"]
    result.report.curves[:] = [[[1e-3, 3e-7]]]
    result = result._replace(seconds_per_step=4e-7)
    found = found._replace(results={**found.results, "one": result})
    assert re.search(r"^one .* 3e-7  .* 0.0004 ", found.table(), re.M)
    figure, axes = plt.subplots(1, 2)
    found.plot(axes)
    assert axes[0].get_yscale() == "log"
    assert axes[0].get_legend_handles_labels()[1][0] == "one 3e-7"
    plt.close(figure)
    settings = {"task": "bowl", "summary": "", "steps": 2, "trials": 4, "seeds": 1}
    shape = {"kind": "linear", "warmup": 0.1, "cooldown": 0.2}
    settings |= {"tuning_seeds": 1, "schedule": shape}
    settings["recipes"] = {name: {"fixed": "sgd()"} for name in entries}
    task, trials, *_ = report.notes(report.results(settings, found))
    assert task == "Task bowl: 2 steps."
    assert trials.startswith("many has 2 trials, one has 1 trial from 1 seed; ")
    assert "from 1 other seed, and" in trials and "Student" not in trials


def test_one_trial_is_the_middle():
    space = {"learning_rate": gk.LogUniform(1e-3, 1e-1), "momentum": [0.0, 0.5, 0.9]}
    found = gk.race({"sgd": gk.RaceEntry(gk.sgd, space)}, bowl(), 2, trials=1)
    (point,) = found.results["sgd"].trials.points
    assert point == {"learning_rate": pytest.approx(1e-2), "momentum": 0.5}


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"recipes": {}}, "recipes must name one factory or more, got {}"),
        ({"recipes": {"a": 1}}, "recipes['a'] must be a factory or a gk.RaceEntry"),
        (
            {
                "recipes": {
                    "a": gk.RaceEntry(gk.lion, {"learning_rate": [1.0], "b9": [1]})
                }
            },
            "recipe 'a' must make a transform of learning_rate=1, b9=1, got gradkit.lion: ",
        ),
        (
            {
                "recipes": {
                    "sgd": gk.sgd,
                    "a": gk.RaceEntry(gk.adamw, {"b2": gk.Uniform(-1, 1)}),
                }
            },
            "at least 0 and below 1, got -",
        ),
        ({"recipes": {"a": lambda learning_rate: 3}}, "'a' must return a transform,"),
        (
            {"recipes": {"a": lambda learning_rate: {}["x"]}},
            "got KeyError: 'x'. Change",
        ),
        (
            {
                "recipes": {
                    "a": gk.RaceEntry(
                        lambda learning_rate, b1: gk.adamw(learning_rate, b1=float(b1)),
                        {"b1": gk.Uniform(0, 0.9)},
                    )
                }
            },
            "recipe 'a' must init and update in a jitted step, got Concretization",
        ),
        ({"recipes": {"a": lambda learning_rate: NARROWED}}, "got float16[2] instead"),
        ({"recipes": {"a": BAD(gk.sgd, None)}}, "space of recipes['a'] must"),
        ({"recipes": {"a": BAD(gk.sgd, [1])}}, "space of recipes['a'] must"),
        ({"recipes": {"a": BAD(3, {})}}, "recipes['a'] must be a factory"),
        ({"recipes": {3: gk.sgd}}, "recipes must be named by text, got 3"),
        ({"schedule": "cosine"}, "schedule must be a function (peak rate, steps)"),
        ({"schedule": lambda rate: rate}, "-> schedule, got TypeError: "),
        ({"schedule": lambda rate, steps: jnp.ones(3)}, "got one that gives"),
        ({"memory": -1}, "memory must be above 0, got -1"),
        ({"memory": 1}, "Give more, or use a smaller model."),
        ({"task": "bytes"}, "task must be a gk.Task, got str"),
        ({"task": bowl()._replace(test=lambda w: w)}, "test must return one number"),
        (
            {"task": bowl()._replace(validation=lambda w: w)},
            "validation must return one",
        ),
        ({"steps": 0}, "steps must be"),
        ({"trials": 0}, "trials must be"),
        ({"seeds": 0}, "seeds must be"),
        (
            {"recipes": {"a b": gk.sgd, "a/b": gk.sgd}, "folder": "runs"},
            "names that differ in letters and digits",
        ),
    ],
)
def test_bad_arguments_are_named(tmp_path, monkeypatch, changed, said):
    monkeypatch.chdir(tmp_path)
    arguments: Any = {"recipes": {"sgd": gk.sgd}, "task": bowl(), "steps": 2} | changed
    with pytest.raises((TypeError, ValueError)) as found:
        gk.race(**arguments)
    assert str(found.value).startswith("gradkit.race: ") and said in str(found.value)
    assert ".." not in str(found.value) and "make_tx" not in str(found.value)


def test_profiles_and_scores_are_those_of_algoperf():
    costs = {"a": np.array([0.5, 1.0]), "b": np.array([1.0, np.inf])}
    assert bench.profile(costs)["b"].tolist() == [2.0, math.inf]
    assert bench.scores(costs) == {"a": 1.0, "b": pytest.approx((4 - 2) / 3 / 2)}


def test_a_bench_races_on_each_task_and_goes_on(tmp_path, monkeypatch):
    small = {"lstsq": tasks.lstsq(width=4, batch=4), "digits": tasks.lstsq(width=6)}
    monkeypatch.setattr(tasks, "named", lambda name: small[name]._replace(name=name))
    arguments = ["bench", "--tasks=lstsq,digits", "--recipes=adamw,sgd", "--steps=8"]
    arguments += ["--trials=2", "--seeds=2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Steps and time to the test loss of tuned adamw" in result.stdout
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["steps"]["adamw"] == {"lstsq": 1.0, "digits": 1.0}
    assert {*found["score_by_time"]} == {"adamw", "sgd"}
    assert "| adamw |" in (tmp_path / "out" / "table.md").read_text()
    assert "Add --resume" in refused(*arguments)
    runs = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("run_*")}
    assert CliRunner().invoke(app, [*arguments, "--resume"]).exit_code == 0
    assert runs == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("run_*")}
    assert "--target must be one of the recipes" in refused(
        *arguments, "--target", "muon"
    )


def test_held_out_files_are_chosen_by_name_alone(tmp_path):
    for root in (tmp_path / "here", tmp_path / "there"):
        for i in range(20):
            (root / f"{i % 3}").mkdir(parents=True, exist_ok=True)
            (root / f"{i % 3}" / f"{i}.txt").write_bytes(bytes([i]))
        (root / ".hidden").mkdir()
        (root / ".hidden" / "file").write_bytes(b"x")
    parts = text.given(tmp_path / "here")
    assert sorted(np.concatenate(parts)) == list(range(20))
    assert [len(part) for part in parts] == [18, 1, 1]
    for here, there in zip(parts, text.given(tmp_path / "there")):
        assert np.array_equal(here, there)
    single = tmp_path / "one" / "file.txt"
    single.parent.mkdir()
    single.write_bytes(bytes(range(100)))
    for path in single, single.parent:
        assert [len(part) for part in text.given(path)] == [90, 5, 5]
    parts = text.standard_library()
    assert len(parts.train) > 1e6 and len(parts.test) > 1e5


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    checkpoints.write_json(path, [1.5])
    with pytest.raises(ValueError):
        checkpoints.write_json(path, [math.nan])
    assert json.loads(path.read_text()) == [1.5]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(Complaint, match="cannot write"):
        checkpoints.claim(path, {"steps": 1}, resume=False)
