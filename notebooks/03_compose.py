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
# # Compose an optimizer of your own
#
# A new optimizer is mostly old parts: the direction of one method, the step size of another, an
# exception for some parameters, and one idea that is new. gradkit's parts are transforms that
# take a gradient and return one, and what joins them is a transform again. This page builds
# an optimizer in that way, finds its one new number, watches a run and changes it while it
# goes, and at the end writes the one part that is not there yet and tests it.

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
import functools
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn
from IPython.display import display
from sklearn.datasets import load_digits

import gradkit as gk
from gradkit.testing import check

STEPS = int(os.environ.get("GRADKIT_NOTEBOOK_STEPS", 200))
SEEDS = jnp.arange(3)

pixels, names = load_digits(return_X_y=True)
images, labels = jnp.asarray(pixels / 8 - 1, jnp.float32), jnp.asarray(names)
is_held_out = np.arange(len(labels)) % 5 == 0
held_out = images[is_held_out], labels[is_held_out]
training = images[~is_held_out], labels[~is_held_out]


# %%
class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for name in ("hidden0", "hidden1", "hidden2"):
            x = nn.relu(nn.Dense(64, name=name)(x))
        return nn.Dense(10, name="readout")(x)


def init(key: jax.Array):
    return Net().init(key, images[:1])["params"]


