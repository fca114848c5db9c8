# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Race an optimizer of your own
#
# Whether an optimizer is better than another is a question about tuned ones. This page sweeps three
# hyperparameters of AdamW, measures how much the learning rate matters, and then races an
# optimizer of one's own, written in 15 lines, against AdamW and Muon on a task of one's own.

# %%
import importlib.util
import pathlib
import subprocess
import sys

SOURCE = "./..[lab]"  # a clone, here the one around this notebook; or its address:
# SOURCE = "gradkit[lab] @ git+https://..."

if importlib.util.find_spec("gradkit") is None:
    # JAX stays as it is, with its plugin for the accelerator. If pip says that it is too old,
    # renew both, `pip install -U "jax[cuda12]"`, start Python anew and run this cell again.
    pip = [sys.executable, "-m", "pip"]
    there = subprocess.check_output([*pip, "list", "--format=freeze"], text=True)
    jax_there = [line for line in there.splitlines() if line.startswith("jax")]
    pathlib.Path("keep.txt").write_text("\n".join(jax_there))
    subprocess.run([*pip, "install", "-q", "-c", "keep.txt", SOURCE], check=True)

# %%
import argparse
import functools
import os
import pathlib
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradkit as gk

STEPS = int(os.environ.get("GRADKIT_NOTEBOOK_STEPS", 150))
IS_WHOLE = STEPS >= 100
LENGTH, WIDTH = 8, 48  # bytes that the next one is predicted from; of the layers

source = pathlib.Path(argparse.__file__).read_bytes()  # 100 kB of Python to learn
text = np.frombuffer(source, np.uint8) % 128
windows = np.lib.stride_tricks.sliding_window_view(text, LENGTH + 1).astype(np.int32)
cuts = len(windows) * 8 // 10, len(windows) * 9 // 10
training, validation, test = (jnp.asarray(x) for x in np.split(windows, cuts))

# %% [markdown]
# ## A task of one's own
#
# A `gk.Task` is a few pure functions: first parameters from a key, the loss of a batch, a batch from a key, and
# two held-out losses. By the first, hyperparameters are chosen, and by the second they are reported,
# so that no optimizer is praised for the luck of its choice. This network predicts a byte of Python
# from the eight before it.


# %%
def init(key: jax.Array):
    keys = jax.random.split(key, 4)
    dense = lambda key, m, n: jax.random.normal(key, (m, n)) / m**0.5
    return {
        "embed": jax.random.normal(keys[0], (128, 16)) / 4,
        "hidden0": {
            "kernel": dense(keys[1], 16 * LENGTH, WIDTH),
            "bias": jnp.zeros(WIDTH),
        },
        "hidden1": {"kernel": dense(keys[2], WIDTH, WIDTH), "bias": jnp.zeros(WIDTH)},
        "readout": {"kernel": dense(keys[3], WIDTH, 128), "bias": jnp.zeros(128)},
    }


def loss(params, lines: jax.Array) -> jax.Array:
    x = params["embed"][lines[:, :-1]].reshape(len(lines), -1)
    for name in ("hidden0", "hidden1"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    logits = x @ params["readout"]["kernel"] + params["readout"]["bias"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, lines[:, -1])
    return losses.mean()


def batch(key: jax.Array) -> jax.Array:
    return training[jax.random.randint(key, (128,), 0, len(training))]


task = gk.Task(
    "python",
    init=init,
    loss=loss,
    data=batch,
    validation=lambda params: loss(params, validation[::5]),
    test=lambda params: loss(params, test[::5]),
    summary="the next byte of argparse.py from eight, an MLP, batches of 128",
    unit="bytes",
    units=128,
)

# %% [markdown]
# ## A sweep
#
# Three ranges, covered by a Sobol sequence: of any two hyperparameters the points fill the
# plane more evenly than random ones would. Rates are peaks of a schedule.


# %%
def adamw(learning_rate, b1=0.9, weight_decay=0.1, warmup=STEPS // 10):
    rate = gk.schedule_by_linear_decay(learning_rate, steps=STEPS, warmup=warmup)
    return gk.adamw(rate, b1=b1, weight_decay=weight_decay)


space = {
    "learning_rate": gk.LogUniform(1e-3, 1e-1),
    "b1": gk.Uniform(0.5, 0.98),
    "weight_decay": gk.LogUniform(1e-3, 1.0),
}
train = functools.partial(
    gk.sweep, loss=loss, data=batch, steps=STEPS, init=init, held_out=task.validation
)
swept = train(adamw, space, points=32 if IS_WHOLE else 2, seeds=2 if IS_WHOLE else 1)
print(swept.table(most=8))
figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
swept.plot(panels)
plt.show()
pick = swept.pick()
print(pick)

# %% [markdown]
# The rate decides: all of the fall from 2.6 is in its panel, and points of the best rates lie at all values of the
# two others. The best three have b1 below 0.65, but differ by less than the range of their two seeds, and the pick
# is the lowest in 78 % of resamples: its rate can be relied on, the rest not. `at_edge` is empty, so the space was
# wide enough. A bootstrap of two seeds knows only these two; more seeds make its interval worth more.
#
# ## How much does the rate matter?
#
# The two others stay at the pick, and the rate alone goes over the range, with a warm-up and without one.
# The sensitivity is the loss above the best one, on average over the rates: low where it need not be
# tuned well.

# %%
alone = {
    "learning_rate": [*np.geomspace(1e-3, 0.3, 8 if IS_WHOLE else 2)],
    "b1": [pick.point["b1"]],
    "weight_decay": [pick.point["weight_decay"]],
}
figure, panels = plt.subplots(
    1, 2, figsize=(10, 3.4), sharey=True, layout="constrained"
)
for axes, warmup in zip(panels, (STEPS // 10, 0) if IS_WHOLE else (0,)):
    found = train(functools.partial(adamw, warmup=warmup), alone, seeds=1)
    gk.measure_by_learning_rate_sensitivity(found).plot(axes)
    axes.set_title(f"{axes.get_title()}, warm-up {warmup}")
plt.show()

# %% [markdown]
# The best rate is the same, and inside the range. Without a warm-up the loss is higher at a rate of 0.13, and the sensitivity
# is 0.52 where it was 0.50. That warm-up makes the rate matter less is what Wortsman et al. (arXiv:2309.14322)
# found; from one seed and a network this small the difference is no evidence of it.
#
# ## An optimizer of one's own
#
# Adam keeps a second moment for each entry. This one keeps one for each row of a matrix, the mean square of its
# gradients: half of Adam's state is gone. Is much lost?


# %%
class ByRowState(NamedTuple):
    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates  # one for each row


def scale_by_row(b1=0.9, b2=0.98, eps=1e-8):
    def init(params):
        rows = jax.tree.map(lambda p: jnp.zeros_like(p[..., :1]), params)
        return ByRowState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), rows)

    def update(g, state, params=None):
        n, square = state.count + 1, lambda g: jnp.mean(g * g, -1, keepdims=True)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, g)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * square(g), state.nu, g)
        size = lambda v: jnp.sqrt(v / (1 - b2**n)) + eps
        u = jax.tree.map(lambda m, v: m / (1 - b1**n) / size(v), mu, nu)
        return u, ByRowState(n, mu, nu)

    return optax.GradientTransformation(init, update)


