"""Numbers of each update: those that NumPy finds, of a transform that does what it did before."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
import xla
from flax import nnx
from jax.sharding import PartitionSpec

import gradkit as gk
from gradkit._core import report

SHAPES = {"kernel": (4, 4), "bias": (4,), "scale": ()}


def draw(seed: int, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}


PARAMS = draw(0)
GRADS = [draw(t) for t in range(1, 11)]
STACK = jax.tree.map(lambda *xs: jnp.stack(xs), *GRADS)


def run(tx: Any, grads: Any = GRADS, params: Any = PARAMS, state: Any = None) -> Any:
    """The updates of gradients in turn, jitted, and all states."""
    update, us = jax.jit(optax.with_extra_args_support(tx).update), []
    states = [tx.init(params) if state is None else state]
    for g in grads:
        u, state = update(g, states[-1], params)
        us.append(u)
        states.append(state)
    return us, states


def equal(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def norm(t: Any) -> float:
    leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(t)]
    return float(np.linalg.norm(np.concatenate(leaves)))


def holds(found: Any, **want: Any) -> None:
    """These metrics have these values; `__` in a name stands for a slash."""
    for k, x in want.items():
        key = k.replace("__", "/")
        np.testing.assert_allclose(found[key], x, rtol=1e-5, err_msg=key)


def message(action: Any) -> str:
    """The text of the error that `action` raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        action()
    return str(caught.value)


# It changes nothing

RECIPES = {
    "adamw": lambda: gk.adamw(0.1),
    "muon": lambda: gk.muon(0.1),
    "soap": lambda: gk.soap(0.1),
    "galore": lambda: gk.galore(0.1, rank=2, every=2),
    "zclip_adamw": lambda: gk.zclip_adamw(0.1),
    "ademamix": lambda: gk.ademamix(0.1),
    "optax": lambda: optax.chain(optax.clip(1.0), optax.adamw(0.1)),
    "accumulate": lambda: gk.accumulate(gk.muon(0.1), every=3),
    "guard": lambda: gk.guard_by_spike(gk.lion(0.1), window=4),
    "route": lambda: gk.route({"kernel": gk.lion(0.1)}, default=gk.adamw(0.1)),
    "tune": lambda: gk.tune(gk.adamw, learning_rate=0.1),
    "int8": lambda: gk.store_by_int8(gk.adamw(0.1), block=2),
}


