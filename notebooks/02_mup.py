# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tune a narrow model, train a wide one
#
# The best learning rate changes with the width of a network, unless it is parametrized to
# keep it. Here an ordinary Flax transformer is measured, brought to muP without a change to
# its code, and measured again; then both are trained at eight times the width, at the rate
# that was best for the narrow one. At the end Muon reads an Equinox model by the same trace.

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
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import gradkit as gk

BASE, WIDTHS = 32, (32, 64, 128, 256)
LENGTH, HEAD, DECAY = 32, 16, 0.1
source = pathlib.Path(argparse.__file__).read_bytes()  # 100 kB of Python to learn
text = jnp.asarray(np.frombuffer(source, np.uint8) % 128, jnp.int32)


# %% [markdown]
# ## The network, as Flax writes it
#
# A transformer of one block, which predicts the next byte. A wider one has more heads, all
# of the same size.


# %%
class Net(nnx.Module):
    def __init__(self, width: int, inner: int, rngs: nnx.Rngs):
        args = {"use_bias": False, "rngs": rngs}
        self.embed = nnx.Embed(128, width, rngs=rngs)
        self.norms = nnx.List([nnx.RMSNorm(width, rngs=rngs) for _ in range(3)])
        self.attention = nnx.MultiHeadAttention(
            width // HEAD, width, decode=False, **args
        )
        self.up = nnx.Linear(width, inner, **args)
        self.down = nnx.Linear(inner, width, **args)
        self.readout = nnx.Linear(width, 128, **args)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        past = nnx.make_causal_mask(tokens)
        x = x + self.attention(self.norms[0](x), mask=past)
        x = x + self.down(nnx.relu(self.up(self.norms[1](x))))
        return self.readout(self.norms[2](x))


def net(width: int, inner: int | None = None, key: jax.Array | int = 0) -> Net:
    return Net(width, inner or 2 * width, nnx.Rngs(params=key))


def init(width: int, key: jax.Array | int = 0, inner: int | None = None):
    return nnx.state(net(width, inner, key), nnx.Param)


def apply(params, tokens: jax.Array, width: int, inner: int | None = None) -> jax.Array:
    graph = nnx.graphdef(nnx.eval_shape(lambda: net(width, inner)))
    return nnx.merge(graph, params)(tokens)


def loss(logits: jax.Array, following: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, following[..., None], -1))


def batch(key: jax.Array):
    starts = jax.random.randint(key, (8, 1), 0, len(text) - LENGTH)
    lines = text[starts + jnp.arange(LENGTH + 1)]
    return lines[:, :-1], lines[:, 1:]


# %% [markdown]
# An `Experiment` is all that a check or a sweep needs of one width: first parameters, loss,
# optimizer by learning rate, batches.


# %%
def standard(width: int) -> gk.Experiment:
    return gk.Experiment(
        init=lambda key: init(width, key),
        loss=lambda params, batch: loss(apply(params, batch[0], width), batch[1]),
        tx=lambda rate: gk.adamw(rate, weight_decay=DECAY),
        batch=batch,
    )


before = gk.check_coordinates(standard, WIDTHS, learning_rate=2**-6)
print(before.table())
assert not before.ok()

# %% [markdown]
# That is every product in the loss, its mean size and how far five updates moved it. `power`
# is the slope of the logarithms over the width, in brackets its 95 % interval over seeds; a site
# fails if all of the interval is above 0.1 or, of the change, below -0.1. At one learning rate
# a wide network changes more, layer upon layer: its best rate is lower.
#
# ## How the model grew
#
# Two sizes of the model and a trace of what it does say which axes of each parameter are
# summed over and which are made, and which of them grow. Nothing is computed. `delta` is
# a third size, for where the target is the base itself.


# %%
def grown(width: int, **fixed: int) -> gk.Parametrization:
    return gk.infer_parametrization(
        init,
        base={"width": BASE, **fixed},
        target={"width": width, **fixed},
        delta={"width": 48, **fixed},
        apply=apply,
        example=text[None, :LENGTH],
    )


print(grown(256).table(gk.multiplier_columns("mup")))

# %% [markdown]
# The columns at the right are what muP multiplies the hyperparameters of the base by. Four
# places need them:
#
# 1. the first weights: `gk.rescale_init` gives them the narrow model's scale, times `init`;
# 2. what the readout makes: the loss multiplies it by `forward`, as no optimizer can;
# 3. the updates: `gk.transfer_by_mup` multiplies them by `learning rate`, after the step;
# 4. the decay stands behind that. A weight then loses the same fraction in a step at any
#    width. In front of it, as inside `gk.adamw`, the decay of hidden weights is divided too.


# %%
def mup(width: int) -> gk.Experiment:
    grew = grown(width)
    logits = gk.multipliers(grew)["readout/kernel"].forward
    return standard(width)._replace(
        init=lambda key: gk.rescale_init(init(width, key), grew, init(BASE, key)),  # 1
        loss=lambda params, batch: loss(
            logits * apply(params, batch[0], width),  # 2
            batch[1],
        ),
        tx=lambda rate: gk.chain(
            gk.scale_by_adam(),
            gk.step_by_learning_rate(rate),
            gk.transfer_by_mup(grew),  # 3
            gk.decay_by_weight(rate * DECAY),  # 4
        ),
    )


def lost(tx, params) -> float:
    """The fraction of a hidden weight that one update takes where no gradient moves it."""
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(still, tx.init(params), params)
    weight, update = (tree["up"]["kernel"][...] for tree in (params, updates))
    return float(jnp.mean(-update / weight))


