"""Every law fails a transform that breaks it, and says how; some of optax's break some."""

import dataclasses
import functools
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.core import Tracer
from jax.sharding import AxisType, PartitionSpec

from gradkit.testing import LAWS, Subject, check

Transform = optax.GradientTransformationExtraArgs


def transform(init: Any, update: Any) -> Transform:
    """The pair, unchecked."""
    return Transform(init, update)


def nothing(params: Any) -> optax.EmptyState:
    """The state of a transform without memory."""
    return optax.EmptyState()


def stateless(f: Any) -> Transform:
    """A transform of gradients alone."""
    return transform(nothing, lambda g, state, params=None, **extra: (f(g), state))


def leafwise(f: Any) -> Transform:
    """A transform of one leaf's gradient."""
    return stateless(lambda updates: jax.tree.map(f, updates))


def remembering(init: Any, f: Any) -> Transform:
    """A transform that returns the gradient and remembers `f(gradient, state)`."""
    return transform(init, lambda g, state, params=None, **extra: (g, f(g, state)))


def jit() -> Transform:
    return leafwise(lambda g: 2 * g if isinstance(g, Tracer) else g)


def traced_once() -> Transform:
    return remembering(lambda params: jnp.zeros([]), lambda g, state: 1.0)


def fixed_point() -> Transform:
    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    return remembering(zeros, lambda g, state: g)


def control_flow() -> Transform:
    return remembering(lambda params: [jnp.zeros([])], lambda g, state: tuple(state))


def abstract_init() -> Transform:
    distance = functools.partial(jax.tree.map, lambda p: p + 1)
    return remembering(distance, lambda g, state: state)


def vmap(decay: float = 0.5) -> Transform:
    return leafwise(lambda g: g * decay if decay > 0 else g)


def sharding() -> Transform:
    def norm(updates: Any) -> jax.Array:
        flat = jnp.concatenate([g.ravel() for g in jax.tree.leaves(updates)])
        return jnp.sqrt(jnp.sum(flat**2))

    return stateless(lambda updates: jax.tree.map(lambda g: g / norm(updates), updates))


def nnx() -> Transform:
    rows = functools.partial(jax.tree.map, lambda p: jnp.zeros(p.shape[:1], p.dtype))
    return remembering(rows, lambda g, state: state)


def linen() -> Transform:
    def update(g: Any, state: Any, params: Any = None, *, value: Any, **extra: Any):
        return jax.tree.map(lambda x: x * value, g), state

    return transform(nothing, update)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Unregistered:
    """A state that flax does not know how to save."""

    count: Any


def checkpoint() -> Transform:
    return remembering(lambda p: Unregistered(jnp.zeros([])), lambda g, state: state)


def donation() -> Transform:
    return remembering(lambda params: params, lambda g, state: state)


def trees() -> Transform:
    return stateless(lambda updates: {k: -g for k, g in updates.items()})


def empty_leaves() -> Transform:
    return leafwise(lambda g: g / (1 + jnp.max(jnp.abs(g))))


def zero_gradient() -> Transform:
    return leafwise(lambda g: g / jnp.sqrt(jnp.sum(g**2)))


def nonfinite_gradient() -> Transform:
    return leafwise(lambda g: g / (1 + jnp.sqrt(jnp.sum(g**2))))


def nonfinite_state() -> Transform:
    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    mean = functools.partial(jax.tree.map, lambda g, m: 0.5 * m + 0.5 * g)
    return remembering(zeros, mean)


def extreme_gradient() -> Transform:
    return leafwise(lambda g: g / (1 + jnp.sqrt(jnp.sum(g**2))))


def composition(nesterov: float = 0.5) -> Transform:
    return leafwise(lambda g: g * nesterov if nesterov else g)


def live_hyperparameters(decay: float = 0.5) -> Transform:
    return leafwise(lambda g: g * float(decay))


def state_bytes() -> Transform:
    """State: `4*size` bytes a leaf, `4` once."""
    return remembering(lambda params: jnp.zeros([]), lambda g, state: state)


