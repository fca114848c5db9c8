"""What transforms made of transforms do: mixed, grafted, accumulated, guarded, averaged."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradkit as gk
from gradkit._core import steps
from gradkit._core.averages import AverageState

SHAPES = {"kernel": (6, 4), "bias": (4,), "scale": ()}


def draw(seed: int, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}


def run(tx: Any, grads: Any, params: Any, **extra: Any) -> tuple[list[Any], Any]:
    """The updates of gradients in turn, jitted, and the last state."""
    tx = optax.with_extra_args_support(tx)
    state, update, out = tx.init(params), jax.jit(tx.update), []
    for t, g in enumerate(grads):
        now = {k: x[t] for k, x in extra.items()}
        u, state = update(g, state, params, **now)
        out.append(u)
    return out, state


def close(got: Any, want: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    check = lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
    jax.tree.map(check, got, want)


def equal(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def message(action: Any) -> str:
    """The text of the error that `action` raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        action()
    return str(caught.value)


GRADS = [draw(t) for t in range(1, 13)]
PARAMS = draw(0)


# mix, graft


def test_a_mix_of_one_is_that_one():
    tx = gk.scale_by_adam()
    equal(run(gk.mix([1.0], tx), GRADS, PARAMS)[0], run(tx, GRADS, PARAMS)[0])


def test_with_weights_of_one_a_mix_is_a_sum():
    parts = [gk.scale_by_adam(), optax.sign_sgd(0.1), gk.decay_by_weight(0.1)]
    alone = [run(tx, GRADS, PARAMS)[0] for tx in parts]
    total = [jax.tree.map(lambda *us: sum(us), *us) for us in zip(*alone)]
    close(run(gk.mix([1.0] * 3, *parts), GRADS, PARAMS)[0], total)


def test_weights_may_be_traced_and_mapped_over():
    parts, weights = [gk.scale_by_adam(), optax.scale(3.0)], jnp.array([0.0, 0.5, 1.0])

    def first(w: jax.Array) -> Any:
        tx = gk.mix((1 - w, w), *parts)
        return tx.update(GRADS[0], tx.init(PARAMS), PARAMS)[0]

    mapped = jax.jit(jax.vmap(first))(weights)
    for i, w in enumerate([0.0, 0.5, 1.0]):
        close(jax.tree.map(lambda x, i=i: x[i], mapped), first(w))
    slope = jax.grad(lambda w: first(w)["scale"])(0.5)
    adam, triple = first(0.0)["scale"], first(1.0)["scale"]
    np.testing.assert_allclose(slope, triple - adam, rtol=1e-5)


def test_a_scheduled_weight_moves_from_one_to_another():
    slow, fast = gk.average_by_heavy_ball(0.9), optax.scale(7.0)
    share = optax.linear_schedule(0.0, 1.0, len(GRADS) - 1)
    tx = gk.mix([lambda count: 1 - share(count), share], slow, fast)
    mixed = run(tx, GRADS, PARAMS)[0]
    close(mixed[0], run(slow, GRADS, PARAMS)[0][0])
    close(mixed[-1], run(fast, GRADS, PARAMS)[0][-1])


def test_a_mix_and_a_graft_round_once():
    """Of parts in bfloat16 the sum is that in float32, rounded."""
    grads = [draw(t, jnp.bfloat16) for t in range(3)]
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), grads)
    adam, lion = gk.scale_by_adam(), optax.scale(0.37)
    for tx in (
        gk.mix([0.3, 0.7], adam, lion),
        gk.graft(adam, lion),
    ):
        exact = run(tx, wide, PARAMS)[0]
        rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), exact)
        equal(run(tx, grads, PARAMS)[0], rounded)


def test_stages_of_optax_are_carried_in_bfloat16():
    """They see float32, and so keep one dtype, whatever parameters and gradients are in."""
    params, grads = draw(0, jnp.bfloat16), [draw(t, jnp.bfloat16) for t in range(3)]
    stack = jax.tree.map(lambda *x: jnp.stack(x), *grads)
    trace, adam = optax.trace(0.9), optax.scale_by_adam()
    with jax.numpy_dtype_promotion("standard"):
        for tx in (gk.mix([1.0, 1.0], trace, adam), gk.graft(trace, adam)):
            step = lambda s, g, tx=tx: tx.update(g, s, params)[::-1]
            _, us = jax.lax.scan(step, tx.init(params), stack)
            assert {u.dtype for u in jax.tree.leaves(us)} == {jnp.dtype(jnp.bfloat16)}


