"""`gk.sweep`: the numbers of runs one by one, nothing lost, nothing silent."""

import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit._core.averages import evaluated
from gradkit._core.measure import trials

STEPS = 12
RATES = [0.01, 0.1, 0.5]
TARGET = jnp.array([1.0, -2.0, 0.5])


def loss(params: Any, batch: jax.Array) -> jax.Array:
    return jnp.mean((params["w"][None] - batch) ** 2)


def data(key: jax.Array) -> jax.Array:
    return TARGET[None] + 0.1 * jax.random.normal(key, (4, 3))


def init(key: jax.Array) -> Any:
    return {"w": jax.random.normal(key, (3,))}


def held_out(params: Any) -> jax.Array:
    return loss(params, TARGET[None])


def adam(learning_rate: Any, b1: Any = 0.9) -> Any:
    return gk.adamw(learning_rate, b1=b1)


sweep = functools.partial(
    gk.sweep, loss=loss, data=data, steps=STEPS, init=init, held_out=held_out
)


def one_by_one(tx: Any, seed: int) -> list[float]:
    """The losses of one run, as a loop of the user's own."""
    for_params, for_batches = jax.random.split(jax.random.key(seed))
    params = init(for_params)
    state, losses = tx.init(params), []
    for key in jax.random.split(for_batches, STEPS):
        value, g = jax.value_and_grad(loss)(params, data(key))
        u, state = tx.update(g, state, params)
        params = optax.apply_updates(params, u)
        losses.append(float(value))
    return [*losses, float(held_out(evaluated(state, params)))]


def test_every_run_is_that_of_a_loop():
    found = sweep(adam, {"learning_rate": RATES, "b1": [0.5, 0.9]}, seeds=2)
    assert found.points == [
        {"learning_rate": rate, "b1": b1}
        for rate, b1 in itertools.product(RATES, [0.5, 0.9])
    ]
    for i, point in enumerate(found.points):
        for seed in range(2):
            *losses, last = one_by_one(adam(**point), seed)
            np.testing.assert_allclose(found.losses[i, seed], losses, rtol=1e-4)
            np.testing.assert_allclose(found.held_out[i, seed], last, rtol=1e-3)
    means = found.held_out.mean(axis=1)
    assert found.pick().point == found.points[int(np.argmin(means))]
    assert len(found.rows()) == 12


def test_names_and_whole_numbers_are_static():
    def make(kind: str, warmup: int, learning_rate: Any) -> Any:
        assert isinstance(warmup, int)
        rate = gk.schedule_by_linear_decay(learning_rate, steps=STEPS, warmup=warmup)
        return getattr(gk, kind)(rate)

    space = {"kind": ["adamw", "lion"], "warmup": [0, 3], "learning_rate": RATES}
    found = sweep(make, space, seeds=1)
    for i in (0, 4, 11):
        *losses, _ = one_by_one(make(**found.points[i]), 0)
        np.testing.assert_allclose(found.losses[i, 0], losses, rtol=1e-4)


def test_ranges_are_covered_and_drawn_alike():
    space = {
        "learning_rate": gk.LogUniform(1e-3, 1.0),
        "b1": gk.Uniform(0.2, 0.9),
    }
    found = sweep(adam, space, points=32, seeds=1)
    rates = np.array([point["learning_rate"] for point in found.points])
    b1s = np.array([point["b1"] for point in found.points])
    thirds = np.histogram(np.log10(rates), 3, (-3, 0))[0]
    assert thirds.min() >= 9 and b1s.min() > 0.2 and b1s.max() < 0.9
    assert np.histogram(b1s, 4, (0.2, 0.9))[0].tolist() == [8] * 4
    assert sweep(adam, space, points=32, seeds=1).points == found.points