@pytest.mark.parametrize(
    "name,dtype",
    [  # in bfloat16 most by make check-full alone, and those that others have the parts of
        pytest.param(name, dtype, marks=[pytest.mark.slow] * is_slow)
        for name in RECIPES
        for dtype in (jnp.float32, jnp.bfloat16)
        for is_slow in [
            name in ("ademamix", "route", "soap")
            or (dtype == jnp.bfloat16 and name not in ("adamw", "muon"))
        ]
    ],
)
def test_updates_and_inner_state_are_those_of_inner_bit_for_bit(name: str, dtype: Any):
    params, grads = draw(0, dtype), [draw(t, dtype) for t in range(1, 5)]
    with jax.numpy_dtype_promotion("standard"):
        want, plain = run(RECIPES[name](), grads, params)
        tx = gk.measure(RECIPES[name]())
        got, states = run(tx, grads, params)
        equal(got, want)
        equal(states[-1].inner, plain[-1])
        # and where nobody jits it
        u, state = tx.update(grads[0], tx.init(params), params)
    equal(u, want[0])
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (*states, state)]
    assert all(k == kinds[0] for k in kinds), "names and dtypes are those of init"
    assert {x.dtype for x in states[-1].numbers.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", ["stable_spam", "zclip_adamw", "muon"])
def test_optimized_programs_round_alike(name: str):
    """XLA may contract other products and sums where their factors are used twice."""
    rng = np.random.default_rng(0)
    shapes = {"a": (64, 96), "b": (96, 32), "bias": (96,), "scale": ()}
    draw = lambda: {k: jnp.float32(rng.normal(size=s)) for k, s in shapes.items()}
    params, tx = draw(), getattr(gk, name)()
    measured = gk.measure(tx)
    options = {"compiler_options": xla.OPTIMIZED}
    plain, update = jax.jit(tx.update, **options), jax.jit(measured.update, **options)
    want, got = tx.init(params), measured.init(params)
    for g in [draw() for _ in range(4)]:
        u, want = plain(g, want, params)
        v, got = update(g, got, params)
        equal((v, got.inner), (u, want))


CLIPS = [
    gk.clip_by_component_norm,
    gk.clip_by_ema_norm,
    gk.clip_by_global_norm,
    gk.clip_by_median,
    gk.clip_by_norm_growth,
    gk.clip_by_percentile,
    gk.clip_by_slice_norm,
    gk.clip_by_spike,
    gk.clip_by_unit_norm,
    gk.clip_by_zscore,
]


def test_nothing_is_computed_where_nothing_measures(monkeypatch: pytest.MonkeyPatch):
    """The program of an update is the one without any report in the code."""
    inner = gk.chain(
        *[clip() for clip in CLIPS], gk.muon(optax.linear_schedule(1, 0, 9))
    )
    for wrap in (gk.guard_by_spike, gk.guard_by_finite, gk.accumulate):
        inner = wrap(inner)
    tx = gk.route({".": inner})
    program = lambda: str(jax.make_jaxpr(lambda g, s: tx.update(g, s, PARAMS))(*args))
    args = GRADS[0], tx.init(PARAMS)
    found = program()
    for name in ("number", "event", "skipping", "clipping", "sizes"):
        monkeypatch.setattr(report, name, lambda *args: None)
    monkeypatch.setattr(report, "is_collecting", lambda: False)
    monkeypatch.setattr(report, "through", lambda f, state, run: run(f, state))
    assert found == program()
    measured = gk.measure(tx)
    assert measured.init(PARAMS).numbers == {}, "the names here are those of reports"


# Numbers


def test_norms_and_rates_are_those_of_numpy():
    rate = optax.linear_schedule(0.5, 0.1, 8)
    tx = gk.measure(gk.chain(gk.clip_by_global_norm(2.0), gk.sgd(rate)))
    us, states = run(tx)
    for t, (g, u, state) in enumerate(zip(GRADS, us, states[1:])):
        found, ratio = gk.metrics(state), norm(u) / norm(PARAMS)
        factor = min(1.0, 2 / norm(g))
        holds(found, gradient_norm=norm(g), update_norm=norm(u), learning_rate=rate(t))
        holds(found, param_norm=norm(PARAMS), update_to_param=ratio, count=t + 1)
        holds(found, clip_by_global_norm__factor=factor)
        holds(found, clip_by_global_norm__clipped=factor < 1)
    first = gk.metrics(states[0])
    assert set(first) == set(found)
    assert all(x == 0 and x.shape == () for x in first.values())


def spikes(at: set[int], steps: int = 10) -> list[dict[str, jax.Array]]:
    """Gradients of norm 1, and of norm 5 at these steps."""
    sizes = [(5.0 if t in at else 1.0) / norm(GRADS[t]) for t in range(steps)]
    return [jax.tree.map(lambda x, a=a: a * x, g) for a, g in zip(sizes, GRADS)]


def test_the_clipped_fraction_is_that_of_all_steps():
    tx, at = gk.measure(gk.clip_by_global_norm(2.0)), {2, 3, 7}
    _, states = run(tx, spikes(at))
    for t, state in enumerate(states[1:]):
        so_far = len([s for s in at if s <= t]) / (t + 1)
        holds(gk.metrics(state), clip_by_global_norm__clipped=float(t in at))
        holds(gk.metrics(state), clip_by_global_norm__clipped_fraction=so_far)
    assert states[-1].events["clip_by_global_norm/clipped"].happened == 3


@pytest.mark.parametrize("clip", CLIPS)
def test_every_clip_reports_what_it_did(clip: Any):
    """Its factor is the least ratio of an entry of the update to one of the gradient."""
    name, given = clip.__name__, {}
    if name == "clip_by_zscore":
        given = {"warmup": 3}
    if name == "clip_by_ema_norm":
        given = {"warmup": 2, "max_norm": 20.0}
    us, states = run(gk.measure(clip(**given)), spikes({4, 5, 6}))
    happened = 0
    for g, u, state in zip(spikes({4, 5, 6}), us, states[1:]):
        found, pairs = gk.metrics(state), zip(jax.tree.leaves(u), jax.tree.leaves(g))
        least = min(float(np.min(np.abs(x) / np.abs(y))) for x, y in pairs)
        happened += bool(found[f"{name}/clipped"])
        assert bool(found[f"{name}/clipped"]) == (found[f"{name}/factor"] < 1)
        if (
            name == "clip_by_median"
        ):  # of the distance to an estimate, not of the gradient
            continue
        np.testing.assert_allclose(found[f"{name}/factor"], least, rtol=1e-5)
    holds(found, **{f"{name}__clipped_fraction": happened / 10})
    assert 0 < happened <= 10


def test_every_clip_is_tried():
    assert {c.__name__ for c in CLIPS} == {
        k for k in dir(gk) if k.startswith("clip_by")
    }


def test_parts_of_one_name_are_numbered():
    clips = [gk.clip_by_global_norm(x) for x in (3.0, 2.0, 1.0)]
    tx = gk.measure(optax.chain(*clips, gk.sgd(0.1), gk.sgd(1.0)))
    _, states = run(tx, spikes({0}, 1))
    found = gk.metrics(states[-1])
    holds(found, clip_by_global_norm__factor=3 / 5, clip_by_global_norm_2__factor=2 / 3)
    holds(found, clip_by_global_norm_3__factor=1 / 2, learning_rate_2=1.0)
    holds(found, learning_rate=0.1)


def test_a_non_finite_gradient_is_counted_and_is_zero_in_norms():
    bad = {**GRADS[0], "bias": GRADS[0]["bias"].at[1].set(jnp.nan)}
    _, states = run(gk.measure(gk.clip_by_global_norm(1.0)), [GRADS[1], bad])
    found = gk.metrics(states[-1])
    zeroed = {**bad, "bias": bad["bias"].at[1].set(0.0)}
    holds(found, gradient_nonfinite=1, gradient_nonfinite_fraction=0.5)
    holds(found, gradient_norm=norm(zeroed))


def test_norms_are_those_of_real_and_complex_leaves():
    t = {"c": jnp.array([3 + 4j]), "i": jnp.array([7]), "none": None, "x": jnp.ones(11)}
    t["mask"] = optax.MaskedNode()
    tx = gk.measure(optax.identity())
    _, state = tx.update(t, tx.init(t), t)
    holds(gk.metrics(state), gradient_norm=6.0, param_norm=6.0, update_to_param=1.0)
    huge = {"x": jnp.full(4, 1e30), "y": jnp.zeros((0, 3), jnp.bfloat16)}
    _, state = tx.update(huge, tx.init(huge), jax.tree.map(jnp.zeros_like, huge))
    holds(gk.metrics(state), gradient_norm=2e30, param_norm=0.0, update_to_param=0.0)


def test_norms_of_bfloat16_are_in_float32():
    ones = {"x": jnp.full(1000, 1 / 3, jnp.bfloat16)}
    tx = gk.measure(gk.sgd(1.0))
    _, state = tx.update(ones, tx.init(ones), ones)
    holds(gk.metrics(state), gradient_norm=norm(ones))  # bfloat16 has three digits


def test_without_params_there_are_no_norms_of_them():
    tx = gk.measure(gk.sgd(0.1))
    _, state = tx.update(PARAMS, tx.init(PARAMS))
    holds(gk.metrics(state), param_norm=0.0, update_to_param=0.0, learning_rate=0.1)
    assert "params must be passed to init" in message(lambda: tx.init(None))


# Groups


def test_groups_of_a_route_are_measured_apart():
    rules = {"kernel": gk.chain(gk.clip_by_global_norm(1.0), gk.sgd(0.1))}
    tx = gk.measure(gk.route(rules, default=gk.sgd(0.5)))
    us, states = run(tx)
    found = gk.metrics(states[-1])
    kernel = lambda t: {"kernel": t["kernel"]}
    others = lambda t: {k: t[k] for k in ("bias", "scale")}
    g, u = GRADS[-1], us[-1]
    for group, part in (("kernel", kernel), ("default", others)):
        holds(found, **{f"{group}__gradient_norm": norm(part(g))})
        holds(found, **{f"{group}__update_norm": norm(part(u))})
        holds(found, **{f"{group}__param_norm": norm(part(PARAMS))})
        ratio = norm(part(u)) / norm(part(PARAMS))
        holds(found, **{f"{group}__update_to_param": ratio})
    holds(found, kernel__learning_rate=0.1, default__learning_rate=0.5)
    holds(found, kernel__clip_by_global_norm__factor=1 / norm(kernel(g)))
    assert "default/clip_by_global_norm/factor" not in found
    assert "learning_rate" not in found


def test_groups_of_a_recipe_have_the_names_of_routes():
    tx = gk.muon(0.5, adam_lr_ratio=0.1)
    us, states = run(gk.measure(tx))
    found = gk.metrics(states[-1])
    assert {r.transform for r in gk.routes(gk.measure(tx), PARAMS)} == {
        "matrices",
        "adam",
    }
    holds(found, matrices__learning_rate=0.5, adam__learning_rate=0.05)
    holds(found, matrices__update_norm=norm(us[-1]["kernel"]))


def test_groups_of_one_name_are_numbered():
    is_kernel = lambda path, leaf: path == "kernel"
    is_other = lambda path, leaf: path != "kernel"
    one = gk.route({is_kernel: gk.sgd(0.1), is_other: gk.sgd(0.2)})
    _, states = run(gk.measure(optax.chain(one, one)))
    rates = {
        "<lambda>": 0.1,
        "<lambda>_2": 0.2,
        "<lambda>_3": 0.1,
        "<lambda>_4": 0.2,
    }
    holds(
        gk.metrics(states[-1]), **{f"{k}__learning_rate": x for k, x in rates.items()}
    )


def test_a_group_without_leaves_has_zeros():
    tx = gk.measure(gk.route({"nothing": gk.sgd(0.1)}, default=gk.sgd(0.2)))
    with pytest.warns(UserWarning, match="nothing"):
        _, states = run(tx)
    holds(gk.metrics(states[-1]), nothing__gradient_norm=0.0)


# Parts that do not always run


def test_accumulated_parts_report_where_they_run():
    """Micro-batches of norm 1 and 5; means of three, of which the second has a spike alone."""
    gs = [jax.tree.map(lambda x: x / norm(PARAMS), PARAMS)] * 9
    gs = [
        jax.tree.map(lambda x, a=a: a * x, g)
        for g, a in zip(gs, [1] * 3 + [9] * 3 + [1] * 3)
    ]
    gs[7] = {**gs[7], "scale": jnp.array(jnp.inf)}
    parts = gk.chain(
        gk.clip_by_global_norm(4.0), gk.sgd(optax.linear_schedule(0.5, 0.1, 4))
    )
    _, states = run(gk.measure(gk.accumulate(parts, every=3)), gs)
    found = [gk.metrics(s) for s in states[1:]]
    for t, m in enumerate(found):
        holds(m, clip_by_global_norm__clipped=float(t == 5))
        holds(m, accumulate__skipped=float(t == 7), count=t + 1)
        done = (t + 1) // 3
        fraction = (t >= 5) / done if done else 0.0
        holds(m, clip_by_global_norm__clipped_fraction=fraction)
        holds(m, learning_rate=0.5 - 0.1 * (done - 1) if done else 0.0)  # the last one
        assert bool(m["update_norm"] > 0) == (t % 3 == 2)
    holds(found[-1], accumulate__skipped_fraction=1 / 9)
    holds(found[5], clip_by_global_norm__factor=4 / 9)


@pytest.mark.parametrize("guard", [gk.guard_by_finite, gk.guard_by_spike])
def test_guards_report_skipped_steps(guard: Any):
    name, bad = guard.__name__, {**GRADS[0], "scale": jnp.array(jnp.inf)}
    tx = gk.measure(guard(gk.chain(gk.clip_by_global_norm(1e-3), gk.sgd(0.5))))
    _, states = run(tx, [GRADS[0], bad, bad, GRADS[1]])
    found = [gk.metrics(s) for s in states[1:]]
    for m, skipped, in_a_row, fraction in zip(
        found, [0, 1, 1, 0], [0, 1, 2, 0], [0, 1 / 2, 2 / 3, 2 / 4]
    ):
        holds(m, **{f"{name}__skipped": skipped, f"{name}__skipped_fraction": fraction})
        holds(m, **{f"{name}__skipped_in_a_row": in_a_row, "learning_rate": 0.5})
        holds(m, clip_by_global_norm__clipped=1 - skipped)
        holds(m, clip_by_global_norm__clipped_fraction=1.0)  # of the steps that it made


def test_branches_in_branches_and_groups_report():
    kernel = gk.accumulate(gk.guard_by_finite(gk.clip_by_component_norm(1.0)), every=2)
    tx = gk.measure(
        gk.route({"kernel": kernel}, default=gk.accumulate(kernel, every=2))
    )
    _, states = run(tx, GRADS[:8])
    found = gk.metrics(states[-1])
    assert {k for k in found if k.endswith("skipped")} == {
        "kernel/accumulate/skipped",
        "kernel/guard_by_finite/skipped",
        "default/accumulate/skipped",
        "default/accumulate_2/skipped",
        "default/guard_by_finite/skipped",
    }
    runs = {k: int(e.updates) for k, e in states[-1].events.items()}
    assert runs["kernel/accumulate/skipped"] == runs["default/accumulate/skipped"] == 8
    assert runs["kernel/guard_by_finite/skipped"] == 4
    assert runs["default/accumulate_2/skipped"] == 4
    assert runs["default/clip_by_component_norm/clipped"] == 2


@pytest.mark.parametrize(
    "wrap", ["MultiSteps", "apply_if_finite", "nested jit", "vmap"]
)
def test_no_tracer_leaves_a_branch_that_others_run(wrap: str):
    inner = gk.chain(gk.clip_by_global_norm(1.0), gk.sgd(0.1))
    each = lambda f: (
        lambda g, s, p: jax.vmap(f, in_axes=None, axis_size=1, out_axes=0)(g, s, p)
    )
    tx = {
        "MultiSteps": lambda: optax.MultiSteps(inner, 2).gradient_transformation(),
        "apply_if_finite": lambda: optax.apply_if_finite(inner, 3),
        "nested jit": lambda: optax.GradientTransformation(
            inner.init, jax.jit(lambda g, s, p: inner.update(g, s, p))
        ),
        "vmap": lambda: optax.GradientTransformation(
            inner.init,
            lambda g, s, p: jax.tree.map(lambda x: x[0], each(inner.update)(g, s, p)),
        ),
    }[wrap]()
    with jax.numpy_dtype_promotion("standard"):
        want, _ = run(tx)
        got, states = run(gk.measure(tx))
    equal(got, want)
    found = gk.metrics(states[-1])
    assert "clip_by_global_norm/clipped" not in found
    holds(found, gradient_norm=norm(GRADS[-1]), update_norm=norm(want[-1]))


def test_parts_that_get_constants_report():
    """They would be compiled apart, where nobody jits them: their gradients are no tracers."""
    tx = gk.measure(optax.chain(gk.clip_by_global_norm(1.0), gk.scale_by_adam()))
    step = jax.jit(lambda state: tx.update(GRADS[0], state, PARAMS))
    found = gk.metrics(step(tx.init(PARAMS))[1])
    holds(found, clip_by_global_norm__factor=1 / norm(GRADS[0]))


def test_a_part_that_needs_extra_arguments_has_the_numbers_of_the_whole():
    tx = gk.measure(gk.chain(gk.clip_by_global_norm(1.0), gk.scale_by_oasis()))
    state = tx.init(PARAMS)
    assert "clip_by_global_norm/clipped" not in gk.metrics(state)
    _, state = tx.update(GRADS[0], state, PARAMS, hessian_diagonal=PARAMS)
    holds(gk.metrics(state), gradient_norm=norm(GRADS[0]), count=1)


def test_what_is_not_reported_in_an_update_stays_as_it_was():
    clip = gk.clip_by_global_norm(1.0)

    def update(g: Any, state: Any, params: Any = None, *, whole: Any = None) -> Any:
        return clip.update(g, state, params) if whole is None else (g, state)

    tx = gk.measure(optax.GradientTransformationExtraArgs(clip.init, update))
    _, state = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    _, state = tx.update(GRADS[1], state, PARAMS, whole=1.0)
    found = gk.metrics(state)
    holds(
        found, clip_by_global_norm__clipped=0, clip_by_global_norm__clipped_fraction=1
    )
    holds(found, clip_by_global_norm__factor=1 / norm(GRADS[0]), count=2)


# In what users have

CHAIN = gk.chain(gk.clip_by_global_norm(4.6), gk.adamw(0.1))
TX = gk.measure(CHAIN)


def test_a_scan_returns_stacked_metrics():
    def step(state: Any, g: Any) -> Any:
        _, state = TX.update(g, state, PARAMS)
        return state, gk.metrics(state)

    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), STACK)
    _, found = jax.jit(lambda s: jax.lax.scan(step, s, twice))(TX.init(PARAMS))
    assert {x.shape for x in found.values()} == {(20,)}
    norms = [norm(g) for g in GRADS] * 2
    holds(found, gradient_norm=norms, count=np.arange(1, 21))
    clipped = np.array(norms) > 4.6
    holds(found, clip_by_global_norm__clipped=clipped)
    fractions = np.cumsum(clipped) / np.arange(1, 21)
    assert 0 < fractions[-1] < 1
    holds(found, clip_by_global_norm__clipped_fraction=fractions)


