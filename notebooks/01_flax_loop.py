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
# # A chain of three families in a Flax loop
#
# gradkit's pieces are optax transforms: they chain, and `nnx.Optimizer` takes the chain.
# Here a small convolutional network learns handwritten digits, in half a minute on a CPU.

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
images = jnp.asarray(pixels / 8 - 1, jnp.float32).reshape(-1, 8, 8, 1)
labels = jnp.asarray(names, jnp.int32)
held_out = np.arange(len(labels)) % 5 == 0
STEPS, BATCH = 200, 64
batches = np.random.default_rng(0).choice(np.flatnonzero(~held_out), (STEPS, BATCH))


# %% [markdown]
# ## The network, as Flax writes it


# %%
class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 16, (3, 3), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(16 * 16, 64, rngs=rngs)
        self.readout = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.conv(x)).reshape(len(x), -1)
        return self.readout(jax.nn.relu(self.hidden(x)))


def loss(model: Net, images: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(model(images))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], 1))


@nnx.jit
def step(model: Net, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array):
    value, grads = nnx.value_and_grad(loss)(model, images, labels)
    optimizer.update(model, grads)
    return value


# %% [markdown]
# ## The chain
#
# Each line is one family and one paper: **clip** every leaf, take two **averages** of the
# gradient, fast and slow, over the root of a second moment, **step** by a schedule.
# `slow` is the weight of the slow average.


# %%
def chain(slow: float):
    rate = gk.schedule_by_linear_decay(3e-3, steps=STEPS, warmup=20)
    return gk.chain(
        gk.clip_by_component_norm(1.0),
        gk.scale_by_second_moment(gk.average_by_ademamix(b3=0.99, alpha=slow)),
        gk.step_by_learning_rate(rate),
    )


def train(tx):
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    losses = [step(model, optimizer, images[i], labels[i]) for i in batches]
    return model, np.asarray(losses)


runs = {slow: train(chain(slow)) for slow in (0.0, 2.0)}

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for slow, (model, losses) in runs.items():
    right = model(images[held_out]).argmax(-1) == labels[held_out]
    smooth = np.convolve(losses, np.ones(10) / 10, "valid")
    label = f"slow average times {slow:g}: {float(right.mean()):.1%} right, held out"
    axes.semilogy(np.arange(10, STEPS + 1), smooth, label=label)
    assert right.mean() > 0.95
axes.set(xlabel="step", ylabel="training loss, nats (mean of 10)")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## A law
#
# Chains are algebra. Without its slow average AdEMAMix is Adam, to the last digits, and the
# tests of gradkit hold every method to such laws. Here on this network's own gradient:


# %%
@jax.jit
def apart(grads):
    adam = gk.scale_by_adam()
    ours = gk.scale_by_second_moment(gk.average_by_ademamix(alpha=0.0))
    directions = [tx.update(grads, tx.init(grads))[0] for tx in (adam, ours)]
    gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), *directions)
    return jnp.stack(jax.tree.leaves(gaps)).max()


model, _ = runs[0.0]
gap = apart(nnx.grad(loss)(model, images[:BATCH], labels[:BATCH]))
assert gap < 1e-6
print(f"Adam and AdEMAMix without its slow average differ by {gap:g} at most.")