def test_a_graft_of_zero_is_zero_and_finite():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    for parts in [
        (optax.set_to_zero(), gk.scale_by_adam()),
        (gk.scale_by_adam(), optax.set_to_zero()),
    ]:
        equal(run(gk.graft(parts[0], parts[1]), GRADS[:1], PARAMS)[0], [zero])


def test_a_graft_has_the_direction_of_one_and_the_norms_of_the_other():
    where, how_far = gk.average_by_heavy_ball(0.9), gk.scale_by_adam()
    us = run(gk.graft(where, how_far), GRADS, PARAMS)[0]
    ds, ms = (run(tx, GRADS, PARAMS)[0] for tx in (where, how_far))
    for u, d, m in zip(us, ds, ms):
        for k in SHAPES:
            length = np.linalg.norm(u[k])
            np.testing.assert_allclose(length, np.linalg.norm(m[k]), rtol=1e-5)
            close(u[k] / length, d[k] / np.linalg.norm(d[k]))


def test_one_norm_of_all_leaves_by_flattening_them():
    tx = optax.flatten(gk.graft(optax.identity(), optax.sign_sgd(-1.0)))
    (u,), _ = run(tx, GRADS[:1], PARAMS)
    entries = sum(g.size for g in jax.tree.leaves(GRADS[0]))
    factor = np.sqrt(entries) / optax.tree.norm(GRADS[0])
    close(u, jax.tree.map(lambda g: g * factor, GRADS[0]))


def test_shampoo_grafted_onto_adam_is_as_long_as_adam():
    matrices = {"a": (6, 4), "b": (3, 5)}
    rng = np.random.default_rng(0)
    g = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in matrices.items()}
    tx = gk.graft(gk.precondition_by_shampoo(), gk.scale_by_adam())
    (u,), _ = run(tx, [g], g)
    adam = run(gk.scale_by_adam(), [g], g)[0][0]
    for k in matrices:
        want = np.linalg.norm(adam[k])
        np.testing.assert_allclose(np.linalg.norm(u[k]), want, rtol=1e-5)


@pytest.mark.parametrize(
    "make,said",
    [
        (
            lambda: gk.mix([]),
            "mix: transforms must be one or more, got none. Write mix(",
        ),
        (lambda: gk.mix(gk.sgd(), gk.sgd()), "mix: weights must be a list of 1"),
        (lambda: gk.mix([1.0], gk.sgd), "mix: each of transforms must be a transform"),
        (lambda: gk.mix([1.0], 0.1), "mix: each of transforms must be a transform"),
        (
            lambda: gk.mix([1.0], gk.sgd(), gk.sgd()),
            "mix: weights must be a list of 2, one for each transform, got 1. Write",
        ),
        (lambda: gk.mix(0.5, gk.sgd()), "mix: weights must be a list of 1"),
        (
            lambda: gk.mix(["a"], gk.sgd()),
            "mix: weights[0] must be one number or a",
        ),
        (
            lambda: gk.mix([lambda: 1.0], gk.sgd()),
            "mix: weights[0], a schedule, must",
        ),
        (
            lambda: gk.graft(gk.sgd(), gk.sgd),
            "graft: magnitude must be a transform",
        ),
        (
            lambda: gk.graft(0.1, gk.sgd()),
            "graft: direction must be a transform",
        ),
        (lambda: gk.graft(gk.sgd()), "graft: missing a required argument: 'magnitude'"),
    ],
)
def test_mistakes_in_a_mix_or_graft_are_named(make: Any, said: str):
    assert message(make).startswith(f"gradkit.{said}")


# accumulate


@pytest.mark.parametrize("every", [1, 3, lambda step: jnp.where(step > 1, 3, 2)])
def test_accumulating_is_what_optax_does(every: Any):
    """Also of a cycle that grows, by a schedule of the steps of the transform within."""
    inner = gk.adamw(0.1)
    us, state = run(gk.accumulate(inner, every=every), GRADS, PARAMS)
    peer = optax.MultiSteps(inner, every).gradient_transformation()
    with jax.numpy_dtype_promotion("standard"):
        want, due = run(peer, GRADS, PARAMS)
    close(us, want)
    close(state.inner, due.inner_opt_state)
    assert state.count == due.gradient_step and state.micro == due.mini_step
    assert state.skipped == 0


