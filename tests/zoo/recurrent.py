"""Recurrent models: gated cells, diagonal state spaces, selective scans, additive attention."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import gelu, sigmoid, silu, softmax, softplus

from zoo.form import (
    EMBEDDING,
    FIXED,
    GAIN,
    HIDDEN,
    INPUT,
    MATRIX,
    OUTPUT,
    READOUT,
    TABLE,
    TIED,
    TRANSPOSED,
    VECTOR,
    Form,
    Read,
    from_fixed,
    hidden,
    keys,
    matrix,
    normal,
    tied,
    to_fixed,
)

WORDS = 11
TOKENS = np.arange(6, dtype=np.int32) * 2 % WORDS
SEQUENCE = np.sin(np.arange(18, dtype=np.float32)).reshape(6, 3)


def rms(x):
    """`x` over the root mean square of its last axis."""
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def ring(key, n, low=0.9, high=0.999):
    """The logarithms of `n` radii, uniform in the area of a ring, as LRU draws them."""
    uniform = jax.random.uniform(key, (n,))
    return 0.5 * jnp.log(uniform * (high**2 - low**2) + low**2)


def recurrence(decays, inputs):
    """All `h[t] = decays[t] h[t - 1] + inputs[t]`, in parallel."""

    def combine(early, late):
        return early[0] * late[0], late[0] * early[1] + late[1]

    return lax.associative_scan(combine, (decays, inputs))[1]


def lstm() -> Form:
    """One matrix makes all gates of the cell, from the input and the state side by side."""

    def init(n, m):
        k = keys()
        return {
            "embed": normal(next(k), WORDS, m, scale=1.0),
            "gates": {"w": matrix(next(k), m + n, 4 * n), "b": jnp.zeros(4 * n)},
            "head": {"w": matrix(next(k), n, WORDS), "b": jnp.zeros(WORDS)},
        }

    def apply(p, tokens):
        def step(carry, x):
            h, c = carry
            gates = jnp.concatenate([x, h]) @ p["gates"]["w"] + p["gates"]["b"]
            i, g, f, o = jnp.split(gates, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * jnp.tanh(g)
            h = sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros(p["head"]["w"].shape[0])
        hs = lax.scan(step, (zero, zero), p["embed"][tokens])[1]
        return hs @ p["head"]["w"] + p["head"]["b"]

    return Form(
        "lstm",
        init,
        apply,
        TOKENS,
        base={"n": 16, "m": 8},
        target={"n": 64, "m": 32},
        rows={
            "embed": EMBEDDING,
            "gates/w": HIDDEN,
            "gates/b": VECTOR,
            "head/w": OUTPUT,
            "head/b": FIXED,
        },
        reads={
            "embed": TABLE,
            "gates/w": MATRIX._replace(blocks=4),
            "(gates|head)/b": GAIN,
            "head/w": READOUT,
        },
    )


def gru() -> Form:
    """Equinox's cell, `[out, in]`, whose last state is read."""

    def init(n):
        k = keys()
        return {
            "cell": eqx.nn.GRUCell(3, n, key=next(k)),
            "head": eqx.nn.Linear(n, 2, key=next(k)),
        }

    def apply(p, xs):
        state = jnp.zeros(p["cell"].hidden_size)
        state, _ = lax.scan(lambda h, x: (p["cell"](x, h), None), state, xs)
        return p["head"](state)

    return Form(
        "gru",
        init,
        apply,
        SEQUENCE,
        base=16,
        target=64,
        rows={
            "cell/weight_ih": INPUT,
            "cell/weight_hh": HIDDEN,
            "cell/bias|cell/bias_n": VECTOR,
            "head/weight": OUTPUT,
            "head/bias": FIXED,
        },
        reads={
            "cell/weight_.h": TRANSPOSED._replace(blocks=3),
            "cell/bias|cell/bias_n|head/bias": GAIN,
            "head/weight": Read("readout", (1,), (0,)),
        },
    )


