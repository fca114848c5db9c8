"""What is promised of views: fused, stacked and cut leaves are what their matrices are alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk
from gradkit.testing import check

RECIPES = {
    "muon": lambda: gk.muon(0.1, weight_decay=0.1, batch_axes=(0,)),
    "soap": lambda: gk.soap(0.1, every=2, batch_axes=(0,)),
    "galore": lambda: gk.galore(0.1, rank=2, every=2, batch_axes=(0,)),
}
SHAPES = {
    "attn/fused": (6, 3 * 2 * 4),
    "attn/grouped": (6, 8 + 4 + 4),
    "attn/out": (2, 4, 6),
    "layers/kernel": (3, 6, 8),
    "layers/bias": (3, 8),
    "conv": (2, 2, 6, 8),
    "embed": (9, 6),
    "scale": (6,),
    "gain": (),
}
PATTERNS = {
    "fused": "in (qkv=3 h=2 d) -> (qkv h) in d",
    "grouped": "in out=8+4+4 -> in out",
    "attn/out": "h d out -> (h d) out",
    "layers/kernel": "layer in out -> layer in out",
    "layers/bias": "layer out -> (layer out)",
    "conv": "h w in out -> (h w) in out",
}


def by_hand(t):
    """The views of a tree of `SHAPES` in plain NumPy."""
    t = jax.tree.map(np.asarray, t)
    heads = [t["attn/fused"][:, i : i + 4] for i in range(0, 24, 4)]
    q, k, v = np.split(t["attn/grouped"], [8, 12], axis=1)
    return {
        "attn/fused": np.stack(heads),
        "attn/grouped/0": q[None],
        "attn/grouped/1": k[None],
        "attn/grouped/2": v[None],
        "attn/out": t["attn/out"].reshape(1, 8, 6),
        "layers/kernel": t["layers/kernel"],
        "layers/bias": t["layers/bias"].reshape(24),
        "conv": t["conv"].reshape(4, 6, 8),
        "embed": t["embed"][None],
        "scale": t["scale"],
        "gain": t["gain"],
    }


def draw(shapes, seed: int):
    """Random float32 leaves."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def run(tx, see=lambda t: t, shapes=SHAPES, steps: int = 3):
    """What a transform makes of the gradients and parameters that `see` makes of random ones."""
    tx = optax.with_extra_args_support(tx)
    update, p = jax.jit(tx.update), see(draw(shapes, 99))
    state, us = tx.init(p), []
    for t in range(steps):
        u, state = update(see(draw(shapes, t)), state, p)
        us.append(u)
    return us, state