def by_row(learning_rate):
    return gk.chain(scale_by_row(), gk.step_by_learning_rate(learning_rate))


# %% [markdown]
# ## The race
#
# Every optimizer gets as many trials, each its own space. The other rate of Muon, for embeddings, readouts and
# biases, is tuned too, from the same eight trials. A folder keeps each run as it ends; `watch` hears of the
# progress, and what it raises ends the race. It is stopped here on purpose, and goes on with the same call.

# %%
rates = gk.LogUniform(1e-3, 1e-1)
recipes = {
    "adamw": gk.RaceEntry(gk.adamw, {"learning_rate": rates}),
    "muon": gk.RaceEntry(
        gk.muon,
        {"learning_rate": rates, "adam_lr_ratio": gk.LogUniform(0.03, 3.0)},
    ),
    "by_row": gk.RaceEntry(by_row, {"learning_rate": rates}),
}
if not IS_WHOLE:
    recipes = {"by_row": recipes["by_row"]}
folder = tempfile.TemporaryDirectory()
run = functools.partial(
    gk.race,
    recipes,
    task,
    STEPS,
    trials=8 if IS_WHOLE else 2,
    seeds=3 if IS_WHOLE else 2,
    folder=folder.name,
)


class Stop(Exception):
    pass


def stop(progress) -> None:
    if progress.reporting:
        raise Stop(f"{progress.recipe} is tuned")


try:
    run(watch=stop)
except Stop as why:
    kept = len([*pathlib.Path(folder.name).rglob("run_*.npz")])
    print(f"stopped when {why}; {kept} runs are kept")
race = run()
print(race.table())

# %%
figure, panels = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
race.plot(panels)
panels[0].legend(frameon=False)
plt.show()
same = run()
assert same.table() == race.table()
folder.cleanup()

# %% [markdown]
# How to read it:
#
# - **Intervals.** `95 %` is Student's t over three seeds that no trial has used. Those of all three overlap
#   widely, so the lower mean of Muon is a hint and no result: more seeds are needed to say so. `by_row` is where
#   AdamW is, in half of the state; whether it is a little worse, this race cannot tell.
# - **Edges.** Where a choice is at the edge of its space, a line below the table says so, and the space has to be wider
#   before that row counts. Here none is. Muon's eight trials cover two ranges, so each is seen more coarsely.
# - **Steps to adamw.** The fraction of all steps after which the mean test loss is at AdamW's last one: Muon is there after
#   three quarters, `by_row` never, by a thousandth. `time` multiplies that by the time of a step. Orthogonalizing costs
#   most of the time in a network this small, so Muon is slower by the clock; a time from a busy machine is rough.
# - **The picture.** Left, the band spans the three seeds. Right are all trials near the best; a star is what was chosen.
#
# The folder had AdamW's eight trials when the race was stopped, and the same call went on after them. A third
# call trained nothing and gave the same table. Functions are not compared: after a change of one, take another
# folder, or change `about` of its entry.
