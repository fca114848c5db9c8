"""Image models: patches and how they are pooled, tokens mixed, modulated, convolved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from zoo.form import (
    CONVOLUTION,
    EMBEDDING,
    FIXED,
    FROM_HEADS,
    GAIN,
    HIDDEN,
    INPUT,
    MATRIX,
    OUTPUT,
    READOUT,
    TABLE,
    TO_HEADS,
    VECTOR,
    Form,
    Read,
    from_fixed,
    hidden,
    keys,
    normal,
    to_fixed,
)

CLASSES, HEAD = 5, 8  # classes of images, the size of a head
IMAGES = np.linspace(-1, 1, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
WIDTHS = {"base": 16, "target": 64}
DEEPER = {"base": {"n": 16, "layers": 2}, "target": {"n": 64, "layers": 4}}
HIDDEN_IN_LAYERS, VECTOR_IN_LAYERS = hidden(depth=2), from_fixed("vector", depth=2)
HEAD_BIAS = Read("vector", (), (0, 1))
TOKEN = Read("vector", (), (2,))  # [1, 1 or positions, features]


def conv(x, kernel, stride=1, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def normalized(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-6)


def attend(q, k, v):
    scores = jnp.einsum("bqhc,bkhc->bhqk", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), v)


# ---------------------------------------------------------------- patches


class Mlp(linen.Module):
    hidden: int

    @linen.compact
    def __call__(self, x):
        h = linen.gelu(linen.Dense(self.hidden)(x))
        return linen.Dense(x.shape[-1])(h)


class VitBlock(linen.Module):
    @linen.compact
    def __call__(self, x):
        n = x.shape[-1]
        h = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(n // HEAD)(h, h)
        return x + Mlp(4 * n)(linen.LayerNorm()(x))


class MapHead(linen.Module):
    """A learned query, the same for every image, attends to the tokens."""

    @linen.compact
    def __call__(self, x):
        n = x.shape[-1]
        probe = self.param("probe", linen.initializers.xavier_uniform(), (1, 1, n))
        probe = jnp.tile(probe, [len(x), 1, 1])
        x = linen.MultiHeadDotProductAttention(n // HEAD)(probe, x)
        return (x + Mlp(4 * n)(linen.LayerNorm()(x)))[:, 0]


class Vit(linen.Module):
    width: int
    depth: int
    pool: str

    @linen.compact
    def __call__(self, images):
        x = linen.Conv(self.width, (4, 4), (4, 4), "VALID", name="embedding")(images)
        x = x.reshape(len(x), -1, self.width)
        small, shape = linen.initializers.normal(0.02), (1, x.shape[1], self.width)
        x = x + self.param("pos_embedding", small, shape)
        if self.pool == "tok":
            cls = self.param("cls", linen.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.tile(cls, [len(x), 1, 1]), x], axis=1)
        for i in range(self.depth):
            x = VitBlock(name=f"encoderblock_{i}")(x)
        x = linen.LayerNorm(name="encoder_norm")(x)
        pools = {
            "gap": lambda x: x.mean(1),
            "tok": lambda x: x[:, 0],
            "map": MapHead(name="map") if self.pool == "map" else None,
        }
        return linen.Dense(CLASSES, name="head")(pools[self.pool](x))


ATTENTION = "MultiHeadDotProductAttention_0"


def vit(pool: str, notes=()):
    """Pooled by a mean, by a class token, or by attention of a learned query."""

    def init(n, layers):
        return Vit(n, layers, pool).init(jax.random.key(0), IMAGES)["params"]

    def apply(p, images):
        depth = sum(name.startswith("encoderblock") for name in p)
        model = Vit(p["head"]["kernel"].shape[0], depth, pool)
        return model.apply({"params": p}, images)

    layers = r"encoderblock_\d"
    rows = {
        "embedding/kernel": INPUT,
        "embedding/bias|pos_embedding|encoder_norm/.*": VECTOR,
        f"{layers}/.*/kernel": HIDDEN_IN_LAYERS,
        f"{layers}/.*/(bias|scale)": VECTOR_IN_LAYERS,
        "head/kernel": OUTPUT,
        "head/bias": FIXED,
    }
    reads = {
        "embedding/kernel": CONVOLUTION,
        "pos_embedding": TOKEN,
        f".*/{ATTENTION}/(query|key|value)/kernel": TO_HEADS,
        f".*/{ATTENTION}/(query|key|value)/bias": HEAD_BIAS,
        f".*/{ATTENTION}/out/kernel": FROM_HEADS,
        r".*/Mlp_0/Dense_\d/kernel": MATRIX,
        r"(embedding|.*/out|.*/Dense_\d|head)/bias|.*[nN]orm(_\d)?/.*": GAIN,
        "head/kernel": READOUT,
    }
    if pool == "tok":
        rows, reads = rows | {"cls": VECTOR}, reads | {"cls": TOKEN}
    if pool == "map":
        rows |= {
            "map/.*/kernel": HIDDEN,
            "map/(probe|.*/bias|.*/scale)": VECTOR,
        }
        reads |= {"map/probe": TOKEN}
    return Form(
        f"vit, {pool}",
        init,
        apply,
        IMAGES,
        **DEEPER,
        rows=rows,
        reads=reads,
        notes=notes,
    )


class MixerBlock(linen.Module):
    @linen.compact
    def __call__(self, x):
        n = x.shape[-1]
        y = jnp.swapaxes(linen.LayerNorm()(x), 1, 2)
        x = x + jnp.swapaxes(Mlp(n // 2, name="token_mixing")(y), 1, 2)
        return x + Mlp(4 * n, name="channel_mixing")(linen.LayerNorm()(x))


class Mixer(linen.Module):
    width: int
    depth: int

    @linen.compact
    def __call__(self, images):
        x = linen.Conv(self.width, (4, 4), (4, 4), name="stem")(images)
        x = x.reshape(len(x), -1, self.width)
        for _ in range(self.depth):
            x = MixerBlock()(x)
        x = linen.LayerNorm(name="pre_head_layer_norm")(x).mean(1)
        return linen.Dense(CLASSES, kernel_init=linen.initializers.zeros, name="head")(
            x
        )


def mixer():
    """Tokens, as many as they are, are mixed through a width: in and out of it."""

    def init(n, layers):
        return Mixer(n, layers).init(jax.random.key(0), IMAGES)["params"]

    def apply(p, images):
        depth = sum(name.startswith("MixerBlock") for name in p)
        model = Mixer(p["head"]["kernel"].shape[0], depth)
        return model.apply({"params": p}, images)

    block = r"MixerBlock_\d"
    return Form(
        "mixer",
        init,
        apply,
        IMAGES,
        **DEEPER,
        rows={
            "stem/kernel": INPUT,
            "stem/bias|pre_head_layer_norm/.*": VECTOR,
            f"{block}/token_mixing/Dense_0/kernel": from_fixed("input", depth=2),
            f"{block}/token_mixing/Dense_1/kernel": to_fixed(depth=2),
            f"{block}/token_mixing/Dense_1/bias": FIXED._replace(depth=2),
            f"{block}/channel_mixing/.*/kernel": HIDDEN_IN_LAYERS,
            f"{block}/(channel_mixing/.*|token_mixing/Dense_0)/bias": VECTOR_IN_LAYERS,
            f"{block}/LayerNorm_./.*": VECTOR_IN_LAYERS,
            "head/kernel": OUTPUT,
            "head/bias": FIXED,
        },
        reads={
            "stem/kernel": CONVOLUTION,
            f"{block}/.*_mixing/.*/kernel": MATRIX,
            "head/kernel": READOUT,
            ".*/(bias|scale)": GAIN,
        },
        notes=((f"{block}/token_mixing/Dense_1/kernel", "forward"),),
    )


# ---------------------------------------------------------------- conditions and latents


def dit():
    """Patches of noise, modulated by time and class: one zero kernel, cut in six."""
    noise = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 4, 4, 4)
    example = noise, np.array([0.2, 0.7], np.float32), np.array([1, 3], np.int32)
    positions = lambda n: np.sin(np.arange(4 * n, dtype=np.float32).reshape(4, n))

    def init(n, layers):
        k = keys()

        def dense(i, o, scale=None):
            scale = (2 / (i + o)) ** 0.5 if scale is None else scale
            return {"kernel": normal(next(k), i, o, scale=scale), "bias": jnp.zeros(o)}

        block = lambda: {
            "adaLN": dense(n, 6 * n, 0.0),
            "qkv": dense(n, 3 * n),
            "proj": dense(n, n),
            "fc1": dense(n, 4 * n),
            "fc2": dense(4 * n, n),
        }
        return {
            "x_embedder": dense(16, n),
            "t_embedder": [dense(8, n, 0.02), dense(n, n, 0.02)],
            "y_embedder": normal(next(k), CLASSES + 1, n, scale=0.02),
            "blocks": [block() for _ in range(layers)],
            "final": {"adaLN": dense(n, 2 * n, 0.0), "linear": dense(n, 16, 0.0)},
        }

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def cut(p, c, parts):
        return jnp.split(dense(p, jax.nn.silu(c))[:, None], parts, axis=-1)

    def block(p, x, c):
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = cut(p["adaLN"], c, 6)
        h = normalized(x) * (1 + scale) + shift
        qkv = dense(p["qkv"], h).reshape(*x.shape[:2], 3, -1, HEAD)
        y = attend(*(qkv[:, :, i] for i in range(3))).reshape(x.shape)
        x = x + gate * dense(p["proj"], y)
        h = normalized(x) * (1 + scale_mlp) + shift_mlp
        return x + gate_mlp * dense(p["fc2"], jax.nn.gelu(dense(p["fc1"], h)))

    def patches(x):
        b, h, w, channels = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, channels)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * w // 4, 4 * channels)

    def apply(p, noised, time, label):
        angles = 1e3 * time[:, None] * 1e4 ** -np.linspace(0, 1, 4, dtype=np.float32)
        t = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
        t = dense(p["t_embedder"][1], jax.nn.silu(dense(p["t_embedder"][0], t)))
        c = t + p["y_embedder"][label]
        x = dense(p["x_embedder"], patches(noised)) + positions(c.shape[-1])
        for each in p["blocks"]:
            x = block(each, x, c)
        shift, scale = cut(p["final"]["adaLN"], c, 2)
        return dense(p["final"]["linear"], normalized(x) * (1 + scale) + shift)

    return Form(
        "dit",
        init,
        apply,
        example,
        **DEEPER,
        rows={
            "(x_embedder|t_embedder/0)/kernel": INPUT,
            "y_embedder": EMBEDDING,
            "(t_embedder/1|final/adaLN)/kernel": HIDDEN,
            "blocks/.*/kernel": HIDDEN_IN_LAYERS,
            "blocks/.*/bias": VECTOR_IN_LAYERS,
            "(x_embedder|t_embedder/.|final/adaLN)/bias": VECTOR,
            "final/linear/kernel": OUTPUT,
            "final/linear/bias": FIXED,
        },
        reads={
            "(x_embedder|t_embedder/.|blocks/./(proj|fc1|fc2))/kernel": MATRIX,
            "y_embedder": TABLE,
            "blocks/./adaLN/kernel": MATRIX._replace(blocks=6),
            "blocks/./qkv/kernel": MATRIX._replace(blocks=3),
            "final/adaLN/kernel": MATRIX._replace(blocks=2),
            "final/linear/kernel": READOUT,
            ".*/bias": GAIN,
        },
    )


def perceiver():
    """Latents, that are parameters, attend to the pixels, and then to each other."""
    latents = 6

    def init(n):
        k, dense = keys(), lambda i, o: normal(next(k), i, o, scale=i**-0.5)
        norm = lambda: {"scale": jnp.ones(n), "bias": jnp.zeros(n)}
        kernels = lambda i: {"q": dense(n, n), "k": dense(i, n), "v": dense(i, n)}
        return {
            "latents": normal(next(k), latents, n, scale=0.02),
            "cross": kernels(3) | {"o": dense(n, n), "norm": norm()},
            "self": kernels(n) | {"o": dense(n, n), "norm": norm()},
            "up": dense(n, 4 * n),
            "down": dense(4 * n, n),
            "head": dense(n, CLASSES),
        }

    def attention(p, x, read):
        q, k, v = ((a @ p[s]) for s, a in (("q", x), ("k", read), ("v", read)))
        y = attend(*(a.reshape(*a.shape[:2], -1, HEAD) for a in (q, k, v)))
        return y.reshape(x.shape) @ p["o"]

    def norm(p, x):
        return normalized(x) * p["norm"]["scale"] + p["norm"]["bias"]

    def apply(p, images):
        pixels = images.reshape(len(images), -1, 3)
        x = jnp.broadcast_to(p["latents"], (len(images), *p["latents"].shape))
        x = x + attention(p["cross"], norm(p["cross"], x), pixels)
        h = norm(p["self"], x)
        x = x + attention(p["self"], h, h)
        x = x + jax.nn.gelu(normalized(x) @ p["up"]) @ p["down"]
        return normalized(x).mean(1) @ p["head"]

    return Form(
        "perceiver",
        init,
        apply,
        IMAGES,
        **WIDTHS,
        rows={
            "latents|.*/norm/.*": VECTOR,
            "cross/[kv]": INPUT,
            "cross/[qo]|self/[qkvo]|up|down": HIDDEN,
            "head": OUTPUT,
        },
        reads={
            "latents": Read("vector", (), (1,)),
            ".*/norm/.*": GAIN,
            "(cross|self)/[qkvo]|up|down": MATRIX,
            "head": READOUT,
        },
    )


# ---------------------------------------------------------------- convolutions


def unet():
    """Twice as many channels a level, up again by transposed kernels, beside what went down."""

    def init(n):
        k = keys()

        def kernel(*shape, fan_in):
            return normal(next(k), *shape, scale=(2 / fan_in) ** 0.5)

        conv = lambda i, o: {
            "kernel": kernel(3, 3, i, o, fan_in=9 * i),
            "bias": jnp.zeros(o),
        }
        return {
            "down": [conv(3, n), conv(n, 2 * n)],
            "middle": conv(2 * n, 4 * n),
            "up": [
                kernel(2, 2, 4 * n, 2 * n, fan_in=4 * n),  # [height, width, in, out]
                kernel(2, 2, n, 2 * n, fan_in=2 * n),  # [height, width, out, in]
            ],
            "join": [conv(4 * n, 2 * n), conv(2 * n, n)],
            "out": kernel(1, 1, n, 2, fan_in=n),
        }

    def block(p, x):
        return jax.nn.relu(conv(x, p["kernel"]) + p["bias"])

    def smaller(x):
        b, h, w, channels = x.shape
        return x.reshape(b, h // 2, 2, w // 2, 2, channels).max((2, 4))

    larger = functools.partial(jax.lax.conv_transpose, strides=(2, 2), padding="SAME")

    def apply(p, images):
        first = block(p["down"][0], images)
        second = block(p["down"][1], smaller(first))
        x = larger(block(p["middle"], smaller(second)), p["up"][0])
        x = block(p["join"][0], jnp.concatenate([second, x], -1))
        x = larger(x, p["up"][1], transpose_kernel=True)
        x = block(p["join"][1], jnp.concatenate([first, x], -1))
        return conv(x, p["out"])

    return Form(
        "u-net",
        init,
        apply,
        IMAGES,
        **WIDTHS,
        rows={
            "down/0/kernel": INPUT,
            "(down/1|middle|join/.)/kernel|up/.": HIDDEN,
            ".*/bias": VECTOR,
            "out": OUTPUT,
        },
        reads={
            "(down/.|middle|join/.)/kernel|up/0": CONVOLUTION,
            "up/1": Read("convolution", (0, 1, 3), (2,)),
            ".*/bias": GAIN,
            "out": Read("readout", (2,), (3,)),
        },
    )


def resnet():
    """Convolutions of every channel, of groups, of all channels; batch norms and layer scales."""
    groups, size = 2, 4  # of one kernel their number stays, of another their size

    def init(n, layers):
        k = keys()

        def kernel(*shape):
            fan_in = shape[0] * shape[1] * shape[2]
            return normal(next(k), *shape, scale=(2 / fan_in) ** 0.5)

        norm = lambda n: {"gamma": jnp.ones(n), "beta": jnp.zeros(n)}
        block = lambda: {
            "norm": norm(n),
            "depthwise": kernel(3, 3, 1, n),
            "grouped": kernel(3, 3, n // groups, n),
            "group_width": kernel(3, 3, size, n),
            "expand": kernel(1, 1, n, 4 * n),
            "reduce": kernel(1, 1, 4 * n, n),
            "layer_scale": jnp.full(n, 1e-6),
        }
        return {
            "stem": kernel(3, 3, 3, n),
            "blocks": [block() for _ in range(layers)],
            "transition": kernel(3, 3, n, 2 * n),
            "shortcut": kernel(1, 1, n, 2 * n),
            "norm": norm(2 * n),
            "head": {
                "kernel": normal(next(k), 2 * n, CLASSES, scale=(2 * n) ** -0.5),
                "bias": jnp.zeros(CLASSES),
            },
        }

    def batch_norm(x, p):
        centred = x - x.mean((0, 1, 2))
        return (
            centred * jax.lax.rsqrt(centred.var((0, 1, 2)) + 1e-5) * p["gamma"]
            + p["beta"]
        )

    def block(p, x):
        n = x.shape[-1]
        h = conv(batch_norm(x, p["norm"]), p["depthwise"], groups=n)
        h = jax.nn.relu(conv(h, p["grouped"], groups=groups))
        h = jax.nn.relu(conv(h, p["group_width"], groups=n // size))
        h = conv(jax.nn.gelu(conv(h, p["expand"])), p["reduce"])
        return x + p["layer_scale"] * h

    def apply(p, images):
        x = conv(images, p["stem"])
        for each in p["blocks"]:
            x = block(each, x)
        x = conv(x, p["transition"], stride=2) + conv(x, p["shortcut"], stride=2)
        x = jax.nn.relu(batch_norm(x, p["norm"])).mean((1, 2))
        return x @ p["head"]["kernel"] + p["head"]["bias"]

    return Form(
        "resnet",
        init,
        apply,
        IMAGES,
        **DEEPER,
        rows={
            "stem": INPUT,
            "blocks/./(depthwise|group_width)": from_fixed("input", depth=2),
            "blocks/./(grouped|expand|reduce)": HIDDEN_IN_LAYERS,
            "blocks/./(norm/.*|layer_scale)": VECTOR_IN_LAYERS,
            "transition|shortcut": HIDDEN,
            "norm/.*": VECTOR,
            "head/kernel": OUTPUT,
            "head/bias": FIXED,
        },
        reads={
            "stem|transition|blocks/./(grouped|group_width)": CONVOLUTION,
            "blocks/./depthwise": Read("convolution", (0, 1), (3,)),
            "shortcut|blocks/./(expand|reduce)": Read("convolution", (2,), (3,)),
            "(blocks/./)?norm/.*|blocks/./layer_scale|head/bias": GAIN,
            "head/kernel": READOUT,
        },
    )


FORMS = (
    vit("gap"),
    vit("tok"),
    vit("map", (("map/probe|map/.*/query/kernel", "order"),)),
    mixer(),
    dit(),
    perceiver(),
    unet(),
    resnet(),
)