def flops() -> Transform:
    """Flops: at most `2*size` a leaf."""
    return leafwise(lambda g: (g + 1) * (g + 2) * (g + 3))


def keys() -> Transform:
    rng = np.random.default_rng(0)

    def noise(g: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda x: x + np.float32(rng.normal()), g, g)

    return leafwise(noise)


def one_key(key: int = 0) -> Transform:
    return leafwise(lambda g: g + jax.random.normal(jax.random.key(0), g.shape))


def partition_norms() -> Transform:
    clip = optax.clip_by_global_norm(1.0)
    return stateless(lambda updates: clip.update(updates, optax.EmptyState())[0])


def unknown_extras() -> Transform:
    return transform(nothing, lambda g, state, params=None: (g, state))


def constant_gradient() -> Transform:
    def largest(g: jax.Array) -> jax.Array:
        squares = lambda a: jnp.sum(jnp.square(a * g))
        return jnp.max(jax.lax.map(squares, jnp.array([1.0, 2.0**80])))

    return leafwise(lambda g: g / (1 + largest(g)))


def follows_float64() -> Transform:
    return leafwise(lambda g: jnp.sign(3 * jnp.cbrt(g) ** 3 - 3 * g))


def debug_nans() -> Transform:
    return leafwise(lambda g: jnp.where(g == 0, 0, g / jnp.abs(g)))


def nan_of_empty() -> Transform:
    return leafwise(lambda g: g - jnp.nan_to_num(jnp.mean(g * 0)))