def poisoned(g: Any, value: float) -> Any:
    """The gradient, whose first entry of one leaf is this."""
    return {**g, "bias": g["bias"].at[0].set(value)}


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("bad", [(0,), (2,), (1, 3), (0, 1, 2, 3)])
def test_bad_micro_batches_are_left_out(bad: tuple[int, ...], value: float):
    """Of four, in the second of three cycles: the mean is that over the good ones."""
    grads = [poisoned(g, value) if t - 4 in bad else g for t, g in enumerate(GRADS)]
    us, state = run(gk.accumulate(gk.scale_by_adam(), every=4), grads, PARAMS)
    cycles = [[t for t in range(c, c + 4) if t - 4 not in bad] for c in (0, 4, 8)]
    mean = lambda *gs: sum(gs) / len(gs)
    means = [jax.tree.map(mean, *[GRADS[t] for t in ts]) for ts in cycles if ts]
    due, inner = run(gk.scale_by_adam(), means, PARAMS)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    steps = iter(due)
    for c, ts in zip((0, 4, 8), cycles):
        equal(us[c : c + 3], [zero] * 3)
        close(us[c + 3], next(steps) if ts else zero)
    close(state.inner, inner)
    assert state.skipped == len(bad) and state.count == 3 - (len(bad) == 4)
    assert state.micro == state.averaged == 0


def test_the_loss_of_a_cycle_is_the_mean_of_its_good_micro_batches():
    seen = optax.GradientTransformationExtraArgs(
        lambda p: jnp.zeros([]), lambda g, s, p=None, *, value, **_: (g, value)
    )
    values = jnp.array([1.0, 2.0, jnp.nan, 6.0, 5.0, 5.0, 5.0, 9.0])
    _, state = run(gk.accumulate(seen, every=4), GRADS[:7], PARAMS, value=values)
    assert state.inner == 3.0 and state.skipped == 1
    _, state = run(gk.accumulate(seen, every=4), GRADS[:8], PARAMS, value=values)
    assert state.inner == 6.0


def flops(update: Any, *args: Any) -> float:
    cost = jax.jit(update).lower(*args).cost_analysis()
    return float(cost["flops"])


MATRICES = {f"w{i}": jnp.ones((256, 256)) for i in range(4)}


def resting(monkeypatch: Any) -> None:
    """Let no condition be met: what is left is what is computed at every update."""
    monkeypatch.setattr(steps.condition, "when", lambda due, f, x: x)


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_micro_step_costs_a_twentieth_of_a_step(monkeypatch: Any, vmapped: bool):
    """Counted without what stands in the condition, which must be all of the inner step."""
    inner = gk.muon(0.1)
    tx = gk.accumulate(inner, every=4)
    whole = flops(inner.update, MATRICES, inner.init(MATRICES), MATRICES)
    state, update, args = tx.init(MATRICES), tx.update, MATRICES
    if vmapped:
        batch = lambda t: jax.tree.map(lambda x: jnp.stack([x, x]), t)
        state, args, update = batch(state), batch(args), jax.vmap(tx.update)
    resting(monkeypatch)
    rest = flops(update, args, state, args) / (1 + vmapped)
    assert rest <= 0.05 * whole, rest / whole


def test_members_of_a_batch_step_when_each_is_due():
    tx = gk.accumulate(gk.scale_by_adam(), every=3)
    params = jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS)
    ahead = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)[1]
    state = jax.tree.map(lambda *x: jnp.stack(x), tx.init(PARAMS), ahead)
    update, alone = jax.jit(jax.vmap(tx.update)), [tx.init(PARAMS), ahead]
    for g in GRADS[1:7]:
        grads = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), g)
        u, state = update(grads, state, params)
        for i in (0, 1):
            one = jax.tree.map(lambda x, i=i: x[i], (grads, u))
            want, alone[i] = tx.update(one[0], alone[i], PARAMS)
            close(one[1], want)
    close(state, jax.tree.map(lambda *x: jnp.stack(x), *alone))


def test_a_mean_of_bfloat16_is_exact_in_a_chain():
    """And where parameters are float32; it has no digit that was rounded on the way."""
    grads = [draw(t, jnp.bfloat16) for t in range(8)]
    for tx in (
        gk.chain(gk.accumulate(optax.identity(), every=8)),
        gk.accumulate(optax.identity(), every=8),
    ):
        us, _ = run(tx, grads, PARAMS)
        mean = lambda *gs: np.mean([np.asarray(g, np.float64) for g in gs], axis=0)
        close(us[-1], jax.tree.map(mean, *grads), rtol=1e-6)
        assert us[-1]["bias"].dtype == jnp.float32