def close(got, want, tolerance: float = 1e-4) -> None:
    """Equal within float32, relative to the largest entry."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        atol = tolerance * np.max(np.abs(b), initial=0)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "name",
    [  # the one that compiles longest by make check-full alone
        pytest.param(k, marks=[pytest.mark.slow] * (k == "soap")) for k in RECIPES
    ],
)
def test_a_recipe_inside_is_the_recipe_on_the_views(name: str) -> None:
    """Whatever layouts one tree mixes; and what it remembers has the shapes of the views."""
    us, state = run(gk.view_by_pattern(RECIPES[name](), patterns=PATTERNS))
    views, due = run(RECIPES[name](), by_hand)
    close([by_hand(u) for u in us], views)
    assert jax.tree.structure(state) == jax.tree.structure(due)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, due)


LAYOUTS = {  # a leaf, its pattern, its matrices; each of these alone is what it is in the leaf
    "fused": ((6, 24), "in (qkv=3 out) -> qkv in out", lambda x: np.split(x, 3, 1)),
    "heads": (
        (6, 24),
        "in (qkv=3 h=2 d) -> (qkv h) in d",
        lambda x: np.split(x, 6, 1),
    ),
    "heads first": ((2, 4, 6), "h d out -> h d out", list),
    "grouped": (
        (6, 16),
        "in out=8+4+4 -> in out",
        lambda x: np.split(x, [8, 12], axis=1),
    ),
    "blocks of heads": (
        (12, 2, 6),
        "h=8+4 d in -> h in d",
        lambda x: list(np.swapaxes(x, 1, 2)),
    ),
    "scanned": ((3, 6, 8), "layer in out -> layer in out", list),
    "scanned last": (
        (6, 8, 3),
        "in out layer -> layer in out",
        lambda x: list(np.moveaxis(x, -1, 0)),
    ),
    "scanned experts": (
        (2, 3, 4, 6),
        "layer expert in out -> (layer expert) in out",
        lambda x: list(x.reshape(6, 4, 6)),
    ),
    "taps": (
        (2, 2, 6, 8),
        "h w in out -> (h w) in out",
        lambda x: list(x.reshape(4, 6, 8)),
    ),
    "kernel": (
        (2, 2, 6, 8),
        "h w in out -> (h w in) out",
        lambda x: [x.reshape(24, 8)],
    ),
    "no pattern": ((2, 2, 6, 8), None, lambda x: [x.reshape(24, 8)]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_together_is_one_by_one(layout: str) -> None:
    shape, pattern, apart = LAYOUTS[layout]
    patterns = {"w": pattern} if pattern else {}
    us, _ = run(
        gk.view_by_pattern(RECIPES["muon"](), patterns=patterns),
        lambda t: t,
        {"w": shape},
    )
    alone, _ = run(
        gk.muon(0.1, weight_decay=0.1),
        lambda t: apart(np.asarray(t["w"])),
        {"w": shape},
    )
    for u, due in zip(us, alone):
        close(apart(np.asarray(u["w"])), due)


def test_the_order_of_heads_is_kept() -> None:
    """Heads in another order are updated as before, in that order."""
    order = np.array([4, 0, 5, 2, 1, 3])
    turn = lambda t: (
        t | {"attn/fused": t["attn/fused"].reshape(6, 6, 4)[:, order].reshape(6, 24)}
    )
    tx = gk.view_by_pattern(RECIPES["muon"](), patterns=PATTERNS)
    close(run(tx, turn)[0], [turn(u) for u in run(tx)[0]])


def test_a_view_moves_entries_and_puts_them_back() -> None:
    seen = []

    def note(g, state, params=None):
        seen.append((g, params))
        return g, state

    tx = gk.view_by_pattern(
        optax.GradientTransformation(lambda p: (), note), patterns=PATTERNS
    )
    g, p = draw(SHAPES, 0), draw(SHAPES, 1)
    with jax.disable_jit():
        u, _ = tx.update(g, tx.init(p), p)
    close((u, *seen[0]), (g, by_hand(g), by_hand(p)), 0)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_the_recipe_is_the_same(kind: AxisType) -> None:
    """Parameters are sharded over 8 devices, and the updates are sharded as they are."""
    due, _ = run(gk.view_by_pattern(RECIPES["muon"](), patterns=PATTERNS), steps=2)
    mesh = jax.make_mesh((4, 2), ("x", "y"), (kind, kind))
    specs = {
        "attn/fused": (None, "x"),
        "attn/grouped": ("y", "x"),
        "conv": (None, None, "y", "x"),
    }
    place = lambda t: {
        k: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*specs.get(k, ()))))
        for k, x in t.items()
    }
    with jax.set_mesh(mesh):
        us, _ = run(
            gk.view_by_pattern(RECIPES["muon"](), patterns=PATTERNS), place, steps=2
        )
    close(us, due)
    if kind == AxisType.Explicit:
        kinds = jax.tree.map(jax.typeof, place(due[0]))
        assert jax.tree.map(jax.typeof, us[0]) == kinds


def test_a_hyperparameter_inside_changes_without_a_retrace() -> None:
    traces = []

    def make(learning_rate):
        traces.append(learning_rate)
        return gk.view_by_pattern(
            gk.muon(learning_rate, batch_axes=(0,)), patterns=PATTERNS
        )

    tx, g = optax.inject_hyperparams(make)(learning_rate=0.1), draw(SHAPES, 0)
    state, update = tx.init(g), jax.jit(tx.update)
    once, _ = update(g, state, g)
    before = len(traces)
    state.hyperparams["learning_rate"] = jnp.float32(0.2)
    twice, _ = update(g, state, g)
    close(twice, jax.tree.map(lambda u: 2 * u, once))
    assert len(traces) == before


def test_extra_trees_are_viewed_and_numbers_pass() -> None:
    seen = []

    def update(g, state, params=None, **extra):
        seen.append(extra)
        return g, state

    inner = optax.GradientTransformationExtraArgs(lambda p: (), update)
    tx, g = gk.view_by_pattern(inner, patterns=PATTERNS), draw(SHAPES, 0)
    with jax.disable_jit():
        tx.update(g, (), value=1.0, hessian_diagonal=g, other={"a": g["scale"]})
    assert seen[0]["value"] == 1.0 and set(seen[0]["other"]) == {"a"}
    close(seen[0]["hessian_diagonal"], by_hand(g), 0)
    tx = gk.view_by_pattern(inner)
    tx.update(jnp.float32(2.0), (), value=jnp.float32(1.0))
    assert seen[1]["value"].shape == ()


def test_views_have_the_paths_of_their_leaves() -> None:
    """Rules inside see the names that they see outside, in NNX too, inside `init` and `update`."""
    seen = []
    rule = lambda path, leaf: bool(seen.append((path, leaf.shape))) or True
    tx = gk.view_by_pattern(
        gk.route({rule: optax.identity()}), patterns={"^a/.*kernel": "i o=1+2 -> i o"}
    )

    class Model(nnx.Module):
        def __init__(self):
            self.a = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0))])

    optimizer = nnx.Optimizer(Model(), tx, wrt=nnx.Param)
    due = {("a/0/bias", (3,)), ("a/0/kernel/0", (1, 2, 1)), ("a/0/kernel/1", (1, 2, 2))}
    assert set(seen) == due
    seen.clear()
    state = nnx.state(Model(), nnx.Param)
    optimizer.update(Model(), state)
    assert set(seen) == due


def test_what_is_masked_or_missing_stays_so() -> None:
    tx = gk.view_by_pattern(
        RECIPES["muon"](), patterns={"a": "in (h=2 d) -> h in d", "b": "i o -> i o"}
    )
    g = {"a": draw({"x": (3, 4)}, 0)["x"], "b": optax.MaskedNode(), "c": None}
    u, _ = tx.update(g, tx.init(g), g)
    assert u["b"] == optax.MaskedNode() and u["c"] is None and u["a"].shape == (3, 4)


def test_groups_need_not_have_a_leaf_for_every_pattern() -> None:
    tx, g = gk.view_by_pattern(optax.scale(2.0), patterns=PATTERNS), draw(SHAPES, 0)
    labels = {k: "a" if k < "c" else "b" for k in g}
    both = optax.partition({"a": tx, "b": tx}, labels)
    close(both.update(g, both.init(g))[0], jax.tree.map(lambda x: 2 * x, g))
    tx = gk.view_by_pattern(optax.scale(2.0), patterns={"attn/qkv": "a b -> a b"})
    frozen = optax.masked(tx, {"attn": False, "w": True})  # one mask for all of attn
    g = {"attn": {"qkv": g["embed"]}, "w": g["scale"]}
    close(frozen.update(g, frozen.init(g))[0], g | {"w": 2 * g["w"]})


def test_a_view_computes_nothing() -> None:
    patterns = {"fused": "in (qkv=3 h=2 d) -> (qkv h) in d"}
    make = functools.partial(
        gk.view_by_pattern, inner=gk.scale_by_adam(), patterns=patterns
    )
    table = check(make, laws=["flops"], shapes={"fused": (6, 24), "conv": (2, 2, 3, 4)})
    assert table[0].outcome == "pass", str(table)


BAD_PATTERNS = {
    "in out": "'->'",
    "... out -> out": "a name for every axis",
    "in out -> in": "only on one side of expression (should be on both): {'out'}",
    "in (h d -> h in d": "Imbalanced parentheses",
    "in (h d) -> h in d": "Could not infer sizes",
    "in out=0 -> in out": "Unknown character '='",
    "in out = 3 -> in out": "Unknown character '='",
    "a b c d -> a b c d": "4 axes are left; group some",
    "in (h d=1+2) -> h in d": "not in parentheses",
    "in=1+2 out=1+2 -> in out": "one axis can have blocks",
}


@pytest.mark.parametrize("text", BAD_PATTERNS)
def test_patterns_that_cannot_be_read_are_named(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        gk.view_by_pattern(optax.identity(), patterns={"attn/qkv": text})
    said = str(caught.value)
    assert said.startswith("gradkit.view_by_pattern: the pattern of 'attn/qkv' must")
    assert f"got {text!r}: " in said and BAD_PATTERNS[text] in said
    assert said.endswith("Rewrite it.")


MISFITS = {
    "in (h=5 d) -> h in d": "can't divide axis of length 12 in chunks of 5",
    "a b c -> a b c": "expected 3 dims. Received 2-dim tensor",
    "in out=4+4 -> in out": "12 != 8",
    "in=7 out -> in out": "6 != 7",
}


@pytest.mark.parametrize("text", MISFITS)
def test_leaves_that_do_not_fit_are_named(text: str) -> None:
    tx = gk.view_by_pattern(optax.identity(), patterns={"w": text})
    with pytest.raises(ValueError) as caught:
        tx.init({"deep": {"w": jnp.zeros((6, 12))}})
    said = str(caught.value)
    assert f"leaf deep/w must fit {text!r}, got shape (6, 12): " in said
    assert MISFITS[text] in said and said.endswith("Correct the pattern.")


def test_patterns_that_overlap_or_idle_are_named() -> None:
    g = {"w_kernel": jnp.zeros((2, 2))}
    tx = gk.view_by_pattern(
        optax.identity(), patterns={"w": "a b -> a b", "kernel": "a b -> a b"}
    )
    with pytest.raises(
        ValueError, match=r"leaf w_kernel .*\['w', 'kernel'\].*exclusive"
    ):
        tx.init(g)
    tx = gk.view_by_pattern(optax.identity(), patterns={"quernel": "a b -> a b"})
    with pytest.raises(ValueError, match=r"none for \['quernel'\] in \['w_kernel'\]"):
        tx.init(g)
    assert tx.init({}) == optax.EmptyState()


def test_paths_that_are_one_name_are_named() -> None:
    tx = gk.view_by_pattern(optax.identity())
    with pytest.raises(ValueError, match=r"distinct, got \['a/b', 'a/b'\]"):
        tx.init({"a": {"b": jnp.zeros(2)}, "a/b": jnp.zeros(2)})


STACKABLE = {
    "muon": functools.partial(gk.muon, 0.1),
    "soap": functools.partial(gk.soap, 0.1, every=2),
    "psgd": functools.partial(gk.psgd, 0.1),
    "a schedule": functools.partial(gk.muon, 0.1, momentum=lambda n: 0.9),
}
WITHIN = {
    "alone": lambda tx: tx,
    "chain": lambda tx: gk.chain(gk.clip_by_global_norm(), tx),
    "optax.chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "route": lambda tx: gk.route({"attn": tx}, default=gk.sgd()),
    "injected": lambda tx: optax.inject_hyperparams(lambda c: gk.chain(tx))(c=1.0),
}


@pytest.mark.parametrize("name", STACKABLE)
def test_what_is_inside_knows_that_it_sees_stacks(name: str) -> None:
    """Whether it is told so or not, and what has one axis or none is beside them."""
    make, shapes = STACKABLE[name], {"w": (6, 12), "bias": (4,), "gain": ()}
    patterns = {"w": "in (h=3 d) -> h in d"}

    def inside(**axes):
        tx = gk.view_by_pattern(make(**axes), patterns=patterns)
        return run(tx, shapes=shapes, steps=2)

    told, state = inside(batch_axes=(0,))
    got, same = inside()
    close(got, told, 0)
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, state)


def test_no_axes_are_not_told() -> None:
    """A setting that is passed on may be `()`."""
    empty, none = (
        run(gk.view_by_pattern(tx, patterns=PATTERNS), steps=1)[0]
        for tx in (gk.muon(0.1, batch_axes=()), gk.muon(0.1))
    )
    close(empty, none, 0)


@pytest.mark.parametrize("name", WITHIN)
def test_so_does_what_is_within_others(name: str) -> None:
    us = [
        run(gk.view_by_pattern(WITHIN[name](tx), patterns=PATTERNS), steps=2)[0]
        for tx in (gk.muon(0.1), gk.muon(0.1, batch_axes=(0,)))
    ]
    close(*us, 0)


def test_heads_are_orthogonal_each() -> None:
    """Their singular values are Muon's, where those of the stack as one were 0.1 to 0.3."""
    tx = gk.view_by_pattern(gk.muon(1.0), patterns={"w": "in (h=4 d) -> h in d"})
    g = draw({"w": (16, 32)}, 0)
    for update in (tx.update, jax.jit(tx.update)):
        u = np.asarray(update(g, tx.init(g), g)[0]["w"])
        for head in np.split(u, 4, 1):
            values = np.linalg.svd(head, compute_uv=False)
            assert values.min() > 0.6 and values.max() < 1.3