def test_a_batch_of_runs_has_metrics_of_each():
    def one(g: Any, rate: Any) -> Any:
        tx = gk.measure(
            gk.accumulate(gk.chain(gk.clip_by_global_norm(2.0), gk.sgd(rate)), every=1)
        )
        return gk.metrics(tx.update(g, tx.init(PARAMS), PARAMS)[1])

    rates = jnp.linspace(0.1, 1.0, 10)
    found = jax.jit(jax.vmap(one))(STACK, rates)
    holds(found, gradient_norm=[norm(g) for g in GRADS], learning_rate=rates)
    holds(found, clip_by_global_norm__clipped=[norm(g) > 2 for g in GRADS])
    state = jax.vmap(TX.init)(jax.tree.map(lambda x: jnp.stack([x] * 3), PARAMS))
    assert {x.shape for x in gk.metrics(state).values()} == {(3,)}


def test_a_branch_and_a_donated_state_carry_it():
    go = lambda args: TX.update(*args, PARAMS)[1]
    step = lambda due, g, s: jax.lax.cond(due, go, lambda args: args[1], (g, s))
    step = jax.jit(step, donate_argnums=2)
    state = step(True, GRADS[0], TX.init(PARAMS))
    state = step(False, GRADS[1], state)
    holds(gk.metrics(state), gradient_norm=norm(GRADS[0]), count=1)