def test_what_is_accumulated_of_none_and_frozen_leaves():
    params = {
        "a": jnp.ones(3),
        "none": None,
        "key": jax.random.key(0),
        "base": jnp.ones(2, jnp.int8),
    }
    loss = lambda p: jnp.sum(p["a"] ** 2)
    grads = jax.grad(loss, allow_int=True)(params)
    tx = gk.accumulate(
        gk.route({"^a$": gk.sgd(1.0)}, default=optax.set_to_zero()), every=2
    )
    state = tx.init(params)
    for _ in range(2):
        u, state = jax.jit(
            lambda s: tx.update(jax.grad(loss, allow_int=True)(params), s, params)
        )(state)
    np.testing.assert_allclose(u["a"], -grads["a"])


@pytest.mark.parametrize(
    "every,said",
    [
        (0, "every must be at least 1, got 0."),
        ("4", "every must be one number or a schedule, got '4'."),
        (lambda: 4, "every, a schedule, must take the updates made so far alone"),
    ],
)
def test_mistakes_in_a_cycle_are_named(every: Any, said: str):
    text = message(lambda: gk.accumulate(gk.sgd(), every=every))
    assert text.startswith(f"gradkit.accumulate: {said}")


# guards


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_guard_does_what_optax_does_as_long_as_that_does_not_give_up(value: float):
    inner, bad = gk.adamw(0.1), {2, 3, 4, 8}
    grads = [poisoned(g, value) if t in bad else g for t, g in enumerate(GRADS)]
    us, state = run(gk.guard_by_finite(inner), grads, PARAMS)
    want, due = run(optax.apply_if_finite(inner, 99), grads, PARAMS)
    equal(us, want)
    equal(state.inner, due.inner_state)
    assert state.skipped == due.total_notfinite == 4
    assert state.skipped_in_a_row == due.notfinite_count == 0


def test_a_guard_never_gives_up_and_counts_in_a_row():
    bad = poisoned(GRADS[0], jnp.nan)
    us, state = run(gk.guard_by_finite(gk.sgd(0.1)), [GRADS[0], *[bad] * 9], PARAMS)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    equal(us[1:], [zero] * 9)
    assert state.skipped == state.skipped_in_a_row == 9
    assert optax.tree.get((state,), "skipped_in_a_row") == 9


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("make", [gk.guard_by_finite, gk.guard_by_spike])
def test_a_guard_that_skips_nothing_is_not_there(make: Any, dtype: Any):
    grads = [draw(t, dtype) for t in range(6)]
    for inner in (gk.scale_by_adam(), gk.adamw(0.1)):
        us, state = run(make(inner), grads, PARAMS)
        want, due = run(inner, grads, PARAMS)
        equal(us, want)
        equal(state.inner, due)


@pytest.mark.parametrize("make", [gk.guard_by_finite, gk.guard_by_spike])
def test_members_of_a_batch_are_skipped_one_by_one(make: Any):
    tx = make(gk.scale_by_adam())
    both = lambda *ts: jax.tree.map(lambda *x: jnp.stack(x), *ts)
    params, states = both(PARAMS, PARAMS), both(*[tx.init(PARAMS)] * 2)
    grads = both(GRADS[0], poisoned(GRADS[1], jnp.nan))
    u, states = jax.jit(jax.vmap(tx.update))(grads, states, params)
    assert all(jnp.any(x[0]) and not jnp.any(x[1]) for x in jax.tree.leaves(u))
    np.testing.assert_array_equal(states.skipped, [0, 1])
    np.testing.assert_array_equal(states.inner.count, [1, 0])


NORMS = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 1.1]


def lengths(tx: Any, sizes: Any, **extra: Any) -> tuple[list[float], Any]:
    """The size of each update, of a gradient of one entry."""
    p = {"w": jnp.zeros(())}
    us, state = run(tx, [{"w": jnp.float32(x)} for x in sizes], p, **extra)
    return [float(u["w"]) for u in us], state


def guard(**given: Any) -> Any:
    return gk.guard_by_spike(optax.identity(), **{"window": 8, **given})


