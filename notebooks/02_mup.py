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
# # Tune a narrow model, train a wide one
#
# The best learning rate changes with the width of a network, unless it is parametrized to
# keep it. Here is an ordinary Flax model, the check that shows why its rate does not
# transfer, the five lines of muP, and the same check and a sweep of rates after them.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from sklearn.datasets import load_digits

import gradkit as gk

pixels, names = load_digits(return_X_y=True)
images, labels = jnp.asarray(pixels / 8 - 1, jnp.float32), jnp.asarray(names, jnp.int32)
WIDTHS = 64, 128, 256, 512


# %% [markdown]
# ## The network, as Flax writes it


# %%
class Net(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(64, width, rngs=rngs)
        self.hidden = nnx.Linear(width, width, rngs=rngs)
        self.deeper = nnx.Linear(width, width, rngs=rngs)
        self.readout = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.first, self.hidden, self.deeper):
            x = jax.nn.relu(layer(x))
        return self.readout(x)


def init(width: int, key: jax.Array):
    return nnx.state(Net(width, nnx.Rngs(params=key)), nnx.Param)


def apply(params, images: jax.Array, width: int) -> jax.Array:
    graph = nnx.graphdef(nnx.eval_shape(lambda: Net(width, nnx.Rngs(0))))
    return nnx.merge(graph, params)(images)


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], 1))


def batch(key: jax.Array):
    chosen = jax.random.choice(key, len(images), (64,))
    return images[chosen], labels[chosen]


# %% [markdown]
# A `Trial` is all that a check or a sweep needs of one width: first parameters, loss,
# optimizer by learning rate, batches.


# %%
def standard(width: int) -> gk.Trial:
    return gk.Trial(
        init=lambda key: init(width, key),
        loss=lambda params, batch: loss(apply(params, batch[0], width), batch[1]),
        tx=lambda rate: gk.adamw(rate, weight_decay=0.0),
        batch=batch,
    )


before = gk.check_coordinates(standard, WIDTHS, learning_rate=2**-9)
print(before.table())

# %% [markdown]
# At one learning rate a wide network changes more, layer upon layer: its best rate is lower.
# `power` is the slope of the logarithms, in brackets its 95 % interval over seeds.
#
# ## The five lines
#
# How each parameter meets the width is read off the model. Then the first weights of
# the wide model get the narrow one's scale (1), the optimizer a multiplier for each parameter
# (2), and the logits one of their own (3).


# %%
def mup(width: int) -> gk.Trial:
    base, target, example = {"width": 64}, {"width": width}, images[:1]
    delta = {"width": 96}  # a third width, for where the target is the base itself
    shapes = lambda width: init(width, jax.random.key(0))
    grew = gk.infer_parametrization(
        shapes, base=base, target=target, delta=delta, apply=apply, example=example
    )
    logits = gk.multipliers(grew)["readout/kernel"].forward
    return gk.Trial(
        init=lambda key: gk.rescale_init(init(width, key), grew, init(64, key)),  # 1
        loss=lambda params, batch: loss(
            logits * apply(params, batch[0], width),  # 3
            batch[1],
        ),
        tx=lambda rate: gk.chain(
            gk.adamw(rate, weight_decay=0.0),
            gk.transfer_by_mup(grew),  # 2
        ),
        batch=batch,
    )


after = gk.check_coordinates(mup, WIDTHS, learning_rate=2**-9)
print(after.table())

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axes, title, found in zip(panels, ("standard", "muP"), (before, after)):
    found.plot(axes)
    axes.set_title(title)
    axes.set_xticks(WIDTHS, WIDTHS)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
panels[1].legend(frameon=False)
plt.show()

# %% [markdown]
# ## The best rate stays
#
# Every width is trained at every rate from two seeds, in one compiled program a width. Stars are
# the lowest points of parabolas through the losses.

# %%
RATES = 2.0 ** np.arange(-10, -3)
swept = {
    "standard": gk.sweep_transfer(standard, WIDTHS, RATES, steps=60, seeds=2),
    "muP": gk.sweep_transfer(mup, WIDTHS, RATES, steps=60, seeds=2),
}
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axes, (title, found) in zip(panels, swept.items()):
    print(f"{title}: best rates up to {found.shift:.2f} octaves apart")
    print(found.table(), end="\n\n")
    found.plot(axes)
    axes.set(title=title, yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
panels[0].legend(title="width", frameon=False)
plt.show()