def test_each_device_of_a_shard_map_measures_its_part():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    grads, params = ({k: t[k] for k in ("kernel", "bias")} for t in (GRADS[0], PARAMS))
    tx = gk.measure(gk.accumulate(gk.clip_by_component_norm(1.0), every=1))

    def local(g: Any, p: Any) -> Any:
        step = lambda state, _: (tx.update(g, state, p)[1], None)
        found = gk.metrics(jax.lax.scan(step, tx.init(p), length=2)[0])
        factor = found["clip_by_component_norm/factor"]
        return found["gradient_norm"][None], factor[None]

    along = PartitionSpec("x")
    specs = {"mesh": mesh, "in_specs": (along, along), "out_specs": along}
    got, factors = jax.jit(jax.shard_map(local, **specs))(grads, params)
    for i in (0, 1):
        mine = {k: x[2 * i :][:2] for k, x in grads.items()}
        np.testing.assert_allclose(got[i], norm(mine), rtol=1e-5)
        least = min(1 / norm(x) for x in mine.values())
        np.testing.assert_allclose(factors[i], min(1, least), rtol=1e-5)


def test_a_traced_hyperparameter_is_reported():
    @jax.jit
    def step(rate: Any) -> Any:
        tx = gk.measure(gk.sgd(rate))
        return gk.metrics(tx.update(GRADS[0], tx.init(PARAMS), PARAMS)[1])

    holds(step(0.25), learning_rate=0.25)


