"""At its limits a method is a simpler one, and keeps the promise its paper is known for."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

SHAPES = {"kernel": (6, 4), "bias": (4,), "scale": ()}
Maker = Callable[[], optax.GradientTransformation]


def draw(steps: int = 12) -> tuple[list[Any], list[Any]]:
    """Gradients and parameters for `steps` updates, the same on every call."""
    rng = np.random.default_rng(1)
    trees = [
        {k: rng.normal(size=s) for k, s in SHAPES.items()} for _ in range(2 * steps)
    ]
    return trees[:steps], trees[steps:]


def follow(make: Maker, gs: list[Any], ps: list[Any]) -> list[Any]:
    """What the transform does to the gradients, one tree a step."""
    gs, ps = jax.tree.map(jnp.asarray, (gs, ps))
    tx = optax.with_extra_args_support(make())
    update, state, out = jax.jit(tx.update), tx.init(ps[0]), []
    for g, p in zip(gs, ps):
        u, state = update(g, state, p)
        out.append(u)
    return out


def growing(gs: list[Any]) -> list[Any]:
    """The signs of the gradients, each time at twice the size."""
    sizes = [2.0**t for t in range(len(gs))]
    return [{k: n * np.sign(x) for k, x in g.items()} for n, g in zip(sizes, gs)]


def undo_debiasing(b1: float, b2: float) -> optax.GradientTransformation:
    """Turns Adam's debiased direction back into the plain ratio of its averages."""

    def factor(step: Any) -> jax.Array:
        t = jnp.asarray(step, jnp.result_type(float)) + 1
        return (1 - b1**t) / jnp.sqrt(1 - b2**t)

    return optax.scale_by_schedule(factor)


def eps_before_debiasing(step: jax.Array) -> jax.Array:
    """An `eps` of 1e-3 added to the root before it is debiased with decay 0.999."""
    return 1e-3 / jnp.sqrt(1 - 0.999 ** (jnp.asarray(step, jnp.result_type(float)) + 1))


adam = gk.scale_by_adam
rms = functools.partial(gk.scale_by_second_moment, optax.identity())

SAME: dict[str, tuple[Maker, Maker]] = {
    "heavy_ball is optax's trace": (
        gk.average_by_heavy_ball,
        lambda: optax.trace(0.9),
    ),
    "nesterov is optax's Nesterov trace": (
        gk.average_by_nesterov,
        lambda: optax.trace(0.9, nesterov=True),
    ),
    "nesterov without decay is the gradient": (
        lambda: gk.average_by_nesterov(0.0),
        optax.identity,
    ),
    "lion is optax's": (gk.average_by_lion, optax.scale_by_lion),
    "lion without memory is the sign": (
        lambda: gk.average_by_lion(b1=0.0),
        optax.scale_by_sign,
    ),
    "ademamix without its slow average is a debiased average": (
        lambda: gk.average_by_ademamix(alpha=0.0),
        lambda: optax.ema(0.9),
    ),
    "ademamix over a second moment, without its slow average, is adam": (
        lambda: gk.scale_by_second_moment(gk.average_by_ademamix(alpha=0.0)),
        adam,
    ),
    "grams of the gradient is the gradient": (
        lambda: gk.direct_by_grams(optax.identity()),
        optax.identity,
    ),
    "grams of lion is the sign": (
        lambda: gk.direct_by_grams(gk.average_by_lion()),
        optax.scale_by_sign,
    ),
    "caution of the gradient is the gradient": (
        lambda: gk.direct_by_caution(optax.identity(), eps=0.0),
        optax.identity,
    ),
    "amsgrad, debiasing undone, is the paper's, which is optax's without debiasing": (
        lambda: gk.chain(gk.scale_by_amsgrad(eps=0.0), undo_debiasing(0.9, 0.999)),
        lambda: optax.scale_by_amsgrad(
            eps=0.0, bias_correction_mu=False, bias_correction_nu=False
        ),
    ),
    "adabound in a boundless band is adam with eps before debiasing": (
        lambda: gk.scale_by_adabound(eps=1e-3, gamma=1e-30),
        lambda: adam(eps=eps_before_debiasing),
    ),
    "adabound in no band is SGD on an average": (
        lambda: gk.scale_by_adabound(gamma=1e30, final_ratio=3.0),
        lambda: gk.chain(optax.ema(0.9, debias=False), optax.scale(3.0)),
    ),
    "innaprop with alpha * beta = 1 is RMSprop with step learning_rate * beta": (
        lambda: gk.scale_by_innaprop(0.1, alpha=0.5, beta=2.0, weight_decay=0.0),
        lambda: gk.chain(rms(), optax.scale(2.0)),
    ),
    "novograd without memory is the unit gradient of each leaf": (
        lambda: gk.scale_by_novograd(b1=0.0, b2=0.0, eps=0.0),
        lambda: optax.stateless(
            lambda g, p: jax.tree.map(lambda x: x / jnp.linalg.norm(x.ravel()), g)
        ),
    ),
    "adam_atan2 far below 45 degrees is adam": (
        lambda: gk.scale_by_adam_atan2(b2=0.999, a=1e9, b=1e9),
        lambda: adam(eps=0.0),
    ),
    "sgd without momentum is the gradient": (
        lambda: gk.sgd(0.1),
        lambda: optax.scale(-0.1),
    ),
    "sgd is optax's": (
        lambda: gk.sgd(0.1, momentum=0.9),
        lambda: optax.sgd(0.1, momentum=0.9),
    ),
    "ademamix without its slow average is adamw": (
        lambda: gk.ademamix(0.1, alpha=0.0, weight_decay=0.1),
        lambda: gk.adamw(0.1, weight_decay=0.1),
    ),
    "adamw is optax's": (
        lambda: gk.adamw(0.1, weight_decay=0.1),
        lambda: optax.adamw(0.1, weight_decay=0.1),
    ),
    "lion, the recipe, is optax's": (
        lambda: gk.lion(0.1, weight_decay=0.1),
        lambda: optax.lion(0.1, weight_decay=0.1),
    ),
    "novograd, the recipe, is optax's": (
        lambda: gk.novograd(0.1, weight_decay=0.1),
        lambda: optax.novograd(0.1, b1=0.95, b2=0.98, eps=1e-8, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_reduces(name: str) -> None:
    # Some of optax's own mix dtypes in float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        got, want = (follow(make, *draw()) for make in SAME[name])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12),
            got,
            want,
        )


def test_amsgrad_of_growing_gradients_is_adam() -> None:
    with jax.enable_x64(True):
        gs, ps = draw()
        got, want = (follow(m, growing(gs), ps) for m in (gk.scale_by_amsgrad, adam))
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-12), got, want
        )


