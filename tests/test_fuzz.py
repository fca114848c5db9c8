"""Random chains of random methods on random trees keep what every method promises alone.

A case is a spec of names alone, which hypothesis prints and makes smaller where something does not
hold. What is tried: a build, `init`, or update raises an error of the factory that was called, or

- updates have the structure and shapes of the parameters, and the dtype that is promised;
- the state keeps its structure, shapes and dtypes, so that a run is traced once;
- an entry of an update is finite where that of the gradient is, whatever the others are;
- the state is finite: no infinite entry, and none that is not a number, leaves a trace;
- without jit, updates and states are the same, of some cases.

`optax.MultiSteps` keeps the mean of what it is given, and is held to none of the last three.
"""

import functools
import inspect
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict

import gradkit as gk
from gradkit.catalogue import METHODS
from gradkit.testing._compare import finite, leaves, numbers, require, same

STEPS = 3
EAGER = 9  # cases to one that is tried without jit
CASES = 25  # of each part of a run
PARTS, LATE = 4, 80  # of short chains, and of long ones
QUICK = (0, 3)  # what `make test` tries; those of these parts name the most methods
EXPECTED = "|".join(  # what a case may raise, as the docstrings say
    [
        r"leaf .* must have at least 2 axes",
        r"params must be passed to update",  # not to what is in a subspace
        r"value, the loss, must be passed to update",  # drawn or not
        r"only = '' must be found in the path",  # of a transform without state
        r"the moments mu and nu of inner must be real numbers",
        r"the moments mu and nu of inner must have the shape",
        r"one part must turn the sign",
        r"an average of parameters must have nothing but a round_by_ after it",
    ]
)

# Leaves, and trees of them: ("dict", leaf, ...), and so on.
DTYPES = ("float32", "bfloat16", "float16")
SHAPES = ("", "1", "3", "0", "4,3", "3,4", "1,3", "0,3", "2,3,2", "2,1,3,2")
CONTAINERS = ("dict", "tuple", "named", "frozen")
KEYS = ("kernel", "bias", "scale", "embedding")


class Named(NamedTuple):
    """A tree of up to three parts."""

    dense: Any = None
    bias: Any = None
    head: Any = None


def tree_of(spec: Any, leaf: Callable[[str], Any]) -> Any:
    """The tree that a spec describes."""
    if spec is None or isinstance(spec, str):
        return None if spec is None else leaf(spec)
    kind, *parts = spec[0], *(tree_of(x, leaf) for x in spec[1:])
    if kind == "tuple":
        return tuple(parts)
    if kind == "named":
        return Named(*parts)
    named = dict(zip(KEYS, parts))
    return named if kind == "dict" else FrozenDict(named)


def read(leaf: str) -> tuple[str, tuple[int, ...]]:
    """The dtype and shape of `float32[4,3]`."""
    dtype, shape = re.fullmatch(r"(\w+)\[([\d,]*)\]", leaf).groups()
    return dtype, tuple(map(int, filter(None, shape.split(","))))


# Gradients: what a step's are, and of which leaves: of all, or of the first alone.
GRADIENTS = {
    "normal": lambda x: x,
    "zeros": lambda x: 0 * x,
    "ones": lambda x: 0 * x + 1,
    "huge": lambda x: 1e30 * x,
    "tiny": lambda x: 1e-30 * x,
    "least": lambda x: 1e-38 * x,
    "single": lambda x: put(0 * x, 1.0),
    "spike": lambda x: put(x, 1e30),
    "inf": lambda x: put(x, np.inf),
    "nan": lambda x: put(x, np.nan),
    "nans": lambda x: np.nan * x,
}


PARAMS = ["zeros", "ones", "tiny", "single", "least"]


def put(x: np.ndarray, value: float) -> np.ndarray:
    """`x`, with this first entry."""
    x = np.array(x)
    x.flat[:1] = value
    return x


