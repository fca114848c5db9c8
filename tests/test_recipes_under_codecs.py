"""Every recipe under every codec: near its float32 run, in the codec's dtypes, and lawful."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES, REPRESENTATIVE

import gradkit as gk
from gradkit.catalogue import METHODS
from gradkit.testing import Subject, check

RECIPES = [m.name for m in METHODS if m.family == "recipe"]
LEAST = 8  # entries of an array that is encoded; of a block
CODECS = {
    "bfloat16_plus8": functools.partial(gk.store_by_bfloat16_plus8, min_size=LEAST),
    "bfloat16": functools.partial(gk.store_by_bfloat16, min_size=LEAST),
    "int8": functools.partial(gk.store_by_int8, block=LEAST),
    "fp8": functools.partial(gk.store_by_fp8, block=LEAST),
    "int4": functools.partial(gk.store_by_int4, block=LEAST),
}
KEPT = {
    "bfloat16_plus8": {"bfloat16"},
    "bfloat16": {"bfloat16"},
    "int8": {"int8"},
    "fp8": {"float8_e4m3fn"},
    "int4": {"uint8", "int8"},
}
SHAPES = {"kernel": (8, 6), "bias": (8,), "gain": (4,)}  # the last stays as it is
STEPS = 8


def drawn(*lead: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(len(lead))
    return {k: jnp.float32(rng.normal(size=(*lead, *s))) for k, s in SHAPES.items()}


def steps(tx: Any) -> tuple[Any, Any]:
    """The parameters and the state after `STEPS` updates."""
    tx = optax.with_extra_args_support(tx)

    def step(carry: Any, grads: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda p, gs: jax.lax.scan(step, (p, tx.init(p)), gs)[0])
    return run(drawn(), drawn(STEPS))


@functools.lru_cache(maxsize=1)
def in_float32(name: str) -> tuple[Any, Any]:
    return steps(ENTRIES[name].factory())


def rms(a: Any, b: Any) -> float:
    flat = lambda t: np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)])
    return float(np.sqrt(np.mean((flat(a) - flat(b)) ** 2)))


def encoded(plain: Any, state: Any, codec: str) -> list[str]:
    """The dtypes in which those arrays of a recipe's state are kept that may be encoded."""
    is_masked = lambda x: isinstance(x, optax.MaskedNode)
    kept = state.scales.codes if codec == "int4" else state.inner
    return [
        str(code.dtype)
        for x, code in zip(
            jax.tree.leaves(plain, is_leaf=is_masked),
            jax.tree.leaves(kept, is_leaf=is_masked),
            strict=True,
        )
        if not is_masked(x) and x.dtype == jnp.float32 and x.ndim and x.size >= LEAST
    ]


# How far parameters may be from those of the float32 run, in units of its way.
BOUNDS = {
    "bfloat16_plus8": 1e-4,
    "bfloat16": 0.01,
    "int8": 0.02,
    "fp8": 0.06,
    "int4": 0.2,
}
FARTHER = {
    # a basis that is nearly degenerate turns by more than the error of the state
    **{("soap", codec): 0.5 for codec in BOUNDS},
    # a sign of what is nearly zero
    **{("lion", codec): 0.3 for codec in BOUNDS},
    # a state that holds parameters, or a factor of matrices
    ("innaprop", "int4"): 0.4,
    ("madgrad", "int4"): 0.8,
    ("psgd", "int4"): 0.4,
    ("schedule_free_adamw", "bfloat16"): 0.05,
    ("schedule_free_adamw", "int8"): 0.1,
    ("schedule_free_adamw", "fp8"): 0.4,
    ("schedule_free_adamw", "int4"): 2.0,
}


def quick(name: str, codec: str) -> bool:
    """Whether `make test` tries the pair: some recipes, each with one codec, in turn."""
    turn = list(CODECS)[RECIPES.index(name) % len(CODECS)]
    return name in REPRESENTATIVE and codec == turn


@pytest.mark.parametrize(
    "name,codec",
    [
        pytest.param(*pair, marks=[pytest.mark.slow] * (not quick(*pair)))
        for pair in itertools.product(RECIPES, CODECS)
    ],
)
def test_is_near_its_float32_run(name: str, codec: str):
    """And all that may be encoded is."""
    want, plain = in_float32(name)
    got, state = steps(CODECS[codec](ENTRIES[name].factory()))
    assert all(kept in KEPT[codec] for kept in encoded(plain, state, codec))
    distance = rms(got, want) / rms(want, drawn())
    assert distance <= FARTHER.get((name, codec), BOUNDS[codec])


TRIED = [
    "jit",
    "fixed_point",
    "vmap",
    "donation",
    "trees",
    "zero_gradient",
    "nonfinite_gradient",
]
# Of codecs that tests/test_laws.py does not hold to these laws alone, as it does int8 and int4.
BY_MAKE_TEST = {("galore", "fp8"), ("stable_spam", "bfloat16")}


@pytest.mark.parametrize(
    "name,codec",
    [
        pytest.param(*pair, marks=[pytest.mark.slow] * (pair not in BY_MAKE_TEST))
        for pair in itertools.product(RECIPES, CODECS)
    ],
)
def test_is_lawful(name: str, codec: str):
    entry = ENTRIES[name]

    @functools.wraps(entry.factory)
    def make(**changed: Any) -> Any:
        return CODECS[codec](entry.factory(**changed))

    xfail = {k: v for k, v in entry.xfail.items() if k in TRIED}
    table = check(Subject(make, SHAPES), laws=TRIED, xfail=xfail)
    assert table.ok, str(table)
