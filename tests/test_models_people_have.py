"""Factors that stand in a model, leaves that are no random scale, shapes, depths and advice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inferred import IMAGES, infer, shape

import gradkit as gk


def multipliers(found, path, optimizer="adam"):
    m = gk.multipliers(found, "mup", optimizer)[path]
    return m.init, m.learning_rate, m.forward


def hidden_net(factor):
    """`factor(w)` multiplies what a hidden matrix makes."""

    def init(width):
        return {"in": shape(3, width), "w": shape(width, width), "out": shape(width, 2)}

    def apply(p, x):
        h = jnp.tanh(x @ p["in"])
        return factor(p["w"], h, len(p["w"])) @ p["out"]

    return init, apply


ROOT = (1.0, 0.5, 1.0)  # of a factor of n**-1/2 at growth 4: init 1/2 / F, rate 1/4 / F
PLACES = {
    "behind": lambda w, h, n: jnp.tanh(h @ w / n**0.5),
    "before": lambda w, h, n: jnp.tanh(h * n**-0.5 @ w),
    "on the weight": lambda w, h, n: jnp.tanh(h @ (w * n**-0.5)),
    "computed": lambda w, h, n: jnp.tanh(h @ w * jax.lax.rsqrt(jnp.float32(n))),
    "in two": lambda w, h, n: jnp.tanh((h * n**-0.25 @ w) * n**-0.25),
    "rearranged": lambda w, h, n: jnp.tanh(
        (h @ w).reshape(-1, 2, n // 2) / n**0.5
    ).reshape(-1, n),
    "a residual branch": lambda w, h, n: jnp.tanh(h + h @ w / n**0.5),
    "jitted": lambda w, h, n: jnp.tanh(jax.jit(lambda a: a / n**0.5)(h @ w)),
    "a branch": lambda w, h, n: jax.lax.cond(
        h.sum() > 0, lambda: jnp.tanh(h @ w / n**0.5), lambda: h
    ),
    "a loop": lambda w, h, n: jax.lax.fori_loop(
        0, 3, lambda _, h: jnp.tanh(h @ w / n**0.5), h
    ),
    "turns": lambda w, h, n: jax.lax.scan(
        lambda h, _: (jnp.tanh(h @ w / n**0.5), None), h, None, 3
    )[0],
    "twice": lambda w, h, n: jnp.tanh(jnp.tanh(h @ w / n**0.5) @ w / n**0.5),
    "of a mean": lambda w, h, n: jnp.tanh((h[..., None] * w).sum(-2) / n**0.5),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_factor_of_the_model_is_its_matrices(name):
    found = infer(*hidden_net(PLACES[name]), IMAGES)
    assert multipliers(found, "w") == pytest.approx(ROOT)
    assert multipliers(found, "out") == pytest.approx((1, 1, 0.25))
    assert multipliers(found, "in") == pytest.approx((1, 1, 1))
    assert not found.notes


NO_FACTOR = {
    "of the norm": lambda w, h, n: (
        (h @ w) / jnp.linalg.norm(h @ w, axis=-1, keepdims=True)
    ),
    "a mean for a norm": lambda w, h, n: h @ w - (h @ w).mean(-1, keepdims=True),
    "a number": lambda w, h, n: jnp.tanh(h @ w * 0.3),
    "weight of norm one": lambda w, h, n: jnp.tanh(
        h @ (w / jnp.linalg.norm(w, axis=0))
    ),
}


@pytest.mark.parametrize("name", NO_FACTOR)
def test_what_grows_with_no_width_is_no_factor(name):
    found = infer(*hidden_net(NO_FACTOR[name]), IMAGES)
    assert multipliers(found, "w") == pytest.approx((0.5, 0.25, 1))
    assert not found.notes


def test_a_factor_multiplies_gradients_too():
    found = infer(*hidden_net(PLACES["behind"]), IMAGES)
    assert multipliers(found, "w", "sgd")[1] == pytest.approx(1 / 0.5**2)
    eps = gk.multipliers(found)["w"].eps
    assert eps == pytest.approx(0.25 * 0.5)  # a gradient half as large


def test_a_factor_of_the_readout_is_left_out_of_its_forward_multiplier():
    init = lambda width: {"in": shape(3, width), "out": shape(width, 2)}
    apply = lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"] / len(p["out"]) ** 0.5
    assert multipliers(infer(init, apply, IMAGES), "out") == pytest.approx((1, 1, 0.5))


def test_a_factor_that_fits_no_one_matrix_is_told():
    def apply(p, x):
        h = jnp.tanh(x @ p["in"])
        return (
            jnp.tanh(h @ p["w"] / len(p["w"]) ** 0.5 + jnp.sin(h) @ p["w"]) @ p["out"]
        )

    found = infer(hidden_net(None)[0], apply, IMAGES)
    assert multipliers(found, "w") == pytest.approx((0.5, 0.25, 1))
    assert "w is multiplied by several numbers" in found.notes[0]


def test_a_factor_of_the_depth_is_no_factor_of_a_width():
    def init(width, layers):
        blocks = [{"w": shape(width, width)} for _ in range(layers)]
        return {"in": shape(3, width), "blocks": blocks, "out": shape(width, 2)}

    def apply(p, x, layers):
        h = x @ p["in"]
        for block in p["blocks"]:
            h = h + jnp.tanh(h) @ block["w"] * len(block["w"]) ** -0.5 / layers
        return h @ p["out"]

    sizes = {"width": 8, "layers": 2}, {"width": 32, "layers": 6}
    found = infer(init, apply, IMAGES, *sizes)
    assert multipliers(found, "blocks/0/w") == pytest.approx(ROOT)
    assert found["blocks/3/w"].depth == 3 and not found.notes


def test_the_model_as_it_is_used_moves_as_one_without_factors():
    """The same function of the width: drawn, multiplied and moved, as muP wants it."""

    def init(key, width):
        ks = jax.random.split(key, 3)
        r = lambda k, *s: jax.random.normal(k, s)
        return {
            "in": r(ks[0], 3, width),
            "w": r(ks[1], width, width),
            "out": r(ks[2], width, 2),
        }

    def net(power):
        return lambda p, x: (
            jnp.tanh(jnp.tanh(x @ p["in"]) @ p["w"] * len(p["w"]) ** power) @ p["out"]
        )

    x = jax.random.normal(jax.random.key(1), (4, 3))
    moved = []
    for power in (0.0, -0.5):
        found = gk.infer_parametrization(
            lambda n: init(jax.random.key(0), n),
            base=16,
            target=64,
            apply=net(power),
            example=x,
        )
        base, wide = init(jax.random.key(0), 16), init(jax.random.key(0), 64)
        base["w"] = base["w"] * 16 ** (
            -0.5 - power
        )  # one base model, written in two ways
        p = gk.rescale_init(wide, found, base)
        tx = gk.chain(gk.scale_by_adam(), gk.transfer_by_mup(found))
        forward = gk.multipliers(found)["out"].forward
        f = functools.partial(lambda net, c, p: c * net(p, x), net(power), forward)
        grads = jax.grad(lambda p, f=f: jnp.sum(f(p) ** 2))(p)
        step = {"in": 0.1, "w": 0.1 * 16 ** (-0.5 - power), "out": 0.1}
        u, _ = tx.update(grads, tx.init(p), p)
        moved.append(f({k: p[k] - step[k] * u[k] for k in p}) - f(p))
    np.testing.assert_allclose(*moved, rtol=2e-3)


POWERS = {0.0: "not divided", 0.25: "-0.25", 0.5: "by its root", 0.75: "-0.75", 1.0: ""}


@pytest.mark.parametrize("power", POWERS)
def test_scores_that_want_another_power_are_told(power):
    def apply(p, x):
        h = x @ p["i"]
        s = jnp.einsum("bld,bmd->blm", h @ p["q"], h @ p["k"]) * h.shape[-1] ** -power
        return jax.nn.softmax(s) @ h @ p["o"]

    sizes = {"i": (3, "w"), "q": ("w", "w"), "k": ("w", "w"), "o": ("w", 5)}
    init = lambda w: {
        k: shape(*(w if n == "w" else n for n in s)) for k, s in sizes.items()
    }
    notes = infer(init, apply, shape(2, 6, 3)).notes
    assert [POWERS[power] in note for note in notes] == [True] * (power < 1)


def test_inner_output_matrices_are_told_and_have_a_rule():
    def init(width):
        return {
            "in": shape(8, width),
            "down": shape(width, 4),
            "up": shape(4, width),
            "out": shape(width, 5),
        }

    apply = lambda p, x: (
        jnp.tanh(jnp.tanh(x @ p["in"]) @ p["down"]) @ p["up"] @ p["out"]
    )
    found = infer(init, apply, shape(4, 8))
    (note,) = found.notes
    assert (
        note.startswith("down: ") and "0.25 as forward" in note and "plain_mup" in note
    )
    plain = gk.multipliers(found, "plain_mup")
    assert {k: m.forward for k, m in plain.items()} == dict.fromkeys(found, 1.0)
    assert plain["down"][:3] == plain["out"][:3] == (0.25, 1.0, 0.25)


FREQUENCIES = {
    "frequencies": lambda n: jnp.pi * jnp.arange(1.0, n + 1),
    "decays": lambda n: -jnp.log(jnp.arange(1.0, n + 1) + 1),
    "a complex spectrum": lambda n: jax.lax.complex(
        jnp.full(n, -0.5), jnp.pi * jnp.arange(float(n))
    ),
    "step sizes": lambda n: jnp.exp(
        jax.random.uniform(jax.random.key(n), (n,), minval=-7, maxval=-2)
    ),
}


@pytest.mark.parametrize("name", FREQUENCIES)
def test_leaves_that_are_no_random_scale_stay(name):
    def init(n):
        return {
            "v": FREQUENCIES[name](n),
            "w": jax.random.normal(jax.random.key(0), (n, n)),
        }

    found = gk.infer_parametrization(base=init(16), target=init(128))
    new = gk.rescale_init(init(128), found, init(16))
    np.testing.assert_array_equal(new["v"], init(128)["v"])
    assert float(jnp.std(new["w"])) == pytest.approx(8**-0.5, rel=0.1)


def test_what_is_kept_can_be_said():
    base, w = (
        {"w": jnp.ones((2, 2)), "b": jnp.ones(2)},
        {"w": jnp.full((8, 8), 3.0), "b": jnp.full(8, 3.0)},
    )
    found = gk.infer_parametrization(base=base, target=w)
    new = gk.rescale_init(w, found, base, keep="^w$")
    assert new["w"][0, 0] == 3 and new["b"][0] == 1
    with pytest.raises(
        ValueError, match=r"rescale_init: keep must be found.*Choose from"
    ):
        gk.rescale_init(w, found, base, keep="frequency")


def test_shapes_are_compared():
    sizes = lambda n: {
        "i": jnp.ones((3, n)),
        "w": jnp.ones((n, n)),
        "o": jnp.ones((n, 5)),
    }
    found = gk.infer_parametrization(sizes, base=16, target=64)
    tx = gk.transfer_by_mup(found)
    said = r"transfer_by_mup: leaf i must have the shape .*\(3, 64\), got \(3, 128\)"
    for call in (lambda p: tx.init(p), lambda p: tx.update(p, tx.init(sizes(64)))):
        with pytest.raises(ValueError, match=said):
            call(sizes(128))
    with pytest.raises(
        ValueError, match=r"rescale_init: base at i .*\(3, 16\), got \(3, 32\)"
    ):
        gk.rescale_init(sizes(64), found, sizes(32))
    with pytest.raises(ValueError, match=r"rescale_init: leaf i must have the shape"):
        gk.rescale_init(sizes(128), found, sizes(16))
    decay = gk.decay_by_completep(found, weight_decay=0.1)
    with pytest.raises(
        ValueError, match=r"decay_by_completep: leaf i must have the shape"
    ):
        decay.update(sizes(128), decay.init(sizes(128)), sizes(128))


NAMES = {  # base, target, and the growth of the depth
    "experts": ("layers/{}/experts/{}/w", (2, 4), (2, 16), 1.0),
    "layers of experts": ("layers/{}/experts/{}/w", (2, 4), (6, 4), 3.0),
    "layers of layers": ("encoder/{}/blocks/{}/w", (2, 2), (4, 2), 2.0),
    "branches": ("branch_{}/layer_{}/w", (2, 2), (4, 4), 2.0),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_alone_tell_layers_from_experts(name):
    path, old, new, depth = NAMES[name]

    def tree(numbers, width):
        found = {}
        for i in range(numbers[0]):
            for j in range(numbers[1]):
                *folders, leaf = path.format(i, j).split("/")
                at = found
                for folder in folders:
                    at = at.setdefault(folder, {})
                at[leaf] = shape(width, width)
        return found

    found = gk.infer_parametrization(base=tree(old, 8), target=tree(new, 32))
    assert {p.depth for p in found.values()} == {depth}


ADVICE = {  # shape and use of a leaf, what is refused, and the role that is advised
    "vocabulary": (("w", 8), lambda w, h: w[jnp.argmax(h, -1)], "embedding"),
    "gain": (("w", "w"), lambda w, h: h[:, :, None] / w, "vector"),
    "unused": (("w",), lambda w, h: h, "fixed"),
}


@pytest.mark.parametrize("name", ADVICE)
def test_advice_is_what_one_should_do(name):
    sizes, use, role = ADVICE[name]

    def init(width):
        size = tuple(width if n == "w" else n for n in sizes)
        return {"in": shape(3, width), "leaf": shape(*size), "out": shape(width, 2)}

    def apply(p, x):
        h = jnp.tanh(x @ p["in"])
        return h @ p["out"] + use(p["leaf"], h).sum()

    with pytest.raises(
        ValueError, match=rf"leaf leaf must .*roles=\{{'leaf': '{role}'\}}"
    ):
        infer(init, apply, IMAGES)
    assert infer(init, apply, IMAGES, roles={"leaf": role})["leaf"].role == role


def test_a_refusal_of_a_layer_is_lifted_for_all():
    def init(width):
        return {
            "in": shape(3, width),
            "layers": [{"w": shape(width, width)} for _ in range(2)],
        }

    def apply(p, x):
        h = x @ p["in"]
        for layer in p["layers"]:
            h = h @ layer["w"] + layer["w"][0]
        return h

    with pytest.raises(ValueError, match=r"leaf layers/0/w") as error:
        infer(init, apply, IMAGES)
    rule = r"layers/\\d+/w$"
    assert f"roles={{'{rule}': 'hidden'}}" in str(error.value)
    found = infer(init, apply, IMAGES, roles={r"layers/\d+/w$": "hidden"})
    assert found["layers/1/w"].role == "hidden"


@pytest.mark.parametrize("rank", [2, 4])
def test_a_name_of_torch_is_in_doubt_without_the_model(rank):
    """`weight` is `[out, in]` in torch and Equinox, `[in, out]` elsewhere, `[rows, out]` in tables."""
    window = (3,) * (rank - 2)
    tree = lambda n: {"first": {"weight": shape(n, 3, *window)}, "bias": shape(n)}
    with pytest.raises(
        ValueError, match=r"leaf first/weight must have inputs.*Pass apply.*: \(1,\)\}"
    ):
        gk.infer_parametrization(base=tree(8), target=tree(32))
    said = {"first/weight": tuple(range(1, rank))}
    found = gk.infer_parametrization(base=tree(8), target=tree(32), inputs=said)
    assert found["first/weight"].role == "input" and not found.notes
    square = lambda n: {"weight": shape(n, n)}  # either way the same
    assert (
        gk.infer_parametrization(base=square(8), target=square(32))["weight"].role
        == "hidden"
    )


@pytest.mark.parametrize("features", [8, 11, 32])
def test_depth_is_of_layers_that_grew_alike(features):
    """Not of equal shape by chance, as where there are as many inputs as one size is wide."""
    init = lambda width: {
        "l1": shape(features, width),
        "l2": shape(width, width),
        "out": shape(width, 7),
    }
    apply = lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["l1"]) @ p["l2"]) @ p["out"]
    found = infer(init, apply, shape(3, features))
    assert {p.depth for p in found.values()} == {1.0} and not found.notes


def moe(p, t):
    """Matrices of the chosen expert, for the raw rows of a table."""
    x = p["e"][t]
    i = jnp.argmax(x @ p["r"], -1)
    y = jax.nn.relu(jnp.einsum("btd,btdf->btf", x, p["w1"][i]))
    return (x + jnp.einsum("btf,btfd->btd", y, p["w2"][i])) @ p["h"]


def moe_sizes(d):
    return {
        "e": (50, d),
        "r": (d, 4),
        "w1": (4, d, 2 * d),
        "w2": (4, 2 * d, d),
        "h": (d, 50),
    }


ROWS = shape(2, 7, dtype=jnp.int32)


def test_experts_that_meet_rows_of_a_table():
    init = lambda d: {k: shape(*s) for k, s in moe_sizes(d).items()}
    found = infer(init, moe, ROWS)
    assert (
        found["w1"].role == found["w2"].role == "expert"
        and found["e"].role == "embedding"
    )
    assert not any("scores" in note for note in found.notes)
    read = gk.read_model(moe, init(16), ROWS)
    assert (read["w1"].inputs, read["w1"].outputs, read["w1"].stacked) == (
        (1,),
        (2,),
        (0,),
    )


def test_tables_that_meet_are_named():
    init = lambda d: {"u": shape(20, d), "i": shape(30, d)}
    apply = lambda p, t: jnp.sum(p["u"][t] * p["i"][t], -1)
    (note,) = infer(init, apply, ROWS).notes
    assert "scores of i, u" in note


def test_the_order_of_an_einsum_may_go_by_sizes():
    def init(width):
        made = {k: shape(width, 8) for k in ("q", "k")}
        return made | {
            "v": shape(width, width),
            "o": shape(width, 3),
            "i": shape(5, width),
        }

    def apply(p, x):
        h = x @ p["i"]
        return (
            jnp.einsum("btn,bsn,bsd->btd", h @ p["q"], h @ p["k"], h @ p["v"]) @ p["o"]
        )

    found = infer(init, apply, shape(2, 12, 5), 8, 64)
    assert not any("scores" in note for note in found.notes)


def test_a_codebook_is_no_output_matrix():
    def apply(p, x):
        z = x @ p["e"]
        far = (
            (z**2).sum(-1, keepdims=True)
            - 2 * z @ p["codes"].T
            + (p["codes"] ** 2).sum(-1)
        )
        return p["codes"][far.argmin(-1)] @ p["o"]

    init = lambda d: {"e": shape(5, d), "codes": shape(12, d), "o": shape(d, 3)}
    with jax.numpy_rank_promotion("allow"):
        found = infer(init, apply, shape(2, 5))
    assert found["codes"].role == "embedding" and not any(
        "codes" in n for n in found.notes
    )


def test_what_reaches_the_outputs_alone_is_a_vector():
    """As the size of a policy's noise does."""
    init = lambda n: {"i": shape(3, n), "o": shape(n, 2), "size": shape(2)}
    apply = lambda p, x: (jnp.tanh(x @ p["i"]) @ p["o"], jnp.exp(p["size"]))
    assert infer(init, apply, IMAGES)["size"].role == "fixed"
    assert gk.read_model(apply, init(8), IMAGES)["size"].kind == "vector"