def test_a_spike_of_the_norm_is_skipped_and_forgotten():
    us, state = lengths(guard(), [*NORMS, 30.0, 1.0, 40.0, 50.0, 1.0])
    np.testing.assert_allclose(us, [*NORMS, 0.0, 1.0, 0.0, 0.0, 1.0], rtol=1e-6)
    assert state.skipped == 3 and state.skipped_in_a_row == 0


def test_a_spike_of_the_loss_is_skipped_where_it_is_given():
    losses = jnp.array([*NORMS, 30.0, 1.0])
    sizes = [1.0] * len(losses)
    us, state = lengths(guard(), sizes, value=losses)
    np.testing.assert_allclose(us, [*[1.0] * 8, 0.0, 1.0])
    assert state.skipped == 1 and state.values.seen == 10
    us, state = lengths(guard(), sizes)
    assert state.skipped == state.values.seen == 0


def test_what_lasts_for_half_of_the_window_passes():
    us, state = lengths(guard(), [*NORMS, *[30.0] * 8])
    first = us[8:].index(30.0)
    assert 3 <= first <= 5 and us[8 + first :] == [30.0] * (8 - first)
    assert state.skipped == first


def test_nothing_stands_out_before_half_of_the_window_is_seen():
    assert 0.0 not in lengths(guard(), [1.0, 1.0, 1.0, 90.0])[0]
    assert lengths(guard(), [1.0, 1.0, 1.0, 1.0, 90.0])[0][-1] == 0.0


def test_in_a_window_of_equal_norms_the_floor_decides():
    assert lengths(guard(), [*[1.0] * 8, 1.05])[0][-1] != 0
    assert lengths(guard(), [*[1.0] * 8, 1.07])[0][-1] == 0
    assert lengths(guard(floor=0.0), [*[1.0] * 8, 1.001])[0][-1] == 0
    assert lengths(guard(floor=0.0), [*[1.0] * 8, 1.0])[0][-1] != 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_bad_numbers_are_skipped_and_not_remembered(bad: float):
    us, state = lengths(guard(), [1.0, bad, 1.0])
    assert us == [1.0, 0.0, 1.0] and state.norms.seen == 2 and state.skipped == 1
    losses = jnp.array([1.0, bad, 1.0])
    us, state = lengths(guard(), [1.0] * 3, value=losses)
    assert us == [1.0, 0.0, 1.0] and state.norms.seen == state.values.seen == 2


def test_the_given_norm_is_looked_at():
    norms = jnp.array([*NORMS, 30.0])
    us, _ = lengths(guard(), [1.0] * 9, global_norm=norms)
    assert us[-1] == 0 and 0 not in us[:-1]


def test_the_extra_arguments_are_passed_on():
    asked = optax.GradientTransformationExtraArgs(
        lambda p: (), lambda g, s, p=None, *, value, global_norm, key: (g, s)
    )
    g = {"w": jnp.float32(1.0)}
    extra = {k: jnp.float32(1.0) for k in ("value", "global_norm", "key")}
    for make in (gk.guard_by_finite, gk.guard_by_spike, gk.accumulate):
        tx = make(asked)
        tx.update(g, tx.init(g), g, **extra)


@pytest.mark.parametrize(
    "given,said",
    [
        ({"window": 0}, "window must be a whole number of at least 1, got 0"),
        ({"window": 2.5}, "window must be a whole number, got 2.5"),
        ({"max_deviations": -1.0}, "max_deviations must be at least 0, got -1.0"),
        ({"floor": jnp.nan}, "floor must be at least 0, got nan"),
    ],
)
def test_mistakes_in_a_guard_are_named(given: Any, said: str):
    text = message(lambda: gk.guard_by_spike(gk.sgd(), **given))
    assert text.startswith(f"gradkit.guard_by_spike: {said}")


# averages of parameters

AVERAGES = {
    "ema": gk.average_params_by_ema(0.8),
    "polynomial": gk.average_params_by_polynomial(3.0, start=2),
    "mean": gk.average_params_by_polynomial(0.0),
    "window": gk.average_params_by_window(3, every=2),
}


