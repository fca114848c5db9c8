"""Elementwise recipes overwrite their state in place, without copies or arrays in between.

Where they sum squares as they are, which is exact for most gradients, the other way round agrees.

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
KEY = jax.random.key(0)
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
    "adamw_subset_norm": 1,
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


@pytest.mark.parametrize("of_gradient,of_weights", [(1e25, 1.0), (1.0, 1e-25), (0, 1)])
def test_a_projection_has_the_same_signs_at_every_scale(of_gradient, of_weights):
    """Of units, and of the whole leaf where one of the units is not orthogonal."""
    w, d, g = (jax.random.normal(key, (4, 3)) for key in jax.random.split(KEY, 3))
    along = lambda x, units: jnp.sum(x * w, units, keepdims=True)
    of_units = g - along(g, 0) / along(w, 0) * w
    whole = g - along(g, (0, 1)) / along(w, (0, 1)) * w
    tx = gk.normalize_by_tangent(optax.stateless(lambda u, p: d), delta=0.1)
    for g, units in ((of_units, 0), (whole, (0, 1))):
        want = d - along(d, units) / along(w, units) * w
        if not of_gradient:  # orthogonal to all units
            want = d - along(d, 0) / along(w, 0) * w
        params = of_weights * w
        got, _ = jax.jit(tx.update)(of_gradient * g, tx.init(params), params)
        assert jnp.allclose(got, want, rtol=1e-5, atol=1e-6)
