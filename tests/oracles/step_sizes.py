"""Oracles of step sizes that follow from gradients, distances and losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from entry import entry, golden

import gradkit as gk

OF_GROUPS = {"partition_norms": "distances, products and losses are those of a group"}


def vectors(oracle):
    """An oracle of whole trees, written for all leaves as one vector."""

    @functools.wraps(oracle)
    def whole(gs, ps, **hyper):
        join = lambda tree: np.concatenate([np.ravel(x) for x in tree.values()])
        ends = np.cumsum([x.size for x in gs[0].values()])
        for u in oracle([*map(join, gs)], [*map(join, ps)], **hyper):
            parts = np.split(u, ends[:-1])
            yield {k: x.reshape(gs[0][k].shape) for k, x in zip(gs[0], parts)}

    return whole


def value(grads):
    """Something that varies from step to step to stand for the loss."""
    wide = jnp.result_type(float)
    each = [jnp.sum(jnp.abs(g.astype(wide))) for g in jax.tree.leaves(grads)]
    return {"value": 1 + sum(each, start=jnp.zeros([], wide)) / 4}


def loss(g):
    return 1 + np.sum(np.abs(g)) / 4


def dog(gs, ps, learning_rate, first_distance, eps):
    distance, total = first_distance * (1 + np.linalg.norm(ps[0])), 0.0
    for g, p in zip(gs, ps):
        distance = max(distance, np.linalg.norm(p - ps[0]))
        total += np.sum(g**2)
        yield -learning_rate * distance / np.sqrt(total + eps) * g


DOG = {"learning_rate": 0.7, "first_distance": 0.3, "eps": 0.1}
entry("step_by_layer_dog", **DOG)(dog)
entry("step_by_dog", whole=True, xfail=OF_GROUPS, **DOG)(vectors(dog))


@entry(
    "step_by_u_dog", whole=True, xfail=OF_GROUPS, learning_rate=0.7, first_distance=0.3
)
@vectors
def u_dog(gs, ps, learning_rate, first_distance):
    """A step takes two gradients; sums are over all steps, as the paper writes them."""
    x0 = ps[0]
    xs, ys, ms, rs = [], [x0], [], []
    ws, alphas, squares = [], [], []

    def average(points):
        return sum(w * x for w, x in zip(ws, points)) / sum(ws[: len(points)])

    def step(g, denominator):
        return ys[-1] - learning_rate * alphas[-1] * rs[-1] / np.sqrt(denominator) * g

    def begin():
        far = max(np.linalg.norm(x - x0) for x in xs + ys)
        rs.append(max(first_distance * (1 + np.linalg.norm(x0)), far))
        ws.append(sum(rs))
        alphas.append(sum(rs) / rs[-1])

    begin()
    for t, (g, p) in enumerate(zip(gs, ps)):
        if t % 2 == 0:
            ms.append(alphas[-1] ** 2 * g @ g)
            m = g
            xs.append(step(g, sum(squares) + max(ms)))
            yield average(xs) - p
        else:
            squares.append(alphas[-1] ** 2 * (g - m) @ (g - m))
            ys.append(step(g, sum(squares) + max(ms)))
            begin()
            yield average([*xs, ys[-1]]) - p


def with_loss(grads):
    """The loss too, as a function of parameters."""

    def value_fn(params):
        wide = jnp.result_type(float)
        each = [jnp.sum(p.astype(wide) ** 2) for p in jax.tree.leaves(params)]
        return sum(each, start=jnp.zeros([], wide)) / 7

    return {**value(grads), "value_fn": value_fn}


@entry(
    "step_by_model_building",
    whole=True,
    extra=with_loss,
    learning_rate=0.3,
    decrease=0.2,
    eta=0.8,
)
def model_building(gs, ps, learning_rate, decrease, eta):
    """With the coefficients of g, y and s, leaf by leaf, as the paper has them."""
    accepted = []
    for g, p in zip(gs, ps):
        f = 1 + sum(np.sum(np.abs(x)) for x in g.values()) / 4
        square = sum(np.sum(x**2) for x in g.values())
        s = {k: -learning_rate * x for k, x in g.items()}
        end = sum(np.sum((p[k] + s[k]) ** 2) for k in g) / 7
        accepted.append(end <= f - decrease * learning_rate * square)
        if accepted[-1]:
            yield s
        else:
            yield {
                k: modelled(g[k], 2 * (p[k] + s[k]) / 7 - g[k], s[k], eta) for k in g
            }
    assert 0 < sum(accepted) < len(accepted)


def modelled(g, y, s, eta):
    dot, norm = lambda a, b: np.sum(a * b), lambda a: np.sqrt(np.sum(a * a))
    delta = (norm(s) * (norm(y) + norm(g) / eta) - dot(y, s)) / 2
    theta = (dot(y, s) + 2 * delta) ** 2 - dot(s, s) * dot(y, y)
    c_g = -dot(s, s) / (2 * delta)
    c_y = c_g / theta * (-(dot(y, s) + 2 * delta) * dot(s, g) + dot(s, s) * dot(y, g))
    c_s = c_g / theta * (-(dot(y, s) + 2 * delta) * dot(y, g) + dot(y, y) * dot(s, g))
    return c_g * g + c_y * y + c_s * s


@entry(
    "step_by_momo",
    whole=True,
    extra=value,
    xfail=OF_GROUPS,
    learning_rate=1.2,
    decay=0.9,
    lower_bound=0.9,
    weight_decay=0.1,
)
@vectors
def momo(gs, ps, learning_rate, decay, lower_bound, weight_decay):
    q = 1 + learning_rate * weight_decay
    d, f, gamma = gs[0], loss(gs[0]), gs[0] @ ps[0]
    for g, p in zip(gs, ps):
        d = decay * d + (1 - decay) * g
        f = decay * f + (1 - decay) * loss(g)
        gamma = decay * gamma + (1 - decay) * g @ p
        above = q * (f - lower_bound - gamma) + d @ p
        tau = min(learning_rate, max(above, 0) / (d @ d))
        yield (p - tau * d) / q - p


@entry(
    "step_by_momo_adam",
    whole=True,
    extra=value,
    xfail=OF_GROUPS,
    learning_rate=1.2,
    b1=0.9,
    b2=0.99,
    eps=1e-2,
    lower_bound=0.9,
    weight_decay=0.1,
)
@vectors
def momo_adam(gs, ps, learning_rate, b1, b2, eps, lower_bound, weight_decay):
    q = 1 + learning_rate * weight_decay
    d = v = f = gamma = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        d = b1 * d + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        f = b1 * f + (1 - b1) * loss(g)
        gamma = b1 * gamma + (1 - b1) * g @ p
        u = d / (np.sqrt(v / (1 - b2**t)) + eps)
        rho = 1 - b1**t
        above = q * (f - rho * lower_bound - gamma) + d @ p
        tau = min(learning_rate / rho, max(above, 0) / (d @ u))
        yield (p - tau * u) / q - p


@entry(
    "step_by_polyak",
    whole=True,
    extra=value,
    xfail=OF_GROUPS,
    learning_rate=0.2,
    lower_bound=0.9,
)
@vectors
def polyak(gs, ps, learning_rate, lower_bound):
    for g in gs:
        yield -min(learning_rate, max(loss(g) - lower_bound, 0) / (g @ g)) * g


def sania(g, metric, learning_rate, eps, lower_bound):
    step = g / np.maximum(metric, eps)
    x = 2 * max(loss(g) - lower_bound, 0) / (g @ step)
    return -learning_rate * (1 - np.sqrt(1 - min(x, 1))) * step


SANIA = {"learning_rate": 0.7, "eps": 0.1, "lower_bound": 0.9}


@entry("step_by_sania_adagrad", whole=True, extra=value, xfail=OF_GROUPS, **SANIA)
@vectors
def sania_adagrad(gs, ps, **hyper):
    v = 0.0
    for g in gs:
        v = v + g**2
        yield sania(g, v, **hyper)


@entry("step_by_sania_adam", whole=True, extra=value, xfail=OF_GROUPS, b2=0.9, **SANIA)
@vectors
def sania_adam(gs, ps, b2, **hyper):
    v = 0.0
    for t, g in enumerate(gs, 1):
        v = b2 * v + (1 - b2) * g**2
        yield sania(g, v / (1 - b2**t), **hyper)


@entry(
    "step_by_prodigy",
    whole=True,
    learning_rate=0.8,
    b1=0.9,
    b2=0.95,
    eps=0.1,
    first_distance=0.01,
    scale=0.7,
    lr_power=0.5,
    max_growth=1.2,
    weight_decay=0.1,
)
@vectors
def prodigy(
    gs,
    ps,
    learning_rate,
    b1,
    b2,
    eps,
    first_distance,
    scale,
    lr_power,
    max_growth,
    weight_decay,
):
    m = v = r = s = 0.0
    d = largest = first_distance
    for g, p in zip(gs, ps):
        r = np.sqrt(b2) * r + learning_rate * d**2 * g @ (ps[0] - p)
        s = np.sqrt(b2) * s + learning_rate**lr_power * d**2 * g
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * (d * g) ** 2
        u = m / (np.sqrt(v) + d * eps) + weight_decay * p
        yield -learning_rate * d * u
        estimate = scale * r / np.sum(np.abs(s))
        largest = max(largest, estimate)
        grown = max(d, estimate) if d == first_distance else d * max_growth
        d = min(largest, grown)


def schedule_free(gs, ps, direction, learning_rate, b1, power, weight_decay):
    z = x = ps[0]
    total = 0.0
    for t, (g, p) in enumerate(zip(gs, ps), 1):
        total += t**power
        z = z - learning_rate * (direction(g, t) + weight_decay * p)
        x = x + t**power / total * (z - x)
        yield b1 * x + (1 - b1) * z - p


# `lr_power` acts under a schedule alone, such as that of the recorded run
FREE = {"learning_rate": 0.125, "b1": 0.9, "power": 0.5, "weight_decay": 0.125}


@entry("step_by_schedule_free", fixed={"inner": optax.identity()}, **FREE)
def schedule_free_sgd(gs, ps, **hyper):
    yield from schedule_free(gs, ps, lambda g, t: g, **hyper)


@entry("schedule_free_adamw", b2=0.95, eps=0.1, **FREE)
def schedule_free_adamw(gs, ps, b2, eps, **hyper):
    v = 0.0

    def direction(g, t):
        nonlocal v
        v = b2 * v + (1 - b2) * g**2
        return g / (np.sqrt(v / (1 - b2**t)) + eps)

    yield from schedule_free(gs, ps, direction, **hyper)


def dog_of_the_release():
    """Weight decay is part of the gradient."""
    return optax.chain(
        optax.add_decayed_weights(0.01), gk.step_by_dog(first_distance=1e-2)
    )


def prodigy_of_the_release():
    """Weight decay is part of the gradient; `eps` is times the estimate after the update."""

    def bias_correction(count):
        t = count.astype(float) + 1
        return jnp.sqrt(1 - 0.99**t) / (1 - 0.9**t)

    step = gk.step_by_prodigy(
        bias_correction, b2=0.99, first_distance=1e-3, lr_power=0.0, max_growth=1.3
    )
    return optax.chain(optax.add_decayed_weights(0.1), step)


def schedule_free_of_the_release():
    """After a warm-up of eight updates."""
    rate = lambda count: 0.01 * jnp.minimum(1, (count.astype(float) + 1) / 8)
    return gk.schedule_free_adamw(rate, b2=0.99, power=0.5, weight_decay=0.05)


golden("dog", dog_of_the_release, tolerance=1e-12)
golden("momo", lambda: gk.step_by_momo(1e-3), tolerance=1e-12)
golden(
    "momo_adam", lambda: gk.step_by_momo_adam(1e-3, weight_decay=0.05), tolerance=1e-12
)
golden("prodigy_bc_growth", prodigy_of_the_release)
golden("schedulefree_adamw", schedule_free_of_the_release, tolerance=1e-12)