def test_an_nnx_optimizer_keeps_it():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Any:
        grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 3))) ** 2))(model)
        optimizer.update(model, grads)
        return grads

    grads = step(model, optimizer)
    found = gk.metrics(optimizer.opt_state)
    holds(found, gradient_norm=norm(grads), count=1, learning_rate=0.1)
    assert all(isinstance(x, jax.Array) for x in found.values())


def test_a_checkpoint_restores_it(tmp_path: Any):
    _, states = run(TX)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", states[5])
        checkpointer.wait_until_finished()
        kinds = jax.tree.map(orbax.checkpoint.utils.to_shape_dtype_struct, states[0])
        state = checkpointer.restore(tmp_path / "state", kinds)
    equal(gk.metrics(run(TX, GRADS[5:], state=state)[1][-1]), gk.metrics(states[-1]))


LABELS = {"kernel": "a", "bias": "b", "scale": "b"}
AROUND = {
    "optax.chain": (lambda tx: optax.chain(optax.clip(100.0), tx), "1/"),
    "gk.chain": (lambda tx: gk.chain(optax.clip(100.0), tx), "1/"),
    "partition": (
        lambda tx: optax.partition({"a": tx, "b": optax.sgd(0.1)}, LABELS),
        "inner_states/a/inner_state/",
    ),
    "MultiSteps": (
        lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
        "inner_opt_state/",
    ),
    "accumulate": (lambda tx: gk.accumulate(tx, every=2), "inner/"),
    "bfloat16": (gk.store_by_bfloat16, None),
}