def wanted(name: str, ps: list[Any]) -> Any:
    """The average of parameters after each update, in NumPy, from its definition."""
    t = len(ps)
    weights = {
        "ema": [0.8 ** (t - i) for i in range(1, t + 1)],
        "mean": [1.0] * t,
        "window": [float(i % 2 == 0 and i > t - t % 2 - 6) for i in range(1, t + 1)],
        "polynomial": [0.0] * (t - 1) + [1.0],
    }[name]
    if name == "window" and t < 2:
        weights = [1.0]
    if name == "polynomial" and t > 2:
        of = lambda k: (k + 1) * (k + 2) * (k + 3)  # a power of 3, rising
        weights = [0.0, 0.0, *[of(k - 1) / 1.0 for k in range(1, t - 1)]]
    weights = np.array(weights) / np.sum(weights)
    return sum(w * p for w, p in zip(weights, ps))


def trained(tx: Any, steps: int = 9, dtype: Any = jnp.float32) -> Any:
    """Parameters after each of some updates, the last of them with the state."""
    p, out = draw(0, dtype), []
    state, update = tx.init(p), jax.jit(tx.update)
    for t in range(steps):
        u, state = update(draw(1 + t, dtype), state, p)
        p = optax.apply_updates(p, u)
        out.append((p, state))
    return out


@pytest.mark.parametrize("name", AVERAGES)
def test_the_average_is_that_of_its_definition(name: str):
    """Of parameters after each update, whatever is in the chain before."""
    run = trained(gk.chain(gk.adamw(0.1), AVERAGES[name]))
    for t, (p, state) in enumerate(run, 1):
        found = gk.eval_params(state, p)
        for k in SHAPES:
            ps = [np.asarray(q[k], np.float64) for q, _ in run[:t]]
            np.testing.assert_allclose(found[k], wanted(name, ps), rtol=1e-5, atol=1e-6)


def test_every_number_of_an_average_matters():
    moved = [
        (gk.average_params_by_ema(0.8), gk.average_params_by_ema(0.72)),
        (AVERAGES["polynomial"], gk.average_params_by_polynomial(3.3, start=2)),
        (AVERAGES["polynomial"], gk.average_params_by_polynomial(3.0, start=3)),
        (AVERAGES["window"], gk.average_params_by_window(2, every=2)),
        (AVERAGES["window"], gk.average_params_by_window(3, every=3)),
    ]
    for pair in moved:
        (p, one), (_, other) = (trained(gk.chain(gk.sgd(0.1), tx))[-1] for tx in pair)
        a, b = (gk.eval_params(state, p)["kernel"] for state in (one, other))
        assert not np.allclose(a, b, rtol=1e-4)


def test_an_ema_is_that_of_optax():
    """Debiased; and with the weight of each update, `optax.incremental_update`."""
    run = trained(gk.chain(gk.sgd(0.1), gk.average_params_by_ema(0.9)))
    peer = optax.ema(0.9, debias=True)
    state, average = peer.init(run[0][0]), jax.tree.map(jnp.zeros_like, run[0][0])
    for t, (p, kept) in enumerate(run, 1):
        with jax.numpy_dtype_promotion("standard"):
            want, state = peer.update(p, state)
        close(gk.eval_params(kept, p), want)
        average = optax.incremental_update(p, average, 0.1 / (1 - 0.9**t))
        close(gk.eval_params(kept, p), average)


@pytest.mark.parametrize("store", ["int8", "int4", "fp8", "bfloat16", "bfloat16_plus8"])
@pytest.mark.parametrize("name", ["window", "schedule_free"])
def test_a_codec_leaves_an_average_as_it_is(name: str, store: str):
    """Of leaves large enough to be encoded, as the moments beside it are."""
    p = {"w": jnp.linspace(-1, 1, 1024).reshape(4, 256)}
    chain = lambda: gk.chain(gk.adamw(0.1), AVERAGES[name])
    tx = gk.schedule_free_adamw(0.1) if name == "schedule_free" else chain()
    narrow = getattr(gk, f"store_by_{store}")(tx)
    _, state = narrow.update(p, narrow.init(p), p)
    _, want = tx.update(p, tx.init(p), p)
    equal(gk.eval_params(state, p), gk.eval_params(want, p))
    size = lambda t: sum(x.nbytes for x in jax.tree.leaves(t))
    assert size(state) < size(want)