def test_diffgrad_of_a_steady_gradient_is_half_of_adam() -> None:
    with jax.enable_x64(True):
        gs, ps = draw()
        steady = [gs[0]] * len(gs)
        got, want = (follow(m, steady, ps)[1:] for m in (gk.scale_by_diffgrad, adam))
        half = jax.tree.map(lambda x: x / 2, want)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-12), got, half
        )


def reddi(make: Callable[..., optax.GradientTransformation], c: float = 3.0) -> float:
    """Where a method ends on the paper's loss: `c * x` every third step, `-x` otherwise."""
    tx = gk.chain(
        make(b1=0.0, b2=1 / (1 + c**2)),
        gk.step_by_learning_rate(lambda step: 0.5 * (step.astype(float) + 1) ** -0.5),
    )

    def move(carry: Any, t: jax.Array) -> tuple[Any, None]:
        x, state = carry
        u, state = tx.update(jnp.where(t % 3 == 1, c, -1.0), state, x)
        return (jnp.clip(x + u, -1, 1), state), None

    x = jnp.float32(0.0)
    (x, _), _ = jax.lax.scan(move, (x, tx.init(x)), jnp.arange(1, 3001))
    return float(x)


def test_amsgrad_minimizes_where_adam_maximizes() -> None:
    assert reddi(adam) > 0.9
    assert reddi(gk.scale_by_amsgrad) < -0.9


def test_caution_never_opposes_the_gradient_and_keeps_the_rest_in_proportion() -> None:
    gs, ps = draw()
    bold = follow(lambda: optax.trace(0.9), gs, ps)
    for g, d, u in zip(
        gs, bold, follow(lambda: gk.direct_by_caution(optax.trace(0.9)), gs, ps)
    ):
        for k in SHAPES:
            agrees = np.asarray(d[k] * g[k] > 0)
            scale = agrees.size / (agrees.sum() + 1)
            np.testing.assert_allclose(u[k], scale * agrees * d[k], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e25])
@pytest.mark.parametrize(
    "make",
    [
        gk.average_by_lion,
        gk.scale_by_adam_atan2,
        functools.partial(gk.scale_by_novograd, eps=0.0),
    ],
    ids=["lion", "adam_atan2", "novograd"],
)
def test_the_scale_of_gradients_drops_out(make: Maker, scale: float) -> None:
    gs, ps = draw()
    gs, ps = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (gs, ps))
    scaled = [jax.tree.map(lambda x: x * jnp.float32(scale), g) for g in gs]
    got, want = follow(make, scaled, ps), follow(make, gs, ps)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), got, want
    )


def test_adam_atan2_is_bounded_by_a_quarter_turn() -> None:
    gs, ps = draw()
    gs = gs[:6] + jax.tree.map(np.zeros_like, gs[6:])  # the average outlives its square
    turns = follow(lambda: gk.scale_by_adam_atan2(b1=0.99, b2=0.0, a=1.0), gs, ps)
    for u in jax.tree.leaves(turns):
        assert np.max(np.abs(u)) <= np.pi / 2 * (1 + 1e-6)
    assert max(np.max(np.abs(u)) for u in jax.tree.leaves(turns)) > 0.99 * np.pi / 2