def manual_mesh() -> Transform:
    def counted(g: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(
            0, 2, lambda _, n: n + jnp.sum(g > 0, dtype=jnp.int32), jnp.int32(0)
        )

    return leafwise(lambda g: g * (1 + counted(g)).astype(g.dtype))


def manual_state() -> Transform:
    positive = lambda g, _: (sum(jnp.sum(x > 0) for x in jax.tree.leaves(g)),)
    return remembering(lambda params: (jnp.int32(0),), positive)


def spmd_vmap() -> Transform:
    def spread(g: jax.Array) -> jax.Array:
        mesh = jax.sharding.get_abstract_mesh()
        if set(mesh.axis_types) != {AxisType.Auto}:
            return g
        rows = jnp.broadcast_to(g, (mesh.size, *g.shape))
        over = PartitionSpec(mesh.axis_names)
        return jax.lax.with_sharding_constraint(rows, over)[0]

    return leafwise(spread)


def renewing(f: Any) -> Transform:
    """A transform that renews a matrix by `f` at every second update."""

    def renewed(g: Any, state: Any) -> Any:
        count, matrix = state
        return count + 1, jax.lax.cond(count % 2 == 0, f, lambda x: x, matrix)

    return remembering(lambda params: (jnp.int32(0), jnp.eye(3)), renewed)


def rare_sorts() -> Transform:
    return renewing(jnp.sort)


def rare_products() -> Transform:
    return renewing(lambda matrix: matrix @ matrix)


def tree_map_params() -> Transform:
    as_tuple = lambda t: tuple(jax.tree.map(jnp.zeros_like, jax.tree.leaves(t)))
    return remembering(as_tuple, lambda g, state: state)


def one_leaf() -> Transform:
    def longest(params: Any) -> tuple[jax.Array]:
        zeros = jax.tree.map(jnp.zeros_like, jax.tree.leaves(params))
        return (max(zeros, key=jnp.size, default=jnp.zeros([])),)

    return remembering(longest, lambda g, state: state)


def reverse_mode() -> Transform:
    return leafwise(lambda g: jnp.sign(g) * jnp.sqrt(jnp.abs(g)))


def no_derivative() -> Transform:
    halve = lambda x: (x[0] + 1, x[1] / 2)
    quarter = lambda g: jax.lax.while_loop(lambda x: x[0] < 2, halve, (0, g))[1]
    return leafwise(quarter)


def without_derivative() -> Transform:
    """Limits: cannot be differentiated."""

    @jax.custom_jvp
    def same(g: Any) -> Any:
        return g

    @same.defjvp
    def refuse(*given: Any) -> Any:
        raise TypeError("gradkit.without_derivative: has no derivative.")

    return leafwise(same)


def said_without_reason() -> Transform:
    """Limits: cannot be differentiated."""
    return optax.identity()


def lacking(what: str) -> ValueError:
    """The error of a transform named `forgetful`."""
    return ValueError(f"gradkit.forgetful: {what} must be passed to update, got None.")


def needs() -> Transform:
    """State: `0` bytes a leaf."""

    def update(g: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return jax.tree.map(lambda g, p: g + p.astype(g.dtype), g, params), state

    return transform(nothing, update)


def needs_nothing() -> Transform:
    """Needs: params."""
    return optax.identity()


def always_decays(weight_decay: float = 0.1) -> Transform:
    """Needs: params, unless `weight_decay` is 0."""

    def update(g: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if params is None:
            raise ValueError("gradkit.always_decays: params must be passed to update.")
        return jax.tree.map(lambda g, p: g + weight_decay * p, g, params), state

    return transform(nothing, update)


def uses_params() -> Transform:
    """Needs: nothing."""

    def update(g: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return jax.tree.map(jnp.negative, g) if params is None else g, state

    return transform(nothing, update)


def forgetful() -> Transform:
    """Needs: `value`, where given."""

    def update(
        g: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any
    ):
        if value is None:
            raise lacking("value")
        return jax.tree.map(lambda x: x * value, g), state

    return transform(nothing, update)


BROKEN = [
    ("jit", jit, r"jitted update 1, leaf 'bias'\[0\], must be \S+, got"),
    (
        "traced_once",
        traced_once,
        r"once, got 2 traces; .*'' float32\[\] -> float32\[\] weak",
    ),
    (
        "fixed_point",
        fixed_point,
        r"state with bfloat16 parameters, float32 gradients, leaf 'bias', must be "
        r"bfloat16\[4\], got float32\[4\]",
    ),
    ("control_flow", control_flow, r"lax.scan over updates must work, got TypeError"),
    ("abstract_init", abstract_init, r"ShapeDtypeStructs must work, got TypeError"),
    ("vmap", vmap, r"under vmap over hyperparameters decay must work, got Tracer"),
    ("sharding", sharding, r"on a mesh of Explicit axes must work, got"),
    ("nnx", nnx, r"nnx.Optimizer with sharded parameters must work, got"),
    (
        "linen",
        Subject(linen, extra={"value": 1.0}),
        r"TrainState.apply_gradients must work, got TypeError: .*'value'",
    ),
    ("checkpoint", checkpoint, r"restoring the state by flax msgpack must work, got"),
    ("donation", donation, r"state leaf bias must have memory of its own, not param"),
    ("trees", trees, r"an update of a tuple of dicts must work, got AttributeError"),
    ("trees", empty_leaves, r"leaves of shapes .*\(0,\).* must work, got ValueError"),
    ("zero_gradient", zero_gradient, r"\(zero gradient, float32\), leaf 'bias'\[0\]"),
    (
        "nonfinite_gradient",
        nonfinite_gradient,
        r"only kernel\[0, 0\] of the gradient is nan, .* leaf 'kernel' must be finite",
    ),
    (
        "nonfinite_gradient",
        nonfinite_state,
        r"the state two good steps after one inf, leaf 'kernel'\[0,0\], must be finite",
    ),
    ("extreme_gradient", extreme_gradient, r"leaf 'kernel', one entry of 1e\+25, must"),
    ("composition", composition, r"optax.inject_hyperparams must work, got Tracer"),
    ("live_hyperparameters", live_hyperparameters, r"an update with decay traced must"),
    ("state_bytes", state_bytes, r"must have 180 bytes as stated, got 4"),
    ("flops", flops, r"must take at most 20098 flops as stated, got 50245"),
    ("keys", keys, r"update 1 of a second run, leaf 'bias'\[0\], must be"),
    ("keys", one_key, r"a run with another key must differ"),
    ("partition_norms", partition_norms, r"two groups, given the norm .* leaf 'bias'"),
    ("unknown_extras", unknown_extras, r"unknown keyword argument must work, got Type"),
    (
        "constant_gradient",
        constant_gradient,
        r"gradients of \(0.0, .*, step 1, leaf '0/bias'\[0\], must be 0.0, got nan",
    ),
    (
        "follows_float64",
        follows_float64,
        r"of leaf '\w+' with one gradient of one example must be that in float64",
    ),
    (
        "manual_mesh",
        manual_mesh,
        r"update in shard_map must work, got TypeError: .*carry",
    ),
    ("manual_mesh", manual_state, r"init and lax.scan over updates in shard_map must"),
    ("spmd_vmap", spmd_vmap, r"mesh of Auto axes must work, got ValueError: .*'data'"),
    ("rare_work", rare_sorts, r"sort 0 times outside of conditions, .* got 1"),
    (
        "rare_work",
        rare_products,
        r"dot_general 0 times outside of conditions, .* got 1",
    ),
    ("tree_map_params", tree_map_params, r"optax.tree_map_params must work, got Value"),
    ("tree_map_params", one_leaf, r"leaf '0' of the state must be reached, .*\[6,4\]"),
    (
        "reverse_mode",
        reverse_mode,
        r"gradients are zero, leaf 'grads/bias'\[0,0\], must",
    ),
    ("reverse_mode", no_derivative, r"must work, got ValueError: Reverse-mode"),
    ("reverse_mode", said_without_reason, r"must not say 'cannot be differentiated'"),
    (
        "needs",
        needs,
        r"without params must say that they are missing, .* got ValueError",
    ),
    ("needs", needs_nothing, r"`Needs:` says, which is 'params.', got an update as if"),
    ("needs", always_decays, r"is 0.', got ValueError: gradkit.always_decays: params"),
    ("needs", uses_params, r"update without params, leaf '0/bias'\[0\], must be"),
    (
        "needs",
        Subject(forgetful, extra={"value": 1.0}),
        r"without value must do what `Needs:` says, .* got ValueError: gradkit.forget",
    ),
    ("debug_nans", debug_nans, r"gradient of all zero, must work, got FloatingPoint"),
    ("debug_nans", nan_of_empty, r"beside an empty leaf must work, got FloatingPoint"),
]
OPTAX = [  # what the laws find in optax 0.2.8
    ("traced_once", optax.monitor({"norm": optax.tree.norm}), r"'measurements/norm'"),
    (
        "fixed_point",
        optax.adamw,
        r"with bfloat16 parameters, float32 gradients, leaf '0/\w+/bias', must be bfloat16",
    ),
    ("control_flow", optax.monitor({"norm": optax.tree.norm}), r"lax.scan"),
    ("abstract_init", optax.contrib.dog, r"init from ShapeDtypeStructs must work"),
    ("nnx", optax.adafactor, r"with sharded parameters must work"),
    (
        "nnx",
        functools.partial(optax.contrib.galore, rank=2),
        r"mu/kernel' must have the shape of the parameter",
    ),
    ("donation", optax.contrib.dog, r"init_params/bias must have memory of its own"),
    ("trees", optax.contrib.muon, r"must work, got ZeroDivisionError"),
    ("zero_gradient", optax.adamw, r"\(zero gradient, float16\)"),
    ("nonfinite_gradient", optax.adamw, r"after one inf, leaf 'kernel'\[0,0\], must"),
    ("extreme_gradient", optax.clip_by_global_norm(1.0), r"'kernel', one entry of"),
    (
        "composition",
        functools.partial(optax.contrib.galore, rank=2),
        r"optax.inject_hyperparams must work, got TypeError: `rank` must be an int",
    ),
    ("partition_norms", optax.clip_by_global_norm(1.0), r"two groups, given the norm"),
]


def names(cases: list[tuple[Any, ...]]) -> list[str]:
    return [law for law, *_ in cases]


@pytest.mark.parametrize("law,make_tx,says", BROKEN, ids=names(BROKEN))
def test_law_fails(law: str, make_tx: Any, says: str) -> None:
    with pytest.raises(AssertionError, match=f"^law {law}: .*{says}"):
        LAWS[law](make_tx)


def test_what_cannot_be_differentiated_says_so() -> None:
    LAWS["reverse_mode"](without_derivative)


def test_every_law_can_fail() -> None:
    assert set(names(BROKEN)) == set(LAWS)


@pytest.mark.parametrize("law,make_tx,says", OPTAX, ids=names(OPTAX))
def test_optax_fails(law: str, make_tx: Any, says: str) -> None:
    standard = jax.numpy_dtype_promotion("standard")
    failure = pytest.raises(AssertionError, match=f"^law {law}: .*{says}")
    with standard, jax.numpy_rank_promotion("allow"), failure:
        LAWS[law](make_tx)


def test_hanging_fails_in_time() -> None:
    released = threading.Event()

    def host(g: np.ndarray) -> np.ndarray:
        if not np.all(np.isfinite(g)):
            released.wait()
        return np.asarray(g)

    tx = leafwise(lambda g: jax.pure_callback(host, g, g))
    with pytest.raises(
        AssertionError, match=r"one inf must end within 0.5 s, got no end"
    ):
        LAWS["nonfinite_gradient"](Subject(tx, seconds=0.5))
    released.set()


HANGING = """
import functools, os, optax
from gradkit.testing import LAWS, Subject
galore = Subject(functools.partial(optax.contrib.galore, rank=2), seconds=2.0)
try:
    LAWS["nonfinite_gradient"](galore)
except AssertionError as error:
    print(error, flush=True)
os._exit(0)  # nothing less ends a hanging decomposition
"""


def test_optax_galore_hangs_on_inf() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=120
    )
    assert "one inf must end within 2 s, got no end" in done.stdout, done.stderr


def test_compiler_options_are_those_of_the_step() -> None:
    nonsense = Subject(optax.identity(), compiler_options={"xla_does_not_know": 1})
    with pytest.raises(AssertionError, match=r"a jitted update must work, .*not_know"):
        LAWS["jit"](nonsense)


def test_check_reports() -> None:
    table = check(
        nonfinite_state,
        laws=["jit", "nonfinite_gradient", "vmap", "state_bytes"],
        xfail={"nonfinite_gradient": "one bad batch is enough", "vmap": "no reason"},
    )
    outcomes = {row.law: row.outcome for row in table}
    assert outcomes == {
        "jit": "pass",
        "nonfinite_gradient": "xfail",
        "vmap": "fail",
        "state_bytes": "undocumented",
    }
    assert not table.ok
    lines = str(table).splitlines()
    assert lines[1] == "nonfinite_gradient    xfail         one bad batch is enough"
    assert lines[2].startswith("vmap                  fail          it holds, and was")


def test_missing_package_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flax.nnx", None)
    (row,) = check(optax.identity(), laws=["nnx"])
    assert row.outcome == "unavailable" and "needs flax.nnx" in row.reason


def test_missing_devices_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "devices", lambda *backend: [None])
    (row,) = check(optax.identity(), laws=["sharding"])
    assert row.outcome == "unavailable"
    assert "--xla_force_host_platform_device_count=8" in row.reason


def test_unknown_law_is_named() -> None:
    with pytest.raises(ValueError, match=r"laws must be among jit, .* got 'speed'"):
        check(optax.identity(), laws=["speed"])


def test_factory_that_cannot_be_built_is_named() -> None:
    with pytest.raises(
        TypeError, match=r"argument 'schedule' of .* must have a default"
    ):
        check(lambda schedule: optax.scale_by_schedule(schedule))