def test_an_average_of_parameters_stands_last():
    """Before a step it would see no update: an EMA of 1.977 where the parameters are 0.96."""
    ema, sgd = gk.average_params_by_ema(), gk.sgd()
    ended = gk.accumulate(
        gk.measure(gk.chain(sgd, gk.average_params_by_ema(lambda count: 0.9)))
    )
    for average, after in [
        (ema, sgd),
        (ema, optax.scale(0.5)),
        (ended, gk.clip_by_unit_norm()),
    ]:
        with pytest.raises(
            ValueError, match=r"gradkit.chain: an average .* after (average|acc)"
        ):
            gk.chain(average, after)
    with pytest.raises(ValueError, match="got sgd after average_params_by_ema"):
        gk.chain(ema, sgd)
    gk.chain(
        ended, optax.identity(), gk.average_params_by_window(), gk.round_by_kahan()
    )


def test_one_part_turns_the_sign():
    """Twice is gradient ascent."""
    step = gk.step_by_learning_rate(0.1)
    first = [gk.adamw(), gk.muon(), gk.route({"b": gk.sgd()}, default=gk.adamw()), step]
    first += [gk.guard_by_finite(gk.store_by_int8(gk.tune(gk.adamw)))]
    for part in first:
        with pytest.raises(
            ValueError, match=r"one part must turn the sign.*got step_by_learn"
        ):
            gk.chain(gk.clip_by_unit_norm(), part, step)
    with pytest.raises(ValueError, match="got sgd after adamw, which"):
        gk.chain(gk.adamw(), gk.clip_by_unit_norm(), gk.sgd())
    init: Any = gk.chain(step).init
    with pytest.raises(TypeError, match=r"^chain.init\(\) missing 1 required"):
        init()
    gk.chain(
        gk.step_by_weight_floor(), step, gk.decay_by_weight(), gk.clip_by_unit_norm()
    )


def test_power_8_is_the_average_of_dog():
    """Whose weight of each update is 9 / (8 + t)."""
    run = trained(gk.chain(gk.sgd(0.1), gk.average_params_by_polynomial()))
    average = run[0][0]
    for t, (p, _) in enumerate(run, 1):
        average = optax.incremental_update(p, average, 9 / (8 + t))
    close(gk.eval_params(run[-1][1], run[-1][0]), average)


@pytest.mark.parametrize("name", AVERAGES)
def test_updates_are_passed_on_as_they_are(name: str):
    tx = AVERAGES[name]
    bad = poisoned(GRADS[1], jnp.nan)
    us, state = run(tx, [GRADS[0], bad], PARAMS)
    equal(us, [GRADS[0], bad])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", AVERAGES)
def test_before_the_first_update_the_average_is_the_parameters(name: str):
    for dtype in (jnp.float32, jnp.bfloat16):
        p = draw(0, dtype)
        equal(gk.eval_params(AVERAGES[name].init(p), p), p)


@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_of_bfloat16_is_kept_in_float32(name: str):
    p, state = trained(gk.chain(gk.sgd(0.1), AVERAGES[name]), 9, jnp.bfloat16)[-1]
    found = gk.eval_params(state, p)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    kept = [x.dtype for x in jax.tree.leaves(state) if x.ndim > 0]
    assert set(kept) == {jnp.dtype(jnp.float32)}


def averaging(decay: float = 0.8) -> Any:
    return gk.chain(gk.sgd(0.1), gk.average_params_by_ema(decay))


