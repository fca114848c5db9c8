"""Directions are as large as `gk.OPTIMIZERS` says: the rules of transfer stand on it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.parametrization.scaling import kronecker

SIZES = (8, 8), (32, 8), (8, 32), (32, 32)  # of a layer: its inputs, its outputs
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


def polar(g, state, params=None):
    """The nearest matrix whose singular values are 1."""
    u, _, v = jnp.linalg.svd(g["w"], full_matrices=False)
    return {"w": u @ v}, state


def kfac(g, state, params=None):
    """Both average squares undone: of inputs of size 1, and of the gradients of outputs."""
    w = g["w"]
    u, s, v = jnp.linalg.svd(w, full_matrices=False)
    a = len(w)  # the square of an input, which is a row of signs
    return {"w": u[:, :1] @ v[:1] / (s[0] / a**0.5) / a**0.5}, state


def plain(update):
    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


ADAM = gk.scale_by_adam(eps=0.0)
MADE = {  # rows of the table, and what must be as they say
    "sgd": {
        "gradient": optax.identity(),
        "momentum": optax.trace(0.9),
        "nesterov": gk.average_by_nesterov(),
        "clipping out of reach": gk.clip_by_global_norm(1e9),
    },
    "adam": {
        "adam": ADAM,
        "adan": gk.scale_by_adan(eps=0.0),
        "rms": optax.scale_by_rms(eps=0.0),
    },
    "sign": {"lion": gk.average_by_lion(), "optax": optax.scale_by_lion()},
    "atan2": {"atan2": gk.scale_by_adam_atan2()},
    "adafactor": {
        "optax": optax.chain(
            optax.scale_by_factored_rms(min_dim_size_to_factor=4),
            optax.clip_by_block_rms(1.0),
            optax.scale_by_param_block_rms(),
        ),
        "lamb": optax.chain(ADAM, gk.normalize_by_trust_ratio()),
    },
    "normalized": {
        "block": gk.normalize_by_block(),
        "novograd": gk.scale_by_novograd(),
    },
    "spectral": {"polar": plain(polar)},
    "muon": {"polar": gk.normalize_by_polar()},
    "dion": {"dion": gk.project_by_dion(rank=1)},
    "shampoo": {
        "two-sided": gk.precondition_by_shampoo(),
        "one-sided": gk.precondition_by_one_sided_shampoo(),
    },
    "soap": {"soap": gk.precondition_by_soap()},
    "kfac": {"kfac": plain(kfac)},
    "projected": {
        "svd": gk.project_by_svd(ADAM, rank=1),
        "fira": gk.project_by_fira(ADAM, rank=1),
    },
    "subset_norm": {"sum": gk.scale_by_subset_norm(optax.trace(0.9), eps=0.0)},
}


@functools.cache
def gradient(i, o):
    """Of rank one, its entries 1 or -1."""
    rng = np.random.default_rng(0)
    return np.outer(rng.choice([-1.0, 1.0], i), rng.choice([-1.0, 1.0], o))


def effects(tx, sizes=SIZES, steps=3):
    """How much of the gradient is in the last direction, by scale of it, of weights, and fans."""
    tx = optax.with_extra_args_support(tx)

    def last(g, params):
        step = lambda state, _: tx.update(g, state, params)[::-1]
        return jax.lax.scan(step, tx.init(params), length=steps)[1]["w"][-1]

    compiled = jax.jit(last, compiler_options=QUICK)
    found = {}
    for i, o in sizes:
        scales = [(1e-2, 0.5)] + [(3e-2, 0.5), (1e-2, 1.5)] * (i == o == 8)
        for scale, init in scales:
            sign = gradient(i, o)
            g, p = ({"w": jnp.asarray(x * sign, jnp.float32)} for x in (scale, init))
            found[scale, init, i, o] = np.mean(np.asarray(compiled(g, p)) * sign)
    return found


def compare(row, found, **tolerance):
    """Outputs add up what is along the gradient: powers of its size, the weights', both fans."""
    said = [gk.OPTIMIZERS[row].size(*at) for at in found]
    sizes = np.array([*found.values()]) / said
    np.testing.assert_allclose(sizes, sizes[0], **tolerance, err_msg=str(found))


@pytest.mark.parametrize(
    "row, name", [(row, name) for row, made in MADE.items() for name in made]
)
def test_directions_are_as_large_as_said(row, name):
    compare(row, effects(MADE[row][name]), rtol=2e-2)


FITTED = {  # rows whose factors approach what they are after; the first on square layers
    "kl_shampoo": (gk.precondition_by_kl_shampoo(decay=0.9), SIZES[::3], 100),
    "inverse_free_kfac": (
        gk.precondition_by_inverse_free_kfac(1e-9, fit_rate=0.1, every=1),
        SIZES,
        500,
    ),
}


@pytest.mark.parametrize("row", FITTED)
def test_fitted_directions_come_to_be_as_large_as_said(row):
    compare(row, effects(*FITTED[row]), rtol=0.15)


def test_every_row_is_measured():
    assert {*MADE, *FITTED} == {*gk.OPTIMIZERS}
    assert kronecker(1 / 2, 1 / 2) == gk.OPTIMIZERS["shampoo"]