@pytest.mark.parametrize("name", AROUND)
def test_keys_are_places_in_the_state(name: str):
    wrap, path = AROUND[name]
    with jax.numpy_dtype_promotion("standard"):
        got, states = run(wrap(TX))
        equal(got, run(wrap(CHAIN))[0])
    found = gk.metrics(states[-1])
    if path is None:
        (path,) = {
            k.removesuffix("param_norm") for k in found if k.endswith("param_norm")
        }
    assert all(k.startswith(path) for k in found)
    mine = {"kernel": PARAMS["kernel"]} if name == "partition" else PARAMS
    holds(found, **{f"{path.replace('/', '__')}param_norm": norm(mine)})
    names = {k.removeprefix(path) for k in found}
    assert names == set(gk.metrics(TX.init(PARAMS)))


def test_two_are_told_apart():
    clip = gk.measure(gk.clip_by_global_norm(2.0))
    _, states = run(optax.chain(clip, gk.measure(gk.sgd(0.1))), spikes({0}, 1))
    found = gk.metrics(states[-1])
    holds(found, **{"0__gradient_norm": 5, "0__update_norm": 2, "1__gradient_norm": 2})
    holds(found, **{"1__update_norm": 0.2, "1__learning_rate": 0.1})
    assert (
        "1/clip_by_global_norm/clipped" not in found and "0/learning_rate" not in found
    )