def test_filters_in_the_frequency_domain_are_vectors():
    def apply(p, x):
        h = jnp.fft.rfft(x @ p["i"], 14, 0) * jnp.fft.rfft(p["filter"], 14, 0)
        return jnp.fft.irfft(h, 14, 0)[:7] @ p["o"]

    init = lambda n: {"i": shape(3, n), "filter": shape(7, n), "o": shape(n, 2)}
    found = infer(init, apply, shape(7, 3))
    assert found["filter"].role == "vector" and found["filter"].growth_out == 4
    assert gk.read_model(apply, init(8), shape(7, 3))["filter"].kind == "vector"


@pytest.mark.parametrize("groups", [1, 4])
def test_the_gain_of_a_weight_is_a_vector(groups):
    """Weight norm, of every output or of every place of a window."""
    dims = dict(dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=groups)
    conv = lambda x, w: jax.lax.conv_general_dilated(x, w, (1,), "SAME", **dims)
    apply = lambda p, x: conv(x @ p["i"], p["g"] * p["v"]) @ p["o"]
    for gain in ((4, 1, 1), (1, 1, 16)):
        p = {
            "g": shape(*gain),
            "v": shape(4, 16 // groups, 16),
            "i": shape(5, 16),
            "o": shape(16, 3),
        }
        read = gk.read_model(apply, p, shape(2, 7, 5))
        assert read["g"].kind == "vector" and read["v"].kind == "convolution"


def test_channels_of_a_depthwise_convolution_are_those_it_is_given():
    """Fused queries, keys and values are cut behind a short convolution."""
    dims = dict(dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=48)
    conv = lambda x, w: jax.lax.conv_general_dilated(x, w, (1,), "SAME", **dims)

    def apply(p, x):
        q, k, v = jnp.split(conv(x @ p["qkv"], p["short"]), 3, -1)
        return jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ v @ p["o"]

    p = {"qkv": shape(9, 48), "short": shape(3, 1, 48), "o": shape(16, 2)}
    read = gk.read_model(apply, p, shape(2, 7, 9))
    assert read["qkv"].blocks == 3 and not read["short"].is_matrix


@pytest.mark.parametrize("spelled", ["by hand", "einsum"])
def test_a_vector_of_each_head_is_no_matrix(spelled):
    """Of graph attention; the projection stays one matrix, as that of queries does."""

    def weight(h, a):
        return (
            (h * a).sum(-1) if spelled == "by hand" else jnp.einsum("nhd,hd->nh", h, a)
        )

    def apply(p, x):
        h = jnp.einsum("ni,ihd->nhd", x, p["w"])
        e = jax.nn.softmax(weight(h, p["source"])[:, None] + weight(h, p["to"])[None])
        return jnp.einsum("nmh,mhd->nhd", e, h).reshape(-1, 32) @ p["o"]

    p = {
        "w": shape(5, 4, 8),
        "source": shape(4, 8),
        "to": shape(4, 8),
        "o": shape(32, 3),
    }
    with jax.numpy_rank_promotion("allow"):
        read = gk.read_model(apply, p, shape(6, 5))
    assert not read["source"].is_matrix and not read["to"].is_matrix
    assert (read["w"].inputs, read["w"].outputs, read["w"].stacked) == (
        (0,),
        (1, 2),
        (),
    )


def test_a_leaf_that_is_used_both_ways_in_parts_is_in_doubt():
    """Queries are brought to the compressed keys, and what is read is brought back."""

    def apply(p, x):
        k, v = p["kv"][..., :3], p["kv"][..., 3:]
        q = jnp.einsum("td,dhn->thn", x, p["q"])
        back = jnp.einsum("thn,chn->thc", q, k)
        return jnp.einsum("thc,chv->thv", back, v).reshape(-1, 10) @ p["o"]

    p = {"kv": shape(4, 2, 8), "q": shape(9, 2, 3), "o": shape(10, 2)}
    with pytest.raises(ValueError, match="leaf kv must be used in one way"):
        gk.read_model(apply, p, shape(5, 9))
