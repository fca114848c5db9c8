"""A race is fair, says what it found, and survives being stopped."""

import functools
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entry import REPRESENTATIVE
from typer.testing import CliRunner

import gradkit as gk
from gradkit._lab import (
    checkpoints,
    plots,
    program,
    report,
    screen,
    start,
    sweep,
    tasks,
    text,
    verdict,
)
from gradkit._lab import race as race_of
from gradkit._lab.complaint import Complaint
from gradkit._lab.plan import plan
from gradkit.catalogue import METHODS
from gradkit.cli import app

RECIPES = [m.name for m in METHODS if m.kind == "recipe"]
TIMES = ("seconds_per_step", "compile_seconds")  # all else is equal, bit for bit
SMALL = ["--task=digits", "--recipes=adamw,lion", "--rates=2", "--seeds=1"]
LONG = [*SMALL, "--steps=20", "--save-every=1"]


def race(*arguments: object) -> str:
    """What a race that ends well says."""
    result = CliRunner().invoke(app, ["race", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def results(out: pathlib.Path) -> dict:
    """Everything in results.json but times."""
    found = json.loads((out / "results.json").read_text())
    for result in found["recipes"].values():
        for name in TIMES:
            assert result.pop(name) > 0
    return found


def send(out: pathlib.Path, recipe: str, number: signal.Signals) -> tuple[int, str]:
    """Start or resume a race, and send it a signal once `recipe` has a checkpoint."""
    command = [sys.executable, "-m", "gradkit.cli", "race", *LONG, "--resume", "--out"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, str(out)], **pipes)
    while process.poll() is None and not list(out.glob(f"checkpoints/{recipe}/[0-9]*")):
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate()
    return process.returncode, said


def test_a_race_stopped_twice_ends_with_the_same_numbers(tmp_path):
    race(*LONG, "--out", tmp_path / "whole")
    whole, out = results(tmp_path / "whole"), tmp_path / "stopped"
    code, said = send(out, "adamw", signal.SIGINT)
    assert code == 130 and "The same command with --resume goes on." in said
    assert not (out / "recipes" / "adamw.json").exists()
    code, _ = send(out, "lion", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert [path.name for path in (out / "recipes").iterdir()] == ["adamw.json"]
    assert not (out / "results.json").exists()
    race(*LONG, "--out", out, "--resume")
    assert results(out) == whole
    assert not (out / "checkpoints").exists()


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> pathlib.Path:
    """The folder of a short race."""
    out = tmp_path_factory.mktemp("race") / "new" / "folder"
    said = race(*SMALL, "--steps", 6, "--out", out)
    assert "adamw" in said and "results.json" in said
    return out


def test_a_race_leaves_a_table_a_picture_and_all_numbers(done):
    found = results(done)
    adamw, lion = found["recipes"]["adamw"], found["recipes"]["lion"]
    assert np.shape(adamw["final_eval_loss"]) == (2, 1)
    assert lion["rates"] == [1e-4, 1e-2]
    assert len(adamw["curve"]) == 6 and adamw["best_rate"] in adamw["rates"]
    assert adamw["steps_to_adamw"] <= 6 and adamw["best_at_edge"]
    assert adamw["state_bytes"] == 8 * adamw["parameters"] + 12
    assert found["versions"]["jax"] == jax.__version__
    table = (done / "table.md").read_text()
    assert all(f"| {name} |" in table for name in ("adamw", "lion"))
    assert (done / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in done.iterdir()) == [
        "curves.png",
        "recipes",
        "results.json",
        "settings.json",
        "table.md",
    ]


@pytest.mark.parametrize(
    "changed, said",
    [
        ([], "Add --resume"),
        (["--resume", "--steps", 7], "steps was 6, now 7"),
        (["--resume", "--recipes", "adamw"], "rates was"),
        (["--resume", "--seeds", 2], "seeds was 1, now 2"),
    ],
)
def test_what_a_folder_holds_is_never_lost(done, changed, said):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    arguments = ["race", *SMALL, "--steps", 6, "--out", done, *changed]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2 and said in result.stderr
    assert result.stderr.count("\n") == 1
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*")}


def test_a_finished_race_is_not_run_again(done):
    before = results(done)
    clock = (done / "recipes" / "adamw.json").stat().st_mtime_ns
    race(*SMALL, "--steps", 6, "--out", done, "--resume")
    assert results(done) == before
    assert (done / "recipes" / "adamw.json").stat().st_mtime_ns == clock


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
        ("--task nope", "no task 'nope'. Choose from bytes, digits"),
        ("--task byte", "no task 'byte'. Did you mean bytes?"),
        ("--task digits --data .", "--data is for the task bytes"),
        ("--steps 0", "--steps must be at least 1, got 0"),
        ("--rates 0", "--rates must be at least 1"),
        ("--seeds -1", "--seeds must be at least 1"),
        ("--save-every 0", "--save-every must be at least 1"),
        ("--task digits --steps 1000000000", "would take at least 2,"),
        ("--task digits --seeds 1000000000", "would take at least 1,"),
        ("--rates 1000000", "--rates must be at most 400, got 1000000"),
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
        task = start.task("bytes", pathlib.Path("."), out)
        return task.fingerprint(), task.summary

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
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "results.json")

    monkeypatch.setattr(race_of, "run", lambda *_: {})
    monkeypatch.setattr(start.report, "results", full)
    arguments = ["race", *SMALL, "--steps", "1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "gradkit: [Errno 28] No space left on device: 'results.json'. "
        "Once that is mended, the same command with --resume goes on."
    )


def test_what_does_not_fit_into_memory_is_said_in_one_line(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB.\nBuffers: all")

    monkeypatch.setattr(race_of, "run", full)
    arguments = ["race", *SMALL, "--steps", "1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    said = "gradkit: out of memory: RESOURCE_EXHAUSTED: 9 GB. Ask for less."
    assert result.exit_code == 2 and result.stderr.splitlines()[-1] == said


@pytest.fixture(scope="module")
def tiny() -> tuple[tasks.Task, program.Ground]:
    """A task of hardly any work, and what all its runs share."""
    task = tasks.digits(width=2, batch=4)
    return task, program.ground(task, steps=5, seeds=2)


@pytest.mark.parametrize(
    "name, given", [("adamw", {}), ("fira", {"rank": 1, "every": 2})]
)
def test_every_run_of_a_sweep_is_an_ordinary_run(tiny, name, given):
    task, ground = tiny
    rates, recipe = [0.01, 0.1], functools.partial(getattr(gk, name), **given)
    swept = sweep.prepare(task, recipe, rates, ground)
    state = swept.advance(swept.advance(swept.start, 0, 2), 2, 5)
    tx = recipe(learning_rate=program.schedule(rates[1], 5))

    @jax.jit
    def step(params, opt, order):
        batch = task.examples(task.train, order)
        loss, grads = jax.value_and_grad(task.loss)(params, batch)
        updates, opt = tx.update(grads, opt, params)
        return gk.apply_updates(params, updates), opt, loss

    params = jax.tree.map(lambda p: p[1], ground.params)
    opt, losses = tx.init(params), []
    for order in ground.order[:, 1]:
        params, opt, loss = step(params, opt, order)
        losses.append(loss)
    np.testing.assert_allclose(state.losses[:, 1, 1], losses, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(k, marks=[pytest.mark.slow] * (k not in REPRESENTATIVE))
        for k in RECIPES
    ],
)
def test_every_recipe_can_race(tiny, name):
    task, ground = tiny
    traced = program.program(task, getattr(gk, name), [0.1], ground)
    start = jax.eval_shape(traced.begin, ground)
    assert jax.eval_shape(traced.advance, start, ground, 0, 1) == start
    assert plan(name, steps=2, rates=3, seeds=1).rates[name][1] > 0


def test_a_transformer_learns_the_next_byte(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"abcdefgh" * 200)
    task = tasks.next_byte(path, width=8, layers=1, heads=2, context=8, batch=4)
    ground = program.ground(task, steps=30, seeds=1)
    swept = sweep.prepare(task, gk.adamw, [0.05], ground)
    state = swept.advance(swept.start, 0, 30)
    assert state.losses[0, 0, 0] > 5 > 1 > state.losses[-1, 0, 0]
    assert sweep.examiner(task)(state.params).item() < 1
    logits = [
        task.loss(jax.tree.map(lambda p: p[0, 0], state.params), jnp.asarray([w]))
        for w in ([1, 2, 3, 4], [1, 2, 3, 5])
    ]
    assert logits[0] != logits[1]


def test_held_out_files_are_chosen_by_name_alone(tmp_path):
    for root in (tmp_path / "here", tmp_path / "there"):
        for i in range(20):
            (root / f"{i % 3}").mkdir(parents=True, exist_ok=True)
            (root / f"{i % 3}" / f"{i}.txt").write_bytes(bytes([i]))
        (root / ".hidden").mkdir()
        (root / ".hidden" / "file").write_bytes(b"x")
    train, held_out = text.given(tmp_path / "here")
    assert sorted([*train, *held_out]) == list(range(20)) and len(held_out) == 2
    assert np.array_equal(held_out, text.given(tmp_path / "there")[1])
    single = tmp_path / "one" / "file.txt"
    single.parent.mkdir()
    single.write_bytes(bytes(range(100)))
    for path in single, single.parent:
        assert [len(part) for part in text.given(path)] == [90, 10]
    train, held_out = text.standard_library()
    assert len(train) > 1e6 and len(held_out) > 1e5


def test_a_grid_is_log_spaced_over_two_decades():
    assert program.grid(0.01, 1) == [0.01]
    assert program.grid(0.01, 5) == [0.001, 0.00316, 0.01, 0.0316, 0.1]
    planned = plan("adamw,lion@0.5", steps=12, rates=3, seeds=1)
    assert planned.rates == {"adamw": [0.001, 0.01, 0.1], "lion": [0.05, 0.5, 5.0]}
    assert planned.save_every == 3


def test_the_best_rate_is_where_no_seed_diverges():
    losses = np.ones((40, 3, 2)) * np.linspace(5, 1, 40)[:, None, None]
    held_out = np.array([[2.0, 2.2], [1.9, 2.1], [1.0, math.nan]])
    judged = verdict.judge([1.0, 2.0, 3.0], losses, held_out)
    assert judged["best_rate"] == 2.0 and not judged["best_at_edge"]
    assert judged["final_eval_loss"][2] == [1.0, None]
    assert verdict.final(judged) == 2.0
    assert verdict.steps_to(judged["curve"], 3.0) == 22  # a mean of four steps
    assert verdict.steps_to(judged["curve"], 0.5) is None


def test_a_recipe_that_always_diverges_is_shown_as_such(done):
    found = json.loads((done / "results.json").read_text())
    nothing = np.full((6, 2, 1), math.nan)
    found["recipes"]["lion"] |= verdict.judge([1.0, 2.0], nothing, nothing[0])
    again = report.results(found["settings"], found["recipes"])
    assert report.standings(again).rows[-1][:4] == (
        "lion",
        "1*",
        "diverged",
        "diverged",
    )
    assert "diverged" in report.markdown(again)
    assert plots.curves(again).startswith(b"\x89PNG")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    checkpoints.write_json(path, [1.5])
    with pytest.raises(ValueError):
        checkpoints.write_json(path, [math.nan])
    assert json.loads(path.read_text()) == [1.5]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(Complaint, match="cannot write"):
        checkpoints.claim(path, {"steps": 1}, resume=False)