# Transforms: a name, or a wrapper and what is in it.
def families(*names: str) -> list[str]:
    return [m.name for m in METHODS if m.family in names]


WRAPS = {"accumulate", "guard_by_finite", "guard_by_spike", "mix", "graft", "tune"}
WRAPS |= {"reset_by_period", "share_norm", "view_by_pattern", *families("codec")}
KEEPS = {"tune", "reset_by_period", *families("codec")}  # of what has a state
OPTAX = ("optax.chain", "optax.masked", "optax.MultiSteps")
ENTRIES = families("normalize", "clip", "average", "direct", "adaptive", "sparsity")
ENTRIES += families("decay", "size")
LAST = families("manifold", "average_params", "proximal")
MATRICES = {"normalize_by_polar", "normalize_by_dual_norm", "scale_by_neuron_norm"}
MATRICES |= {"retract_by_stiefel", "retract_by_conditioned_low_rank"}
GIVEN = {  # need what no default can stand for
    "decay_by_completep",
    "scale_by_oasis",
    "step_by_model_building",
}
HEAVY = families("precondition", "subspace")
MATRICES |= {*HEAVY} - {"project_by_random_subspace"}
GIVEN |= {"precondition_by_paired_factors", "project_by_null_space"}


@functools.cache
def places(name: str) -> int:
    """How many transforms a factory must be given."""
    parameters = inspect.signature(getattr(gk, name)).parameters.values()
    return sum(p.default is p.empty for p in parameters)


def is_matrix(path: str, x: Any) -> bool:
    return x.ndim > 1


def matrices(params: Any) -> Any:
    return jax.tree.map(lambda x: x.ndim > 1, params)


BUILT: dict[str, Callable[..., Any]] = {
    "gk.chain": gk.chain,
    "optax.chain": optax.chain,
    "optax.masked": lambda tx: optax.masked(tx, matrices),
    "optax.MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "matrices": lambda tx: gk.route({is_matrix: tx}, default=gk.scale_by_adam()),
    "accumulate": lambda tx: gk.accumulate(tx, every=2),
    "guard_by_spike": lambda tx: gk.guard_by_spike(tx, window=2),
    "reset_by_period": lambda tx: gk.reset_by_period(tx, every=2),
    "mix": lambda a, b: gk.mix([0.5, 0.5], a, b),
    "store_by_bfloat16_plus8": lambda tx: gk.store_by_bfloat16_plus8(tx, min_size=4),
    "store_by_fp8": lambda tx: gk.store_by_fp8(tx, block=4),
    "store_by_int4": lambda tx: gk.store_by_int4(tx, block=4),
    "store_by_int8": lambda tx: gk.store_by_int8(tx, block=4),
}


def build(spec: Any) -> Any:
    """The transform that a spec describes."""
    name, *parts = (spec,) if isinstance(spec, str) else spec
    if name == "tune":
        return gk.tune(functools.partial(build, *parts))
    make = BUILT.get(name) or getattr(gk, name)
    return make(*map(build, parts))


def names(spec: Any) -> Iterator[str]:
    """All names in a spec."""
    for x in (spec,) if isinstance(spec, str) else spec:
        yield from (x,) if isinstance(x, str) else names(x)


class Case(NamedTuple):
    """What is tried."""

    tx: Any
    params: Any
    of: str  # what parameters are
    grads: tuple[tuple[str, str], ...]  # of each step: what they are, and of which
    dtype: str  # of gradients; "own" is that of their parameters
    value: bool  # whether updates are given one
    eager: bool  # whether it is tried without jit too