def test_one_in_another_has_its_own_numbers():
    inner = gk.measure(gk.chain(gk.clip_by_global_norm(1.0), gk.sgd(0.5)))
    tx = gk.measure(gk.chain(gk.clip_by_global_norm(2.0), inner))
    _, states = run(tx, spikes({0}, 1))
    found = gk.metrics(states[-1])
    holds(found, gradient_norm=5, clip_by_global_norm__factor=2 / 5)
    holds(found, **{"1__gradient_norm": 2, "1__clip_by_global_norm__factor": 1 / 2})
    assert "learning_rate" not in found and "clip_by_global_norm_2/factor" not in found
    holds(found, **{"1__learning_rate": 0.5})


def test_tuned_hyperparameters_are_listed_once():
    tuned = gk.tune(gk.adamw, learning_rate=0.1)
    tx = gk.measure(gk.chain(gk.clip_by_global_norm(1.0), tuned))
    state = gk.set_hyperparameters(tx.init(PARAMS), {"learning_rate": 0.2})
    found = gk.metrics(run(tx, state=state)[1][-1])
    assert [k for k in found if k.endswith("learning_rate")] == ["learning_rate"]
    (key,) = [k for k in found if k.endswith("b2")]
    assert found[key] == gk.hyperparameters(state)[key] == jnp.float32(0.999)
    holds(found, learning_rate=0.2)


def test_a_state_without_numbers_says_what_to_do():
    text = message(lambda: gk.metrics(gk.adamw().init(PARAMS)))
    assert text == (
        "gradkit.metrics: state must have numbers of a gradkit.measure, got none. "
        "Wrap the transform: tx = gradkit.measure(tx)."
    )
    assert "gradkit.measure: inner must be" in message(lambda: gk.measure(gk.adamw))


def test_errors_of_inner_are_what_they_are_without_it():
    tx = gk.measure(gk.clip_by_unit_norm())
    text = message(lambda: tx.update(PARAMS, tx.init(PARAMS)))
    assert text == message(
        lambda: gk.clip_by_unit_norm().update(PARAMS, optax.EmptyState())
    )
    wide = {"x": jnp.zeros(3, jnp.int32)}
    assert "floating" in message(lambda: gk.measure(gk.scale_by_adam()).init(wide))