def test_a_matrix_inside_is_named_as_its_leaf_is() -> None:
    """A query kernel `[in, out]` that is seen as a stack of one is no `[1, heads, size]`."""
    p = {"attn": {"query": {"kernel": jnp.ones((6, 8))}}}
    (row,) = gk.routes(gk.view_by_pattern(gk.muon()), p)
    assert row.matrix == (6, 8) and row.transform == "matrices"


def test_outside_nothing_is_a_stack() -> None:
    """Not the same transform, once it has been in a view."""
    tx, g = gk.muon(0.1), draw({"w": (3, 6, 8)}, 0)
    before = tx.update(g, tx.init(g), g)[0]
    seen = gk.view_by_pattern(tx, patterns={"w": "n i o -> n i o"})
    inside = seen.update(g, seen.init(g), g)[0]
    close(tx.update(g, tx.init(g), g)[0], before, 0)
    assert not np.allclose(inside["w"], before["w"], rtol=0.1)


@pytest.mark.parametrize(
    "inner",
    [
        lambda: gk.normalize_by_polar(batch_axes=(1,)),
        lambda: gk.muon(batch_axes=(-1,)),
        gk.normalize_by_dual_norm,
        gk.retract_by_stiefel,
    ],
)
def test_stacks_that_would_be_taken_for_one_matrix_are_refused(inner) -> None:
    tx = gk.view_by_pattern(inner(), patterns={"w": "in (h=4 d) -> h in d"})
    g = draw({"w": (4, 32)}, 0)
    with pytest.raises(ValueError) as caught:
        tx.update(g, tx.init(g), g)
    said = str(caught.value)
    assert "a stack of matrices (4, 4, 8) must be numbered by its first axis" in said
    assert "batch_axes=(0,)" in said and "'h d out -> (h d) out'" in said
    whole = gk.view_by_pattern(inner(), patterns={"w": "in (h=4 d) -> (h in) d"})
    whole.update(g, whole.init(g), g)


@pytest.mark.parametrize(
    "patterns, said",
    [
        (["w"], r"patterns must map expressions to patterns, got \['w'\]"),
        ({"w(": "i o -> i o"}, r"the key of a pattern must be .*, got 'w\(': missing"),
        ({3: "i o -> i o"}, "the key of a pattern must be a regular expression, got 3"),
        ({"w": 3}, "the pattern of 'w' must read like .*, got 3"),
    ],
)
def test_what_is_no_dict_of_patterns_is_named(patterns, said) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=f"gradkit.view_by_pattern: {said}"
    ):
        gk.view_by_pattern(optax.identity(), patterns=patterns)