def members(pool: list[str], depth: int) -> Any:
    """Specs of transforms that need no place of their own in a chain."""

    def filled(name: str) -> Any:
        parts = [inner] * (2 if name == "mix" else places(name))
        if name in KEEPS:
            parts = [st.sampled_from(RECIPES)]
        spec = st.tuples(st.just(name), *parts) if parts else st.just(name)
        return spec.map(lambda x: ("matrices", x)) if name in MATRICES else spec

    if depth == 0:
        return st.sampled_from([x for x in pool if x not in WRAPS and not places(x)])
    inner = members(pool, depth - 1)
    wrap = st.sampled_from(sorted(WRAPS)).flatmap(filled)
    theirs = st.tuples(st.sampled_from(OPTAX), inner)
    return st.sampled_from(pool).flatmap(filled) | wrap | theirs


RECIPES = families("recipe")
LIGHT = [x for x in ENTRIES if x not in GIVEN]


def transforms(pool: list[str], most: int, depth: int) -> Any:
    """Specs of whole chains, of `most` transforms and one that is last."""
    last = st.sampled_from([*LAST, *families("rounding")]).map(
        lambda x: ("matrices", x) if x in MATRICES else x
    )
    some = st.lists(members(pool, depth), min_size=1, max_size=most)
    ends = st.lists(last, max_size=1)
    joined = st.tuples(st.sampled_from(["gk.chain", "optax.chain"]), some, ends)
    return joined.map(lambda x: (x[0], *x[1], *x[2]))


LEAF = st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES)).map(
    "{0[0]}[{0[1]}]".format
)


def trees() -> Any:
    """Specs of trees of three leaves or so."""
    some = lambda parts, least: st.tuples(
        st.sampled_from(CONTAINERS), st.lists(parts, min_size=least, max_size=3)
    ).map(lambda x: (x[0], *x[1]))
    return some(LEAF | LEAF | st.none() | some(LEAF, 0), 1) | LEAF


def cases(pool: list[str], most: int, depth: int) -> Any:
    """Cases that hypothesis draws."""
    kinds = st.tuples(st.sampled_from([*GRADIENTS]), st.sampled_from(["all", "first"]))
    case = st.builds(
        Case,
        transforms(pool, most, depth),
        trees(),
        st.sampled_from(["normal"] * 3 + PARAMS),
        st.tuples(*[kinds] * STEPS),
        st.sampled_from(["own", "own", *DTYPES]),
        st.booleans(),
        st.sampled_from([False] * EAGER + [True]),
    )
    # of what is drawn first, hypothesis takes no value twice
    return st.tuples(st.integers(0, 2**60), case).map(lambda x: x[1])


def draw(case: Case) -> tuple[Any, list[Any]]:
    """The parameters, and the gradients of each step."""
    rng = np.random.default_rng(0)

    def leaf(spec: str, change: Any, kind: str) -> jax.Array:
        dtype, shape = read(spec)
        x = np.float32(change(rng.normal(size=shape)))
        if kind == "finite":
            kind, most = "own", float(jnp.finfo(dtype).max)
            x = np.clip(x, -most, most)
        return jnp.asarray(x).astype(dtype if kind == "own" else kind)

    first = GRADIENTS[case.of]
    params, grads = tree_of(case.params, lambda spec: leaf(spec, first, "finite")), []
    for what, where in case.grads:
        changes = iter([GRADIENTS[what]])
        rest = GRADIENTS["normal" if where == "first" else what]
        of = lambda spec, c=changes, r=rest: leaf(spec, next(c, r), case.dtype)
        grads.append(tree_of(case.params, of))
    return params, grads


def kinds(t: Any) -> Any:
    """What must not change from one state to the next."""
    return jax.tree.structure(t), [
        (path, *(lambda a: (a.dtype, a.shape, a.weak_type))(jax.typeof(x)))
        for path, x in leaves(t).items()
    ]