def s5() -> Form:
    """Layers of a complex diagonal state space, which grows by blocks of one spectrum.

    The last axis of B and C is (real, imaginary).
    """

    def layer(n, state, k):
        return {
            "norm": jnp.ones(n),
            "Lambda_re": jnp.full(state, -0.5),
            "Lambda_im": jnp.tile(jnp.pi * jnp.arange(4.0), state // 4),
            "B": normal(next(k), state, n, 2, scale=n**-0.5),
            "C": normal(next(k), n, state, 2, scale=0.5**0.5),
            "D": normal(next(k), n, scale=1.0),
            "log_step": jnp.log(jax.random.uniform(next(k), (state,), None, 1e-3, 0.1)),
        }

    def init(n, state, layers):
        k = keys()
        return {
            "encoder": matrix(next(k), 3, n),
            "layers": [layer(n, state, k) for _ in range(layers)],
            "decoder": matrix(next(k), n, 2),
        }

    def ssm(p, u):
        step = jnp.exp(p["log_step"])
        decay = jnp.exp(lax.complex(step * p["Lambda_re"], step * p["Lambda_im"]))
        gain = (decay - 1) / lax.complex(p["Lambda_re"], p["Lambda_im"])
        B, C = (lax.complex(p[k][..., 0], p[k][..., 1]) for k in "BC")
        inputs = u.astype(B.dtype) @ (gain[:, None] * B).T
        states = recurrence(decay * jnp.ones_like(inputs), inputs)
        return 2 * (states @ C.T).real + p["D"] * u

    def apply(p, xs):
        h = xs @ p["encoder"]
        for layer in p["layers"]:
            h = h + gelu(ssm(layer, layer["norm"] * rms(h)))
        return h.mean(0) @ p["decoder"]

    return Form(
        "s5",
        init,
        apply,
        SEQUENCE,
        base={"n": 16, "state": 8, "layers": 2},
        target={"n": 64, "state": 32, "layers": 4},
        rows={
            "encoder": INPUT,
            r"layers/\d/[BC]": hidden(depth=2),
            r"layers/\d/(Lambda_..|log_step|D|norm)": from_fixed("vector", depth=2),
            "decoder": OUTPUT,
        },
        reads={
            "encoder": MATRIX,
            r"layers/\d/[BC]": TRANSPOSED._replace(stacked=(2,)),
            r"layers/\d/(Lambda_..|log_step|D|norm)": GAIN,
            "decoder": READOUT,
        },
    )


def lru() -> Form:
    """A linear recurrent unit: decays on a ring, and the gain gamma of every row of B."""

    def init(n, state):
        k = keys()
        radius = ring(next(k), state)
        return {
            "encoder": matrix(next(k), 3, n),
            "nu_log": jnp.log(-radius),
            "theta_log": jnp.log(2 * jnp.pi * jax.random.uniform(next(k), (state,))),
            "gamma_log": 0.5 * jnp.log(1 - jnp.exp(2 * radius)),
            "B_re": normal(next(k), state, n, scale=(2 * n) ** -0.5),
            "B_im": normal(next(k), state, n, scale=(2 * n) ** -0.5),
            "C_re": normal(next(k), n, state, scale=state**-0.5),
            "C_im": normal(next(k), n, state, scale=state**-0.5),
            "D": normal(next(k), n, scale=1.0),
            "decoder": matrix(next(k), n, 2),
        }

    def apply(p, xs):
        u = xs @ p["encoder"]
        decay = jnp.exp(lax.complex(-jnp.exp(p["nu_log"]), jnp.exp(p["theta_log"])))
        gamma = jnp.exp(p["gamma_log"])[:, None]
        B = lax.complex(p["B_re"] * gamma, p["B_im"] * gamma)
        C = lax.complex(p["C_re"], p["C_im"])

        def step(h, u):
            h = decay * h + B @ u.astype(B.dtype)
            return h, (C @ h).real + p["D"] * u

        return gelu(lax.scan(step, jnp.zeros_like(decay), u)[1]) @ p["decoder"]

    return Form(
        "lru",
        init,
        apply,
        SEQUENCE,
        base={"n": 16, "state": 8},
        target={"n": 64, "state": 32},
        rows={
            "encoder": INPUT,
            "[BC]_..": HIDDEN,
            "(nu|theta|gamma)_log|D": VECTOR,
            "decoder": OUTPUT,
        },
        reads={
            "encoder": MATRIX,
            "[BC]_..": TRANSPOSED,
            "(nu|theta|gamma)_log|D": GAIN,
            "decoder": READOUT,
        },
    )


def mamba() -> Form:
    """Scanned layers of a selective state space; ranks and states are of fixed size."""
    rank, state = 2, 4

    def layer(n, key):
        k, d = (jax.random.fold_in(key, i) for i in range(9)), 2 * n
        steps = jax.random.uniform(next(k), (d,), None, 1e-3, 0.1)
        return {
            "norm": jnp.ones(n),
            "in_proj": matrix(next(k), n, 2 * d),
            "conv": normal(next(k), 4, 1, d, scale=0.5),
            "conv_bias": jnp.zeros(d),
            "x_proj": matrix(next(k), d, rank + 2 * state),
            "dt_proj": matrix(next(k), rank, d),
            "dt_bias": jnp.log(jnp.expm1(steps)),
            "A_log": jnp.log(jnp.tile(jnp.arange(1.0, state + 1), (d, 1))),
            "D": jnp.ones(d),
            "out_proj": matrix(next(k), d, n),
        }

    def init(n, layers):
        k = keys()
        each = jax.random.split(next(k), layers)
        return {
            "embed": normal(next(k), WORDS, n, scale=0.02),
            "layers": jax.vmap(lambda key: layer(n, key))(each),
            "norm": jnp.ones(n),
        }

    def convolve(x, w):
        """Every channel with taps of its own, of the present and the past."""
        kind, d = ("NWC", "WIO", "NWC"), x.shape[-1]
        return lax.conv_general_dilated(
            x[None], w, (1,), [(3, 0)], dimension_numbers=kind, feature_group_count=d
        )[0]

    def block(h, p):
        x, z = jnp.split(p["norm"] * rms(h) @ p["in_proj"], 2, -1)
        x = silu(convolve(x, p["conv"]) + p["conv_bias"])
        dt, B, C = jnp.split(x @ p["x_proj"], [rank, rank + state], -1)
        dt = softplus(dt @ p["dt_proj"] + p["dt_bias"])
        A = -jnp.exp(p["A_log"])

        def step(s, now):
            x, dt, B, C = now
            s = jnp.exp(dt[:, None] * A) * s + (dt * x)[:, None] * B[None, :]
            return s, s @ C

        y = lax.scan(step, jnp.zeros_like(A), (x, dt, B, C))[1]
        return h + ((y + p["D"] * x) * silu(z)) @ p["out_proj"], None

    def apply(p, tokens):
        h = lax.scan(block, p["embed"][tokens], p["layers"])[0]
        return p["norm"] * rms(h) @ p["embed"].T

    gains = "layers/(norm|conv_bias|dt_bias|D)"
    return Form(
        "mamba",
        init,
        apply,
        TOKENS,
        base={"n": 16, "layers": 2},
        target={"n": 64, "layers": 4},
        rows={
            "embed": tied(),
            "layers/(in|out)_proj": hidden(depth=2),
            "layers/x_proj": to_fixed(depth=2),
            "layers/(conv|dt_proj)": from_fixed("input", depth=2),
            f"{gains}|layers/A_log": from_fixed("vector", depth=2),
            "norm": VECTOR,
        },
        reads={
            "embed": TIED,
            "layers/in_proj": Read("matrix", (1,), (2,), (0,), blocks=2),
            "layers/x_proj": Read("matrix", (1,), (2,), (0,), blocks=3),
            "layers/(dt|out)_proj": Read("matrix", (1,), (2,), (0,)),
            "layers/conv": Read("convolution", (1,), (3,), (0,)),
            "layers/A_log": Read("vector", (), (1, 2), (0,)),
            gains: Read("vector", (), (1,), (0,)),
            "norm": GAIN,
        },
        notes=(("embed", "forward"), ("layers/x_proj", "forward")),
    )


def rg_lru(name, base, target, gates) -> Form:
    """A recurrent block of Griffin: gates of diagonal blocks, and a convolution tap by tap."""

    def init(n, blocks):
        k, m = keys(), n // blocks
        blockwise = lambda: {
            "w": normal(next(k), blocks, m, m, scale=m**-0.5),
            "b": jnp.zeros((blocks, m)),
        }
        return {
            "encoder": matrix(next(k), 3, n),
            "linear_x": matrix(next(k), n, n),
            "linear_y": matrix(next(k), n, n),
            "conv": {"w": normal(next(k), 4, n, scale=0.05), "b": jnp.zeros(n)},
            "a_param": jnp.log(jnp.expm1(-ring(next(k), n))),
            "input_gate": blockwise(),
            "a_gate": blockwise(),
            "linear_out": matrix(next(k), n, n),
            "decoder": matrix(next(k), n, 2),
        }

    def convolve(p, x):
        past = [jnp.pad(x, ((t, 0), (0, 0)))[: len(x)] for t in range(len(p["w"]))]
        return sum(p["w"][t] * past[t] for t in range(len(past))) + p["b"]

    def gate(p, x):
        cut = x.reshape(-1, *p["b"].shape)
        made = jnp.einsum("thi,hij->thj", cut, p["w"]) + p["b"]
        return sigmoid(made.reshape(x.shape))

    def apply(p, xs):
        h = xs @ p["encoder"]
        x = convolve(p["conv"], h @ p["linear_x"])
        log_a = -8 * gate(p["a_gate"], x) * softplus(p["a_param"])
        inputs = x * gate(p["input_gate"], x) * jnp.sqrt(1 - jnp.exp(2 * log_a))
        y = recurrence(jnp.exp(log_a), inputs) * gelu(h @ p["linear_y"])
        return (h + y @ p["linear_out"]) @ p["decoder"]

    return Form(
        name,
        init,
        apply,
        SEQUENCE,
        base,
        target,
        rows={
            "encoder": INPUT,
            "linear_.*": HIDDEN,
            ".*_gate/w": gates,
            "conv/.|a_param|.*_gate/b": VECTOR,
            "decoder": OUTPUT,
        },
        reads={
            "encoder": MATRIX,
            "linear_.*": MATRIX,
            ".*_gate/w": Read("matrix", (1,), (2,), (0,)),
            ".*_gate/b": Read("vector", (), (0, 1)),
            "conv/w": Read("vector", (), (1,), (0,)),
            "conv/b|a_param": GAIN,
            "decoder": READOUT,
        },
    )


def rg_lru_of_wider_blocks() -> Form:
    """Each block sums over a fixed fraction of the width."""
    base, target = {"n": 16, "blocks": 2}, {"n": 64, "blocks": 2}
    return rg_lru("rg-lru, wider blocks", base, target, HIDDEN)


def rg_lru_of_more_blocks() -> Form:
    """As RecurrentGemma grows: each block sums over as much as before, and more are side by side."""
    base, target = {"n": 16, "blocks": 4}, {"n": 64, "blocks": 16}
    return rg_lru("rg-lru, more blocks", base, target, INPUT)


def additive_attention() -> Form:
    """Bahdanau's scores: a sum over the width of an activation times a vector."""

    def init(n):
        k = keys()
        return {
            "embed": normal(next(k), WORDS, n, scale=1.0),
            "query": matrix(next(k), n, n),
            "key": matrix(next(k), n, n),
            "bias": jnp.zeros(n),
            "v": normal(next(k), n, scale=n**-0.5),
            "out": matrix(next(k), n, WORDS),
        }

    def apply(p, tokens):
        h = jnp.tanh(p["embed"][tokens])
        both = jnp.tanh(h[-1] @ p["query"] + h @ p["key"] + p["bias"])
        context = softmax(jnp.sum(both * p["v"], -1)) @ h
        return (context + h[-1]) @ p["out"]

    return Form(
        "additive attention",
        init,
        apply,
        TOKENS,
        base=16,
        target=64,
        rows={
            "embed": EMBEDDING,
            "query|key": HIDDEN,
            "bias": VECTOR,
            "v|out": OUTPUT,
        },
        reads={
            "embed": TABLE,
            "query|key": MATRIX,
            "bias": GAIN,
            "v": Read("matrix", (0,)),
            "out": READOUT,
        },
        notes=(("v", "forward"),),
    )


FORMS = (
    lstm(),
    gru(),
    s5(),
    lru(),
    mamba(),
    rg_lru_of_wider_blocks(),
    rg_lru_of_more_blocks(),
    additive_attention(),
)