def loss(params, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = Net().apply({"params": params}, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def batch(key: jax.Array):
    at = jax.random.randint(key, (64,), 0, len(training[1]))
    return training[0][at], training[1][at]


params = init(jax.random.key(0))

# %% [markdown]
# ## The direction of one, the size of another
#
# Muon makes the momentum of a hidden matrix orthogonal, so that the update has the same size in
# every direction. It needs a learning rate of its own: Adam's update of a 64 by 64 matrix has a norm
# near 64, an orthogonal one of 8. `gk.graft` takes the direction from one transform and the norm of each
# leaf from another, and the rate that was tuned for Adam serves both.
#
# An orthogonal direction is for hidden matrices only. `gk.route` sends each parameter to the
# transform of the one rule that its path matches, an expression or a predicate.


# %%
def muon():
    return gk.chain(gk.average_by_nesterov(0.9), gk.normalize_by_polar())


def hidden(path: str, leaf: jax.Array) -> bool:
    return path.startswith("hidden") and path.endswith("kernel")


def for_hidden(tx):
    return gk.route({hidden: tx}, default=gk.scale_by_adam())


DIRECTIONS = {
    "Adam": gk.scale_by_adam(),
    "Muon": for_hidden(muon()),
    "Muon, grafted to Adam": for_hidden(gk.graft(muon(), gk.scale_by_adam())),
}

# %% [markdown]
# Which parameter goes where, and what each part costs, before anything runs:

# %%
print(gk.routes(DIRECTIONS["Muon, grafted to Adam"], params))
print()
print(gk.describe(DIRECTIONS["Muon, grafted to Adam"], params))

# %% [markdown]
# Every direction is trained at seven rates from three seeds. Rates and seeds are axes of one
# compiled program, as a hyperparameter may be a traced number.


# %%
def train(tx, seed: jax.Array):
    """Mean training loss of the last tenth of a run, and the loss on held-out digits."""
    first, order = jax.random.split(jax.random.key(seed))

    def step(carry, key: jax.Array):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, *batch(key))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    params = init(first)
    keys = jax.random.split(order, STEPS)
    (params, _), values = jax.lax.scan(step, (params, tx.init(params)), keys)
    return values[-STEPS // 10 :].mean(), loss(params, *held_out)


def for_every(number, make):
    """What `train` returns for every number and every seed."""
    run = lambda x, seed: train(make(x), seed)
    over_seeds = jax.vmap(run, (None, 0))
    return jax.jit(jax.vmap(over_seeds, (0, None)))(number, SEEDS)


def stepped(direction, rate):
    decays = gk.schedule_by_linear_decay(rate, steps=STEPS, warmup=STEPS // 10)
    return gk.chain(direction, gk.step_by_learning_rate(decays))


RATES = 2.0 ** jnp.arange(-10, -3)
by_rate = {
    name: for_every(RATES, functools.partial(stepped, direction))
    for name, direction in DIRECTIONS.items()
}


# %%
def panel(axes, xs, found, label: str) -> None:
    """The median over seeds, in the range of seeds."""
    low, middle, high = np.percentile(found, [0, 50, 100], axis=1)
    (line,) = axes.plot(xs, middle, "o-", ms=4, label=label)
    axes.fill_between(xs, low, high, alpha=0.2, lw=0, color=line.get_color())
    axes.spines[["top", "right"]].set_visible(False)


figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for axes, which in zip(panels, (0, 1)):
    for name, found in by_rate.items():
        panel(axes, RATES, found[which], name)
    axes.set(xlabel="learning rate", xscale="log", yscale="log")
    axes.set_xscale("log", base=2)
panels[0].set(ylabel="training loss, nats (last tenth)")
panels[1].set(ylabel="held-out loss, nats (at the end)")
panels[0].legend(frameon=False)
plt.show()
for name, found in by_rate.items():
    means = found[1].mean(axis=1)
    print(f"{name:24} best held-out {means.min():.3f} at {RATES[means.argmin()]:g}")

# %% [markdown]
# In the run of 200 steps that is shown here, Muon has hardly begun at a rate of 2^-9, where Adam
# is at 0.15 on held-out digits. Grafted, it stands at 0.15 too, and from there on it is
# below Adam up to Adam's best rate, 2^-7. That is what grafting gives: one range of rates for
# both. It gives no lower loss: Muon at a rate of its own reaches 0.066, grafted 0.073. Beyond its best
# rate the grafted direction gets worse sooner than Adam does.
#
# ## How much of it
#
# `gk.mix` adds up what several transforms make of the same gradient. How much of each is one new
# number. The optimizer is a function of what may change, with the rate beside it:


# %%
def optimizer(weight=0.5, learning_rate=2**-8):
    """`weight` of the grafted direction, and the remainder of Adam's."""
    adam = gk.scale_by_adam()
    mixed = gk.mix([weight, 1 - weight], gk.graft(muon(), adam), adam)
    return gk.chain(for_hidden(mixed), gk.step_by_learning_rate(learning_rate))


WEIGHTS = jnp.linspace(0, 1, 6)
decays = gk.schedule_by_linear_decay(2**-8, steps=STEPS, warmup=STEPS // 10)
by_weight = for_every(WEIGHTS, lambda weight: optimizer(weight, decays))

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for found, label in zip(by_weight, ("training, last tenth", "held out, at the end")):
    panel(axes, WEIGHTS, found, label)
axes.set(xlabel="weight of the grafted direction", ylabel="loss, nats", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Training loss falls all the way to the grafted direction alone. On held-out digits the mixtures from 0.4 on
# are equal within the range of three seeds, so no weight between is worth its second
# direction here. An axis like this one costs a line, and a claim that a mixture helps needs it.
#
# ## Watch a run and change it
#
# `gk.tune` calls that function and keeps its numbers in the state: they can be read and set
# while the run goes, and nothing is compiled again. The numbers of the parts come along.

# %%
tuned = gk.tune(optimizer, weight=0.5, learning_rate=2**-8)
for name, value in gk.hyperparameters(tuned.init(params)).items():
    print(f"{float(value):12.6g}  {name}")

# %% [markdown]
# `gk.guard_by_spike` skips a step whose gradient or loss stands out from the last ones, and
# `gk.measure` keeps the numbers of the last update in the state, where `gk.metrics` reads them. The
# run below meets two events: halfway three batches have their labels shifted by
# one, and at three quarters the rate is set to a tenth. The plot is redrawn as it goes.

# %%
tx = gk.measure(gk.guard_by_spike(tuned, window=32))


@jax.jit
def step(params, state, batch):
    value, grads = jax.value_and_grad(loss)(params, *batch)
    updates, state = tx.update(grads, state, params, value=value)
    return (
        optax.apply_updates(params, updates),
        state,
        {"loss": value, **gk.metrics(state)},
    )


def draw(axes, seen) -> None:
    last = {k: np.asarray([row[k] for row in seen]) for k in seen[-1]}
    count = np.arange(1, len(seen) + 1)
    skipped = last["guard_by_spike/skipped"] > 0
    shown = {
        "loss, nats": ["loss"],
        "gradient norm": [k for k in last if k.endswith("/gradient_norm")],
        "update / parameter norm": ["update_to_param"],
        "learning rate": ["learning_rate"],
    }
    for panel, (label, keys) in zip(axes.flat, shown.items()):
        panel.clear()
        for key in keys:
            group = key.removesuffix("/gradient_norm")
            positive = np.where(last[key] > 0, last[key], np.nan)
            panel.semilogy(count, positive, lw=1, label=group)
        for at in count[skipped]:
            panel.axvline(at, color="tab:red", lw=1, alpha=0.4, zorder=0)
        panel.set(xlim=(0, STEPS), xlabel="step", ylabel=label)
        panel.spines[["top", "right"]].set_visible(False)
    axes.flat[1].legend(frameon=False)


figure, axes = plt.subplots(2, 2, figsize=(10, 5.5), layout="constrained")
plt.close(figure)  # shown by its handle, not at the end of the cell
handle, seen = display(figure, display_id=True), []
now, state = params, tx.init(params)
for i, key in enumerate(jax.random.split(jax.random.key(1), STEPS)):
    x, y = batch(key)
    if STEPS // 2 <= i < STEPS // 2 + 3:
        y = (y + 1) % 10
    if i == STEPS * 3 // 4:
        state = gk.set_hyperparameters(state, {"learning_rate": 2**-8 / 10})
    now, state, row = step(now, state, (x, y))
    seen.append(row)
    if (i + 1) % (STEPS // 5) == 0:
        draw(axes, seen)
        handle.update(figure)

print(
    f"compiled {step._cache_size()} time; skipped {int(sum(row['guard_by_spike/skipped'] for row in seen))} steps"
)
print(f"held-out loss {float(loss(now, *held_out)):.3f}")
print("of", len(gk.metrics(state)), "numbers, such as", *sorted(gk.metrics(state))[:6])

# %% [markdown]
# The loss jumps for three batches, the guard skips them (red), and the next loss is where it was before.
# Numbers of a part that did not run, as the norms of the two groups, stay those of the last step that ran.
# The groups have the names of their rules: `hidden` is the predicate, `default` all else.
#
# ## A part of your own
#
# Adam divides the mean of gradients by the root of their mean square. Take the mean of their sizes
# instead: the quotient is 1 where all gradients agree in sign, near 0 where they cancel, and never
# beyond 1, so that no update is longer than the learning rate. Written down in two minutes:


# %%
class AgreementState(NamedTuple):
    mean: optax.Updates  # EMA of the gradient
    size: optax.Updates  # EMA of its absolute value


def hasty(decay=0.9):
    ema = lambda old, new: jax.tree.map(
        lambda a, b: decay * a + (1 - decay) * b, old, new
    )

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AgreementState(zeros, zeros)

    def update(updates, state, params=None):
        mean = ema(state.mean, updates)
        size = ema(state.size, jax.tree.map(jnp.abs, updates))
        return jax.tree.map(jnp.divide, mean, size), AgreementState(mean, size)

    return optax.GradientTransformation(init, update)


# %% [markdown]
# It trains. `gradkit.testing.check` holds it to what a transform owes its users: 31 laws, each
# a program that runs it. Six of them, on two small matrices, a vector and a scalar:

# %%
SOME = [
    "jit",
    "fixed_point",
    "donation",
    "zero_gradient",
    "nonfinite_gradient",
    "flops",
]
print(check(hasty, laws=SOME))

# %% [markdown]
# A parameter without a gradient becomes NaN, and so does everything after one bad batch. With
# bfloat16 parameters the state changes its dtype after the first step, so a `scan` refuses it. Both
# fields of the first state are one buffer, which cannot be donated twice. And what it costs stands
# nowhere. Each is a line to mend:


# %%
def scale_by_agreement(decay=0.9):
    """Divide the EMA of each gradient by the EMA of its absolute value.

    State: `8*size` bytes a leaf, `0` once.
    Flops: at most `14*size` a leaf, `0` once.
    """

    def init(params):
        zeros = lambda: optax.tree.zeros_like(params, dtype=jnp.float32)
        return AgreementState(zeros(), zeros())

    def update(updates, state, params=None, **extra):
        def leaf(g, mean, size):
            x = jnp.where(jnp.isfinite(g), g, 0).astype(jnp.float32)
            mean = decay * mean + (1 - decay) * x
            size = decay * size + (1 - decay) * jnp.abs(x)
            return (mean / jnp.where(size > 0, size, 1)).astype(g.dtype), mean, size

        leaves = jax.tree.map(leaf, updates, *state)
        pick = lambda i: jax.tree.map(lambda _, x: x[i], updates, leaves)
        return pick(0), AgreementState(pick(1), pick(2))

    return optax.GradientTransformationExtraArgs(init, update)


table = check(scale_by_agreement, laws=None if STEPS >= 200 else SOME)
assert table.ok, str(table)
print(table)

# %% [markdown]
# Laws of sharding need eight devices, which `XLA_FLAGS` makes of one CPU; all others pass. So it is a part
# like any other, and can stand in place of Adam in everything above:

# %%
found = for_every(RATES, functools.partial(stepped, scale_by_agreement()))
means = found[1].mean(axis=1)
print(f"best held-out {means.min():.3f} at {RATES[means.argmin()]:g}")

# %% [markdown]
# Adam reached 0.099 on the same axes. A new idea that passes every law is a sound transform; whether it is a better
# one is another question, and here the answer is no.