def run(case: Case, tx: Any, params: Any, grads: list[Any]) -> tuple[Any, Any]:
    """Updates and states of all steps, in one program, each with an axis of steps."""
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *grads)
    extra = {"value": jnp.float32(1.0)} if case.value else {}

    def step(state: Any, g: Any) -> Any:
        u, new = tx.update(g, state, params, **extra)
        require(
            kinds(new) == kinds(state),
            f"state must stay {kinds(state)}, got {kinds(new)}",
        )
        require(
            jax.tree.structure(u) == jax.tree.structure(params),
            f"updates must be like {jax.tree.structure(params)}, got {jax.tree.structure(u)}",
        )
        return new, (u, new)

    @jax.jit
    def program(params: Any, stacked: Any) -> Any:
        start = tx.init(params)
        return start, jax.lax.scan(step, start, stacked, STEPS)[1]

    return program(params, stacked)


def one_by_one(case: Case, tx: Any, params: Any, grads: list[Any]) -> Any:
    """Updates and states without jit."""
    extra = {"value": jnp.float32(1.0)} if case.value else {}
    state, found = tx.init(params), []
    for g in grads:
        u, state = tx.update(g, state, params, **extra)
        found.append((u, state))
    return found


def promotion(case: Case) -> Any:
    """`optax.MultiSteps` joins numbers of two dtypes."""
    how: Any = "standard" if "optax.MultiSteps" in names(case.tx) else "strict"
    return jax.numpy_dtype_promotion(how)


def is_ours(wrong: Exception) -> bool:
    return isinstance(wrong, ValueError | TypeError) and bool(
        re.match(r"gradkit\.\w+: ", str(wrong))
    )


@functools.cache
def holds(case: Case) -> None:
    """All that is promised of a case."""
    params, grads = draw(case)
    try:
        with promotion(case):
            tx = build(case.tx)
            start, (us, states) = run(case, tx, params, grads)
    except Exception as wrong:
        if not is_ours(wrong):
            raise
        require(re.search(EXPECTED, str(wrong)), f"must be expected: {wrong}")
        return
    theirs = "optax.MultiSteps" in set(names(case.tx))
    rounds = str(case.tx[-1]).startswith("round_by_")
    for (path, p), (g, u) in zip(
        leaves(params).items(),
        zip(
            leaves(jax.tree.map(lambda *x: jnp.stack(x), *grads)).values(),
            leaves(us).values(),
        ),
    ):
        require(u.shape == g.shape, f"update {path} must be {g.shape}, got {u.shape}")
        promised = {p.dtype} if case.tx[0] == "gk.chain" else {p.dtype, g.dtype}
        if rounds:
            promised = {jnp.dtype("float32")}
        require(u.dtype in promised, f"update {path} must be {promised}, got {u.dtype}")
        bad = ~np.isfinite(numbers(u)) & np.isfinite(numbers(g))
        if u.dtype == jnp.float16:  # too large for it
            bad &= ~np.isinf(numbers(u))
        require(theirs or not bad.any(), f"update {path} must be finite, got {u}")
    if not theirs:  # a limit may be infinite from the start
        held = lambda x, y: y if jnp.all(jnp.isfinite(x)) else jnp.zeros_like(y)
        finite("state", jax.tree.map(held, start, states))
    if case.eager and not theirs:
        for t, (u, state) in enumerate(one_by_one(case, tx, params, grads)):
            at = functools.partial(jax.tree.map, operator.itemgetter(t))
            same(f"update {t}", at(us), u)
            same(f"state {t}", at(states), state)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=[pytest.mark.slow] * (part not in QUICK))
        for part in range(PARTS + LATE)
    ],
)
def test_random_chains(part: int) -> None:
    """Each seed makes the simplest case, which is tried once, and one at random."""
    late = part >= PARTS
    heavy = [x for x in HEAVY if x not in GIVEN] if late else []
    pool = [*LIGHT, *RECIPES, *heavy]
    settings = hypothesis.settings(
        max_examples=2,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        suppress_health_check=[*hypothesis.HealthCheck],
    )
    drawn = cases(pool, most=5 if late else 2, depth=2 if late else 1)
    for number in range(part * CASES, (part + 1) * CASES):
        held = hypothesis.given(case=drawn)(lambda case: holds(case))
        hypothesis.seed(number)(settings(held))()