def test_points_that_do_not_fit_into_memory_go_in_groups():
    space, seen = {"learning_rate": RATES}, []
    with pytest.raises(ValueError, match=r"gradkit.sweep: memory must be") as refused:
        sweep(adam, space, memory=1)
    least = float(re.findall(r"at least (\S+) bytes", str(refused.value))[0])
    whole, parts = (
        sweep(adam, space),
        sweep(adam, space, memory=1.02 * least, watch=seen.append),
    )
    assert len({progress.finished for progress in seen}) > 1
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-6)


@pytest.fixture(params=["together", "one a core"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How runs are trained: as one batch of arrays, or each as a program of its own."""
    if request.param == "one a core":
        monkeypatch.setattr(trials, "SMALL", 0)
    return request.param


class Killed(Exception):
    """What ends a sweep from outside."""


def test_a_stopped_sweep_goes_on_and_loses_nothing(tmp_path: Any, way: str):
    space = {"learning_rate": RATES, "fast": [True, False]}
    make = lambda learning_rate, fast: adam(learning_rate, 0.5 if fast else 0.9)
    whole, seen = sweep(make, space), []

    def kill(progress: Any) -> None:
        if progress.finished == 3:  # in the second program
            raise Killed

    with pytest.raises(Killed):
        sweep(make, space, folder=tmp_path, watch=kill)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run_*")}
    assert len(kept) >= 9
    again = sweep(make, space, folder=tmp_path, watch=seen.append)
    assert {progress.finished for progress in seen} <= {3, 4, 5, 6}
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.held_out, whole.held_out)
    assert not list(tmp_path.glob("unfinished*"))


@jax.numpy_dtype_promotion("standard")  # as optax.add_noise wants
def test_runs_under_way_go_on_where_they_were(tmp_path: Any, way: str):
    noise = optax.add_noise(0.1, 0.5, jax.random.key(1))
    make = lambda rate: gk.store_by_bfloat16(optax.chain(noise, adam(rate)))
    stopped, seen = [], []

    def kill(progress: Any) -> None:
        stopped.append(progress.step)
        if progress.step >= 5:
            raise Killed

    # so many steps that a run is not over before it can be stopped
    run = functools.partial(
        sweep, make, {"rate": [0.1]}, steps=10_000, seeds=1, held_out_every=4000
    )
    whole = run()
    with pytest.raises(Killed):
        run(folder=tmp_path, watch=kill)
    (under,) = tmp_path.glob("unfinished*")
    kept = under.read_bytes()
    under.write_bytes(kept[:-40])
    with pytest.raises(ValueError, match=r"unfinished_0_0.npz must be .* Delete it"):
        run(folder=tmp_path)
    under.write_bytes(kept)
    again = run(folder=tmp_path, watch=seen.append)
    assert seen[0].step > stopped[-1]
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.curves, whole.curves)


def test_a_folder_is_of_one_sweep_and_one_process(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    space = {"learning_rate": RATES}

    def again(progress: Any) -> None:
        sweep(adam, space, folder=tmp_path)

    with pytest.raises(RuntimeError, match=r"one process, got .* another uses. Wait"):
        sweep(adam, space, folder=tmp_path, watch=again)
    sweep(adam, space, folder=tmp_path)
    with pytest.raises(ValueError, match="a sweep with the same seeds, got"):
        sweep(adam, space, folder=tmp_path, seeds=2)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    with pytest.raises(
        ValueError, match=r"same numerics.*XLA_FLAGS was .*, now --xla_cpu"
    ):
        sweep(adam, space, folder=tmp_path)
    monkeypatch.undo()
    one, other = tmp_path / "run_1_0.npz", tmp_path / "run_2_0.npz"
    kept = one.read_bytes()
    for wrong in b"", b"PK\x03\x04", kept[:-30], kept[:99] + b"\0" + kept[100:]:
        one.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"run_1_0.npz must be .* Delete it"):
            sweep(adam, space, folder=tmp_path)
    one.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match=r"run_1_0.npz must be .* Delete it"):
        sweep(adam, space, folder=tmp_path)
    one.unlink()
    sweep(adam, space, folder=tmp_path)
    assert one.read_bytes() == kept


def test_a_full_disk_is_one_error_and_keeps_what_is_there(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    sweep(adam, {"learning_rate": RATES}, folder=tmp_path)
    (tmp_path / "run_1_0.npz").unlink()
    before = {*tmp_path.iterdir()}
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        OSError, match=r"^gradkit.sweep: folder must be .* No space left"
    ):
        sweep(adam, {"learning_rate": RATES}, folder=tmp_path)
    assert {*tmp_path.iterdir()} == before


def test_larger_models_are_trained_one_run_a_core(monkeypatch: pytest.MonkeyPatch):
    space = {"learning_rate": RATES, "b1": [0.5, 0.9]}
    together = sweep(adam, space, held_out_every=5)
    monkeypatch.setattr(trials, "SMALL", 0)
    alone = sweep(adam, space, held_out_every=5)
    np.testing.assert_allclose(alone.losses, together.losses, rtol=1e-5)
    np.testing.assert_allclose(alone.curves, together.curves, rtol=1e-4)
    assert alone.marks == (5, 10, 12)


def test_curves_end_in_the_held_out_loss_and_seeds_are_the_ones_named():
    found = sweep(adam, {"learning_rate": [0.1]}, seeds=[7, 3], held_out_every=4)
    assert found.marks == (4, 8, 12) and found.curves.shape == (1, 2, 3)
    *losses, last = one_by_one(adam(0.1), 3)
    np.testing.assert_allclose(found.losses[0, 1], losses, rtol=1e-4)
    np.testing.assert_allclose(found.held_out[0, 1], last, rtol=1e-3)
    assert [row["seed"] for row in found.rows()] == [7, 3]


@pytest.mark.parametrize("small", [0, trials.SMALL])
def test_an_average_of_the_parameters_is_what_is_held_out(
    small: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trials, "SMALL", small)

    def averaged(learning_rate: Any) -> Any:
        return gk.chain(gk.sgd(learning_rate), gk.average_params_by_ema(0.9))

    for make in (averaged, gk.schedule_free_adamw):
        found = sweep(make, {"learning_rate": RATES}, seeds=2)
        for i, rate in enumerate(RATES):
            want = [one_by_one(make(rate), seed)[-1] for seed in range(2)]
            np.testing.assert_allclose(found.held_out[i], want, rtol=1e-3)


def test_an_error_in_a_run_is_raised(monkeypatch: pytest.MonkeyPatch):
    def broken(_: Any) -> None:
        raise Killed

    monkeypatch.setattr(trials, "SMALL", 0)
    with pytest.raises(Killed):
        sweep(adam, {"learning_rate": RATES}, watch=broken)


def test_a_run_that_diverges_is_a_row():
    found = sweep(gk.sgd, {"learning_rate": [0.1, 1e30]})
    assert found.pick().point == {"learning_rate": 0.1}
    assert "3 of 3 runs diverged" in found.table()
    lost = sweep(gk.sgd, {"learning_rate": [1e30, 1e35]})
    assert "Every point diverged." in lost.table()
    with pytest.raises(ValueError, match="stay finite from every seed, got none of 2"):
        lost.pick()


def test_halving_trains_the_best_to_the_end():
    space = {"learning_rate": [float(2.0**-k) for k in range(9)]}
    whole, found = sweep(adam, space), sweep(adam, space, halving=3)
    assert sorted(found.steps.tolist()) == [1] * 6 + [4] * 2 + [12]
    (last,) = np.flatnonzero(found.steps == 12)
    np.testing.assert_allclose(found.losses[last], whole.losses[last], rtol=1e-6)
    assert found.pick().point == found.points[last]
    first = whole.losses[:, :, :1].mean(axis=(1, 2))
    assert set(np.flatnonzero(found.steps > 1)) == set(
        np.argsort(first, kind="stable")[:3]
    )
    assert "stopped after 4 steps" in found.table()


def test_edges_of_lists_and_ranges_are_said():
    found = sweep(adam, {"learning_rate": [1e-5, 1e-4, 1e-3], "b1": [0.5, 0.9]})
    assert found.pick().at_edge == ("learning_rate",)
    assert "learning_rate is at the edge of its space" in found.table()


def test_a_state_that_depends_on_the_run_has_a_counter_for_each():
    make = lambda learning_rate: gk.guard_by_finite(gk.sgd(learning_rate))
    found = sweep(make, {"learning_rate": [0.1, 1e38]}, seeds=2)
    *losses, _ = one_by_one(make(0.1), 1)
    np.testing.assert_allclose(found.losses[0, 1], losses, rtol=1e-4)


def test_points_are_spread_over_devices(monkeypatch: pytest.MonkeyPatch):
    assert jax.local_device_count() == 8
    space = {"learning_rate": np.geomspace(1e-2, 1, 8).tolist()}
    spread = sweep(adam, space)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    np.testing.assert_allclose(spread.losses, sweep(adam, space).losses, rtol=1e-5)


def test_the_picture_has_a_panel_for_each_hyperparameter():
    space = {"learning_rate": gk.LogUniform(1e-3, 1.0), "kind": ["adamw", "lion"]}
    make = lambda learning_rate, kind: getattr(gk, kind)(learning_rate)
    figure, axes = plt.subplots(1, 2)
    sweep(make, space, points=8).plot(axes)
    assert axes[0].get_xscale() == "log" and axes[0].get_xlabel() == "learning_rate"
    assert [x.get_text() for x in axes[1].get_xticklabels()] == ["adamw", "lion"]
    plt.close(figure)


@pytest.mark.parametrize(
    "changed,message",
    [
        ({"space": {}}, r"space must name one hyperparameter or more, got \{\}"),
        ({"space": {"learning_rate": 0.1}}, r"must be a list .* Write \[0.1\]"),
        ({"space": {"learning_rate": []}}, "one value or more"),
        ({"space": {"learning_rate": [0.1, 0.1]}}, "all different"),
        ({"space": {"learning_rate": gk.LogUniform(0, 1)}}, "0 < low < high"),
        ({"space": {"learning_rate": gk.Uniform(0.0, 1.0)}}, "points must say how"),
        ({"space": {"rate": [0.1]}}, "make_tx must make a transform of rate=0.1, got"),
        (
            {"space": {"learning_rate": [0.1], "b1": [0.5, -1.0]}},
            r"of learning_rate=0.1, b1=-1, got gradkit.adamw: b1 must be .*, got -1.0\.",
        ),
        (
            {"make_tx": lambda learning_rate: gk.sgd},
            "make_tx must return a transform, wi",
        ),
        ({"memory": -1}, "memory must be above 0, got -1"),
        ({"loss": lambda p, x: jnp.int32(1)}, "loss must return one number"),
        ({"steps": 0}, "steps must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"seeds": []}, "seeds must be a number, or different whole numbers"),
        ({"seeds": [1, 1]}, "seeds must be a number, or different whole numbers"),
        ({"seeds": [-1]}, "seeds must be"),
        ({"held_out_every": 0}, "held_out_every must be"),
        ({"halving": 1}, "halving must be at least 2"),
        ({"loss": lambda p, x: p["w"] ** 2}, "loss must return one number"),
        ({"held_out": lambda p: p["w"]}, "held_out must return one number"),
    ],
)
def test_bad_arguments_are_named(changed: Any, message: str):
    arguments = {"make_tx": adam, "space": {"learning_rate": RATES}, **changed}
    with pytest.raises((ValueError, TypeError), match=f"^gradkit.sweep: .*{message}"):
        sweep(**arguments)


def test_one_point_from_one_seed_is_a_sweep():
    found = sweep(adam, {"learning_rate": [0.1]}, seeds=1)
    assert np.isnan(found.pick().loss.low) and found.pick().at_edge == ()


def test_a_space_without_a_float_is_a_program_for_each_point():
    found = sweep(
        lambda nesterov: gk.sgd(0.1, momentum=0.9, nesterov=nesterov),
        {"nesterov": [True, False]},
    )
    *losses, _ = one_by_one(gk.sgd(0.1, momentum=0.9, nesterov=False), 2)
    np.testing.assert_allclose(found.losses[1, 2], losses, rtol=1e-4)


def test_points_of_lists_are_tried_once():
    make = lambda kind: getattr(gk, kind)(0.1)
    found = sweep(make, {"kind": ["adamw", "lion"]}, points=8)
    assert sorted(point["kind"] for point in found.points) == ["adamw", "lion"]


def test_a_folder_knows_whether_a_held_out_loss_was_measured(tmp_path: Any):
    space = {"learning_rate": RATES}
    for had, has in ((None, held_out), (held_out, None)):
        folder = tmp_path / str(has is None)
        sweep(adam, space, folder=folder, seeds=1, held_out=had)
        with pytest.raises(ValueError, match=r"the same held_out, got .*held_out was"):
            sweep(adam, space, folder=folder, seeds=1, held_out=has)


def test_functions_in_a_space_are_known_by_name_and_place(tmp_path: Any):
    def space() -> Any:
        """The same one, with functions of other addresses, as in another process."""
        rise = gk.schedule_by_linear_decay
        rates = [rise(rate, steps=STEPS) for rate in (0.1, 0.2)]
        return {
            "learning_rate": [*rates, functools.partial(optax.constant_schedule(0.1))]
        }

    first = sweep(adam, space(), folder=tmp_path, seeds=1)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run_*")}
    again = sweep(adam, space(), folder=tmp_path, seeds=1)
    assert len(kept) == 3 and all(p.stat().st_mtime_ns == t for p, t in kept.items())
    np.testing.assert_array_equal(again.losses, first.losses)
    text = first.table()
    assert " at 0x" not in text and "± " not in text
    assert all(f"schedule> ({i})" in text for i in (1, 2))
    figure, axes = plt.subplots()
    first.plot(axes)
    assert [x.get_text()[-3:] for x in axes.get_xticklabels()][:2] == ["(1)", "(2)"]
    plt.close(figure)


def test_rows_and_text_of_points_that_were_stopped():
    space = {"learning_rate": [0.1, 0.2, 0.3, 1e30]}
    found = sweep(gk.sgd, space, halving=4, seeds=2)
    stopped = np.flatnonzero(found.steps == 3)
    losses = {row["learning_rate"]: row["train_loss"] for row in found.rows()}
    for i in stopped[:-1]:
        np.testing.assert_allclose(
            losses[found.points[i]["learning_rate"]], found.losses[i, 1, 2]
        )
    assert not np.isfinite(losses[1e30])
    assert "2 of 2 runs diverged, stopped after 3 steps" in found.table()


@pytest.mark.parametrize(
    "changed,message",
    [
        ({"data": (TARGET, TARGET)}, "data must be a function of key, got tuple"),
        ({"init": {"w": TARGET}}, "init must be a function of key, got dict"),
        ({"held_out": loss}, "held_out must be a function of params, got one that"),
        ({"seeds": [2**40]}, r"seeds must be below 2\*\*31"),
        (
            {"init": lambda key: {"w": TARGET, "f": jnp.tanh}},
            "leaf f of what init returns must be a real floating array, .*partition",
        ),
        (
            {"init": lambda key: {"w": TARGET, "n": jnp.arange(2)}},
            "leaf n of what init returns must be a real floating array, got int32",
        ),
    ],
)
def test_arguments_of_another_kind_are_named(changed: Any, message: str):
    arguments = {"make_tx": adam, "space": {"learning_rate": RATES}, **changed}
    with pytest.raises((ValueError, TypeError), match=f"^gradkit.sweep: .*{message}"):
        sweep(**arguments)
