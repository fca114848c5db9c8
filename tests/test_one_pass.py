"""Elementwise recipes overwrite their state in place, without copies or arrays in between.

Seen in the compiled step, with parameters and state donated. XLA on a CPU gives each kernel one
result: an array that two kernels read and one overwrites is copied first, in one thread, and an
array in between is new memory at every step. Both cost more than the arithmetic.
"""

import functools
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import gradkit as gk

SIDE = 64
IN_PLACE = [
    "adabound",
    "adamomentum",
    "adamw",
    "adam_atan2",
    "adan",
    "ademamix",
    "amsbound",
    "amsgrad",
    "grams",
    "innaprop",
    "lion",
    "lion_kappa",
    "madgrad",
    "sgd",
]
BETWEEN = {  # most arrays in between, in sizes of a leaf
    "diffgrad": 1,  # the friction, after which the last gradient is overwritten
    # one where a norm or a largest entry is out of range, which is rare
    "adagc": 1,
    "gravity": 1,
    "novograd": 1,
    "zclip_adamw": 1,
    # and what the norm is of
    "lamb": 2,
    "mars": 2,
}
CALLS = ("atan2", "cbrt")  # a call for each entry


@functools.cache
def compiled(recipe):
    """The step of one leaf."""
    tx = getattr(gk, recipe)(0.1)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    p = jnp.ones((SIDE, SIDE))
    state = jax.eval_shape(tx.init, p)
    return jax.jit(step, donate_argnums=(0, 1)).lower(p, state, p).compile()


def between(recipe):
    """Sizes of arrays that live within a step alone, in sizes of a leaf."""
    return compiled(recipe).memory_analysis().temp_size_in_bytes / (4 * SIDE**2)


@pytest.mark.parametrize("recipe", [*IN_PLACE, *BETWEEN])
def test_a_step_is_in_place(recipe):
    """As that of AdamW is; some releases of XLA keep one array in between for it too."""
    text = compiled(recipe).as_text()
    entry = text[text.index("ENTRY") :]
    assert not re.findall(rf"\[{SIDE},{SIDE}\]\S* copy\(.*", entry)
    assert not [name for name in CALLS if f" {name}(" in text]
    most = between("adamw") + BETWEEN.get(recipe, 0)
    assert between(recipe) < most + 0.5