EVERY = jax.tree.map(lambda _: True, PARAMS)
PLACES = {
    "optax.chain": optax.chain(gk.sgd(0.1), gk.average_params_by_ema(0.8)),
    "a chain in a chain": gk.chain(gk.chain(averaging())),
    "optax.masked": optax.masked(averaging(), EVERY),
    "optax.partition": optax.partition({"a": averaging()}, {k: "a" for k in PARAMS}),
    "a route": gk.route({"bias": averaging(), "kernel|scale": averaging()}),
    "accumulate": gk.accumulate(averaging(), every=1),
    "guard_by_finite": gk.guard_by_finite(averaging()),
    "guard_by_spike": gk.guard_by_spike(averaging()),
    "mix": gk.mix([1.0, 1.0], averaging(), optax.set_to_zero()),
    "MultiSteps": optax.MultiSteps(averaging(), 1).gradient_transformation(),
    "inject_hyperparams": optax.inject_hyperparams(averaging)(0.8),
    "a schedule": gk.chain(
        gk.sgd(0.1),
        gk.average_params_by_ema(lambda count: 0.8 + 0.0 * count.astype(float)),
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_average_is_found_wherever_it_is(name: str):
    with jax.numpy_dtype_promotion("standard"):
        p, state = trained(PLACES[name], 5)[-1]
    want = gk.eval_params(*trained(averaging(), 5)[-1][::-1])
    close(jax.jit(gk.eval_params)(state, p), want)


def test_leaves_that_are_not_averaged_are_the_parameters():
    tx = gk.route({"bias": averaging()}, default=gk.sgd(0.1))
    p, state = trained(tx, 5)[-1]
    found = gk.eval_params(state, p)
    equal(
        {k: found[k] for k in ("kernel", "scale")},
        {k: p[k] for k in ("kernel", "scale")},
    )
    assert not np.allclose(found["bias"], p["bias"])


def test_the_average_of_an_optimizer_of_nnx():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    for average in (
        gk.average_params_by_ema(0.5),
        gk.average_params_by_window(2, every=1),
    ):
        optimizer = nnx.Optimizer(model, gk.chain(gk.sgd(0.1), average), wrt=nnx.Param)
        before = nnx.state(model, nnx.Param)
        grads = jax.tree.map(jnp.ones_like, before)
        kept = []
        for _ in range(2):
            optimizer.update(model, grads)
            kept.append(jax.tree.map(jnp.copy, nnx.state(model, nnx.Param)))
        found = gk.eval_params(optimizer.opt_state, nnx.state(model, nnx.Param))
        nnx.update(nnx.Linear(3, 2, rngs=nnx.Rngs(1)), found)
        share = 2 / 3 if isinstance(average.init(before), AverageState) else 1 / 2
        want = jax.tree.map(lambda a, b, w=share: (1 - w) * a + w * b, *kept)
        close(found, want)


@pytest.mark.parametrize(
    "tx,params,said",
    [
        (gk.adamw(), PARAMS, "state must have an average of parameters, got none. Put"),
        (
            gk.chain(averaging(), gk.average_params_by_window()),
            PARAMS,
            "leaf bias must have one average, got two. Keep one",
        ),
        (
            averaging(),
            {"kernel": PARAMS["kernel"]},
            "params must have leaf bias, of which the state has an average of shape (4,), "
            "got no such leaf. Give",
        ),
        (
            averaging(),
            {**PARAMS, "bias": jnp.zeros(3)},
            "params must have leaf bias, of which the state has an average of shape (4,), "
            "got shape (3,). Give",
        ),
    ],
)
def test_what_no_average_is_found_for_is_named(tx: Any, params: Any, said: str):
    text = message(lambda: gk.eval_params(tx.init(PARAMS), params))
    assert text.startswith(f"gradkit.eval_params: {said}")


@pytest.mark.parametrize(
    "make,said",
    [
        (
            lambda: gk.average_params_by_ema(1.0),
            "ema: decay must be at least 0 and below 1",
        ),
        (lambda: gk.average_params_by_polynomial(-1.0), "polynomial: power must be at"),
        (
            lambda: gk.average_params_by_window(0),
            "window: length must be a whole number",
        ),
        (lambda: gk.average_params_by_window(every=0), "window: every must be above 0"),
        (
            lambda: AVERAGES["ema"].update(PARAMS, AVERAGES["ema"].init(PARAMS)),
            "ema: params must be passed to update, got None",
        ),
    ],
)
def test_mistakes_in_an_average_are_named(make: Any, said: str):
    assert message(make).startswith(f"gradkit.average_params_by_{said}")


# what rounds parameters


@pytest.mark.parametrize("make", [gk.guard_by_finite, gk.guard_by_spike, gk.accumulate])
def test_what_rounds_parameters_does_so_within(make: Any):
    """It sees the parameters as they are kept, and its update is not rounded after it."""
    rounding = gk.chain(gk.sgd(1e-3), gk.round_by_stochastic())
    params, grads = draw(0, jnp.bfloat16), [draw(t, jnp.bfloat16) for t in range(1, 4)]
    tx = make(rounding, every=1) if make is gk.accumulate else make(rounding)
    us, _ = run(tx, grads, params)
    equal(us, run(rounding, grads, params)[0])
    equal(run(gk.chain(tx), grads, params)[0], us)


@pytest.mark.parametrize(
    "make", [lambda tx: gk.mix([1.0], tx), lambda tx: gk.graft(tx, tx)]
)
def test_what_rounds_parameters_is_refused_where_its_update_changes(make: Any):
    tx = make(gk.round_by_stochastic())
    text = message(lambda: tx.init(draw(0, jnp.bfloat16)))
    assert "must be the last transform of gradkit.chain itself" in text