inside = gk.chain(
    gk.adamw(0.01, weight_decay=DECAY),
    gk.transfer_by_mup(grown(256)),
)
print(
    f"behind: {lost(mup(256).tx(jnp.array(0.01)), init(256)):.6f} of a weight in one update"
)
print(f"inside: {lost(inside, init(256)):.6f}, an eighth of it")

# %%
after = gk.check_coordinates(mup, WIDTHS, learning_rate=2**-6)
print(after.table())
assert after.ok()

# %% [markdown]
# No site fails. Where a power is beyond 0.1 and its interval is not, more seeds would tell.
# Drawn over the width, from the embedding (dark) to the readout (red):

# %%
figure, panels = plt.subplots(
    1, 2, figsize=(11, 3.8), sharey=True, layout="constrained"
)
for axes, title, found in zip(panels, ("standard", "muP"), (before, after)):
    axes.set_prop_cycle(color=plt.colormaps["turbo"](np.linspace(0.05, 0.95, 12)))
    found.plot(axes)
    axes.set_title(title)
    axes.set_xticks(WIDTHS, WIDTHS)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
figure.legend(
    *panels[1].get_legend_handles_labels(),
    loc="outside right center",
    frameon=False,
    fontsize="small",
)
plt.show()

# %% [markdown]
# ## Without forward multipliers
#
# `plain_mup` draws the readout smaller and moves it less instead, by the same factor. The loss
# stays as it was; the narrowest and the widest model are enough to see that it does as well.


# %%
def plain_mup(width: int) -> gk.Experiment:
    grew = grown(width)
    base = lambda key: init(BASE, key)
    return standard(width)._replace(
        init=lambda key: gk.rescale_init(
            init(width, key), grew, base(key), "plain_mup"
        ),
        tx=lambda rate: gk.chain(
            gk.scale_by_adam(),
            gk.step_by_learning_rate(rate),
            gk.transfer_by_plain_mup(grew),
            gk.decay_by_weight(rate * DECAY),
        ),
    )


plain = gk.check_coordinates(plain_mup, (BASE, 256), learning_rate=2**-6)
print(f"sites that fail: {plain.failures() or 'none'}")
assert plain.ok()

# %% [markdown]
# It is also the shorter way where an output matrix stands inside the model: one that sums over
# a width and makes what does not grow, as a bottleneck does, or the one key of multi-query
# attention. The table then says so. Here the MLP is 16 wide at any width:

# %%
print(*grown(256, inner=16).notes, sep="\n")

# %% [markdown]
# ## The best rate stays
#
# Every width is trained at every rate from two seeds, in one compiled program a width. Stars are
# the lowest points of parabolas through the losses.

# %%
RATES = [2.0**k for k in range(-10, -4)]
swept = {
    "standard": gk.sweep_transfer(standard, WIDTHS, RATES, steps=60, seeds=2),
    "muP": gk.sweep_transfer(mup, WIDTHS, RATES, steps=60, seeds=2),
}
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for axes, (title, found) in zip(panels, swept.items()):
    print(f"{title}: best rates up to {found.shift:.2f} doublings apart")
    print(found.table(), end="\n\n")
    found.plot(axes)
    axes.set(title=title)
    axes.spines[["top", "right"]].set_visible(False)
panels[0].legend(title="width", frameon=False)
plt.show()

# %% [markdown]
# At width 32 both are the same run, up to rounding. What muP claims is the loss of a wide
# model at the rate that was tuned on the narrow one:

# %%
tuned = int(np.argmin(swept["muP"].losses[BASE].mean(axis=1)))
print(f"loss in nats          at {RATES[tuned]:g}, tuned at {BASE}       tuned anew")
print("width              standard         muP    standard         muP")
for width in WIDTHS:
    means = [found.losses[width].mean(axis=1) for found in swept.values()]
    row = [mean[tuned] for mean in means] + [mean.min() for mean in means]
    print(f"{width:5}          " + "".join(f"{x:12.3f}" for x in row))

wide, narrow = WIDTHS[-1], BASE
at_tuned = {name: found.losses[wide][tuned].mean() for name, found in swept.items()}
assert at_tuned["muP"] < swept["muP"].losses[narrow][tuned].mean()
assert at_tuned["standard"] > swept["standard"].losses[narrow][tuned].mean()

# %% [markdown]
# In the standard parametrization the widest model ends above the narrow one, with muP far
# below it, next to the best that it reaches at any rate. Nothing was tuned on it.
#
# What is not better: where each width is tuned anew, at the right, the two differ by no more
# than 0.02 nats, now one ahead and now the other. The widest standard model is best at the lowest
# rate of the grid; at half of that it is worse again. muP saves the tuning of the wide model;
# it promises no lower loss than that tuning finds. These are training losses of short runs
# at a constant rate.
#
# ## Muon on an Equinox model
#
# Equinox keeps weights `[out, in]`, with names of its own. One trace of the model tells which
# leaves are matrices, which axes they sum over, and which of them makes the outputs; Muon needs
# no more.

# %%
if importlib.util.find_spec("equinox") is None:
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "install", "-q", "equinox"], check=True)

import equinox as eqx

model = eqx.nn.MLP(64, 10, width_size=32, depth=3, key=jax.random.key(0))
params, rest = eqx.partition(model, eqx.is_inexact_array)

read = gk.read_model(lambda model, x: jax.vmap(model)(x), model, jnp.ones((8, 64)))
tx = gk.muon(0.02, model=read)
print(gk.routes(tx, params))

# %% [markdown]
# Without `model=`, names and shapes decide, and the readout is taken for a hidden matrix:

# %%
print(gk.routes(gk.muon(0.02), params))
