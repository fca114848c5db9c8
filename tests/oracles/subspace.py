"""Oracles of methods that act in a few dimensions, and of the recipes that stand on them.

Every matrix is turned to lie on its side, `[small, large]`, at the start and back at the end.
Random numbers are those of `jax.random` under the keys that the library says it uses.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from entry import entry, golden

import gradkit as gk

SHAPES = {"conv": (2, 2, 3, 4), "square": (4, 4), "tall": (8, 3), "wide": (3, 8)}
WITH_BIAS = {"bias": (4,), **SHAPES}
BY_ORDER = {
    "partition_norms": "leaves draw by their order, so each group draws for itself"
}
TRACE = {"inner": optax.trace(0.9)}


def wide(g):
    """The leaf as a matrix with no more rows than columns."""
    matrix = g.reshape(-1, g.shape[-1])
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def tall(g):
    """The leaf as a matrix with no fewer rows than columns."""
    matrix = g.reshape(-1, g.shape[-1])
    return matrix.T if matrix.shape[0] < matrix.shape[1] else matrix


def unwide(matrix, g):
    """The way back from `wide`."""
    *rows, cols = g.shape
    return (matrix.T if np.prod(rows) > cols else matrix).reshape(g.shape)


def signed(p):
    """`p` with the entry of largest size in each column positive."""
    return p * np.sign(p[np.abs(p).argmax(0), np.arange(p.shape[1])])


def principal(g, rank):
    """The first left singular vectors."""
    return signed(np.linalg.svd(g)[0][:, :rank])


def orthonormal(x):
    """Gram and Schmidt, column by column."""
    q = np.zeros_like(x)
    for j in range(x.shape[1]):
        v = x[:, j] - q @ (q.T @ x[:, j])
        v = v - q @ (q.T @ v)
        q[:, j] = v / np.linalg.norm(v)
    return q


def normal(key, *shape):
    """Normal numbers in float64."""
    with jax.enable_x64(True):
        return np.asarray(jax.random.normal(key, shape, jnp.float64))


def spread(seed, n):
    """Each place and the seed, mixed to a number in [-1, 1)."""
    for place in range(n):
        x = int(seed) + 0x9E3779B9 * place
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x % 2**32 ^ x % 2**32 >> shift) * factor
        yield (x + 2**31) % 2**32 / 2**31 - 1


def columns(key, n, rank):
    """Uniform numbers `[n, rank]`, a column of each seed drawn."""
    seeds = jax.random.bits(key, (rank,), jnp.uint32)
    return np.array([list(spread(seed, n)) for seed in seeds]).T


class Trace:
    """`optax.trace(0.9)`."""

    def __init__(self):
        self.m = 0.0

    def __call__(self, g):
        self.m = 0.9 * self.m + g
        return self.m


class Adam:
    """Adam of the releases, where eps is added before debiasing."""

    def __init__(self, b1, b2, eps):
        self.b1, self.b2, self.eps = b1, b2, eps
        self.t, self.m, self.v = 0, 0.0, 0.0

    def biased(self, g):
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        return self.m / (np.sqrt(self.v) + self.eps)

    def debias(self):
        return np.sqrt(1 - self.b2**self.t) / (1 - self.b1**self.t)

    def __call__(self, g):
        return self.biased(g) * self.debias()


class Limiter:
    """The norm-growth limiter."""

    def __init__(self, growth, eps):
        self.growth, self.eps, self.last = growth, eps, None

    def __call__(self, s):
        if self.last is not None:
            ratio = np.linalg.norm(s) / (self.last + self.eps)
            s = s * self.growth / max(ratio, self.growth)
        self.last = np.linalg.norm(s)
        return s


def svd_bases(gs, rank, every):
    """The wide gradients, each with the basis at that step."""
    for t, g in enumerate(map(wide, gs)):
        if t % every == 0:
            p = principal(g, rank)
        yield p, g


def inside(bases, gs, inner, scale):
    """GaLore: `scale p inner(p^T g)`."""
    for (p, g), leaf in zip(bases, gs):
        yield unwide(scale * p @ inner(p.T @ g), leaf)


def recovered(bases, gs, inner, scale, growth, eps):
    """Fira's release, with `inner` for its undebiased Adam."""
    limiter = Limiter(growth, eps)
    for (p, g), leaf in zip(bases, gs):
        r = p.T @ g
        d = inner(r)
        gain = np.linalg.norm(d, axis=0) / (np.linalg.norm(r, axis=0) + eps)
        s = limiter((g - scale * p @ r) * gain)
        yield unwide(scale * p @ d + s, leaf)


def rescaled(bases, gs, inner, scale, growth, eps, axis):
    """APOLLO, `axis` 0 by channels, None by tensors."""
    limiter = Limiter(growth, eps)
    for (p, g), leaf in zip(bases, gs):
        r = p.T @ g
        d = inner(r)
        gain = np.linalg.norm(d, axis=axis) / (np.linalg.norm(r, axis=axis) + eps)
        yield unwide(scale * limiter(g * gain), leaf)


def by_leaf(run, gs, *ps):
    """A run of each leaf, `run(i, its gradients)`, as one run of the tree."""
    names = sorted(gs[0])
    runs = {k: list(run(i, [g[k] for g in gs])) for i, k in enumerate(names)}
    for t in range(len(gs)):
        yield {k: runs[k][t] for k in names}


def keys(key, leaves, steps):
    """The keys that the leaves start from, and those of each update."""
    *starts, key = jax.random.split(jax.random.key(key), leaves + 1)
    now = []
    for _ in range(steps):
        one, key = jax.random.split(key)
        now.append(one)
    return starts, now


@entry(
    "project_by_svd",
    shapes=SHAPES,
    fixed={"side": "large", **TRACE},
    rank=2,
    every=5,
    scale=0.5,
)
def project_by_svd(gs, ps, rank, every, scale):
    """On the large side; `galore` is on the small one."""
    trace = Trace()
    for t, (leaf, g) in enumerate(zip(gs, map(tall, gs))):
        if t % every == 0:
            p = principal(g, rank)
        u = scale * p @ trace(p.T @ g)
        yield (u if u.shape[1] == leaf.shape[-1] else u.T).reshape(leaf.shape)


@entry(
    "project_by_fira",
    shapes=SHAPES,
    fixed=TRACE,
    rank=2,
    every=5,
    scale=0.5,
    growth=1.01,
    eps=1e-2,
)
def project_by_fira(gs, ps, rank, every, scale, growth, eps):
    bases = svd_bases(gs, rank, every)
    yield from recovered(bases, gs, Trace(), scale, growth, eps)


@entry(
    "project_by_range_finder",
    whole=True,
    shapes={"a": (12, 14), "b": (14, 12), "c": (3, 8)},
    excused=BY_ORDER,
    fixed=TRACE,
    rank=2,
    every=5,
    scale=0.5,
    key=7,
)
def project_by_range_finder(gs, ps, rank, every, scale, key):
    leaves = len(gs[0])
    _, now = keys(key, leaves, len(gs))

    def bases(i, gs):
        for t, g in enumerate(map(wide, gs)):
            if t == 0 or (t - i * every // leaves) % every == 0:
                own = jax.random.fold_in(jax.random.fold_in(now[t], i), 0)
                q = orthonormal(g @ columns(own, g.shape[1], min(rank + 8, len(g))))
                p = signed(q @ np.linalg.svd(q.T @ g)[0][:, :rank])
            yield p, g

    yield from by_leaf(lambda i, gs: inside(bases(i, gs), gs, Trace(), scale), gs)


@entry(
    "project_by_power_iteration",
    whole=True,
    shapes=SHAPES,
    excused=BY_ORDER,
    fixed=TRACE,
    rank=2,
    every=3,
    scale=0.5,
    key=7,
)
def project_by_power_iteration(gs, ps, rank, every, scale, key):
    starts, _ = keys(key, len(gs[0]), len(gs))

    def bases(i, gs):
        p = orthonormal(normal(starts[i], len(wide(gs[0])), rank))
        for t, g in enumerate(map(wide, gs)):
            if t % every == 0:
                p = orthonormal(g @ (g.T @ p))
            yield p, g

    yield from by_leaf(lambda i, gs: inside(bases(i, gs), gs, Trace(), scale), gs)


@entry("project_by_dct", shapes=SHAPES, fixed=TRACE, rank=2, overlap=0.8, scale=0.5)
def project_by_dct(gs, ps, rank, overlap, scale):
    first, last = 1.0, 0.0

    def bases():
        nonlocal first, last
        for g in map(wide, gs):
            m = len(g)
            c = np.cos(np.pi / m * np.outer(np.arange(m) + 0.5, np.arange(m)))
            c = c / np.linalg.norm(c, axis=0)
            renew = last <= overlap * first
            if renew:
                energy = np.sum((c.T @ g) ** 2, axis=1)
                p = c[:, np.argsort(-energy)[:rank]]
            last = np.linalg.norm(p.T @ g) / np.linalg.norm(g)
            first = last if renew else first
            yield p, g

    yield from inside(bases(), gs, Trace(), scale)


def shadows(gs, rank, every, i, now):
    """APOLLO's bases: a seed a column, drawn anew now and then."""
    for t, g in enumerate(map(wide, gs)):
        if t % every == 0:
            own = jax.random.fold_in(now[t], i)
            p = np.where(columns(own, len(g), rank) < 0, -1.0, 1.0)
        yield p / np.sqrt(rank), g


@entry(
    "project_by_random",
    whole=True,
    shapes=SHAPES,
    excused=BY_ORDER,
    fixed={"inner": optax.scale_by_sign()},
    rank=2,
    every=5,
    scale=0.5,
    growth=1.01,
    eps=1e-2,
    key=7,
)
def project_by_random(gs, ps, rank, every, scale, growth, eps, key):
    _, now = keys(key, len(gs[0]), len(gs))

    def run(i, gs):
        bases = shadows(gs, rank, every, i, now)
        return rescaled(bases, gs, np.sign, scale, growth, eps, axis=0)

    yield from by_leaf(run, gs)


def carried(bases, adam):
    """The bases, while the averages of `adam` are turned into each new one."""
    last = None
    for p, g in bases:
        if last is not None and p is not last:
            c = p.T @ last
            m = adam.m / (1 - adam.b1**adam.t)
            v = adam.v / (1 - adam.b2**adam.t)
            v = np.abs(c**2 @ (v - m**2) + (c @ m) ** 2)
            adam.m, adam.v = c @ adam.m, v * (1 - adam.b2**adam.t)
        last = p
        yield p, g


def jumps(gs, rank, every, i, now):
    """GrassJump's bases."""
    for t, g in enumerate(map(wide, gs)):
        if t % every == 0:
            p = orthonormal(normal(jax.random.fold_in(now[t], i), len(g), rank))
        yield p, g


def walks(gs, rank, every, angle, i, now):
    """GrassWalk's bases, by the geodesic of Edelman, Arias and Smith."""
    for t, g in enumerate(map(wide, gs)):
        if t == 0:
            p = principal(g, rank)
        elif t % every == 0:
            z = normal(jax.random.fold_in(now[t], i), len(g), rank)
            x = angle / np.sqrt(len(g)) * (z - p @ (p.T @ z))
            u, s, vt = np.linalg.svd(x, full_matrices=False)
            p = p @ vt.T @ np.diag(np.cos(s)) @ vt + u @ np.diag(np.sin(s)) @ vt
            p = orthonormal(p)
        yield p, g


GRASS = {"rank": 2, "every": 1, "scale": 0.5, "growth": 1.01, "eps": 1e-2}


@entry(
    "project_by_grass_walk",
    whole=True,
    shapes=SHAPES,
    fixed={"inner": gk.scale_by_adam(0.9, 0.99, 1e-3)},
    angle=0.5,
    b1=0.9,
    b2=0.99,
    key=7,
    **GRASS,
)
def project_by_grass_walk(gs, ps, rank, every, scale, angle, growth, eps, b1, b2, key):
    _, now = keys(key, len(gs[0]), len(gs))

    def run(i, gs):
        adam = DebiasedAdam(b1, b2, 1e-3)
        bases = carried(walks(gs, rank, every, angle, i, now), adam)
        return recovered(bases, gs, adam, scale, growth, eps)

    yield from by_leaf(run, gs)


@entry(
    "project_by_grass_jump",
    whole=True,
    shapes=SHAPES,
    excused=BY_ORDER,
    fixed={"inner": gk.scale_by_adam(0.9, 0.99, 1e-3)},
    b1=0.9,
    b2=0.99,
    key=7,
    **GRASS,
)
def project_by_grass_jump(gs, ps, rank, every, scale, growth, eps, b1, b2, key):
    _, now = keys(key, len(gs[0]), len(gs))

    def run(i, gs):
        adam = DebiasedAdam(b1, b2, 1e-3)
        bases = carried(jumps(gs, rank, every, i, now), adam)
        return recovered(bases, gs, adam, scale, growth, eps)

    yield from by_leaf(run, gs)


class DebiasedAdam(Adam):
    """Adam of the paper, where eps is added after debiasing."""

    def __call__(self, g):
        super().biased(g)
        m, v = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        return m / (np.sqrt(v) + self.eps)


def momentum_inside(gs, rank, every, average):
    """Subspace momentum: `average` begins again in each new basis."""
    inner = average()
    for t, ((p, g), leaf) in enumerate(zip(svd_bases(gs, rank, every), gs)):
        inner = average() if t % every == 0 else inner
        r = p.T @ g
        yield unwide(p @ inner(r) + g - p @ r, leaf)


@entry("project_by_subspace_momentum", shapes=SHAPES, fixed=TRACE, rank=2, every=5)
def project_by_subspace_momentum(gs, ps, rank, every):
    yield from momentum_inside(gs, rank, every, Trace)


@entry(
    "galore",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    scale=0.5,
    b1=0.9,
    b2=0.99,
    eps=1e-2,
    weight_decay=0.1,
)
def galore(gs, ps, learning_rate, rank, every, scale, b1, b2, eps, weight_decay):
    adam = Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        directions = inside(svd_bases(gs, rank, every), gs, adam, scale)
    else:
        directions = map(adam, gs)
    for d, p in zip(directions, ps):
        yield -learning_rate * (d + weight_decay * p)


@entry(
    "fira",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    scale=0.5,
    growth=1.01,
    b1=0.9,
    b2=0.99,
    eps=1e-2,
    column_eps=1e-2,
    weight_decay=0.1,
)
def fira(
    gs,
    ps,
    learning_rate,
    rank,
    every,
    scale,
    growth,
    b1,
    b2,
    eps,
    column_eps,
    weight_decay,
):
    adam = Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        bases = svd_bases(gs, rank, every)
        directions = recovered(bases, gs, adam.biased, scale, growth, column_eps)
    else:
        directions = map(adam.biased, gs)
    for d, p in zip(directions, ps):
        yield -learning_rate * (adam.debias() * d + weight_decay * p)


golden(
    "galore_adamw",  # its release decays what the update left: (p + u) (1 - lr wd)
    lambda: optax.chain(
        gk.galore(1e-2, rank=3, every=1000, b2=0.99),
        optax.scale(1 - 1e-2 * 0.02),
        gk.decay_by_weight(1e-2 * 0.02),
    ),
    transpose=True,
)


def hadamard(n):
    """Sylvester's matrix, orthonormal."""
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


@entry(
    "project_by_random_subspace",
    whole=True,
    shapes={"bias": (4,), "gain": (), "kernel": (6, 4)},
    fixed=TRACE,
    excused={
        "state_bytes": "what `inner` keeps of one vector is no formula of a leaf",
        **BY_ORDER,
    },
    dimension=5,
    key=7,
)
def project_by_random_subspace(gs, ps, dimension, key):
    first, later = jax.random.split(jax.random.key(key))
    names, n, trace = sorted(gs[0]), 8, Trace()
    sizes = [gs[0][k].size for k in names]
    with jax.enable_x64(True):
        signs = np.asarray(jax.random.rademacher(first, (dimension,), jnp.float64))
    order = np.asarray(jax.random.permutation(jax.random.fold_in(later, 3), n))
    h = hadamard(n)
    base = (h[order] @ np.eye(n, dimension)) * signs  # the order, of H diag(signs)
    p = []
    for i, size in enumerate(sizes):
        blocks = normal(jax.random.fold_in(later, i), -(-size // n), n)
        p.append(np.concatenate([h @ np.diag(b) @ base for b in blocks])[:size])
    p = np.concatenate(p) * np.sqrt(n / sum(sizes))
    for g in gs:
        flat = np.concatenate([g[k].ravel() for k in names])
        parts = np.split(p @ trace(p.T @ flat), np.cumsum(sizes)[:-1])
        yield {k: x.reshape(g[k].shape) for k, x in zip(names, parts)}


def memory(grads):
    """Two directions for each leaf, orthonormal but for scale; the second is free."""
    rows = lambda g: g.size // g.shape[-1]
    first = lambda g: jnp.full((rows(g), 1), max(rows(g), 1) ** -0.5, g.dtype)
    pair = lambda g: jnp.concatenate([first(g), 0 * first(g)], 1)
    return {"basis": jax.tree.map(pair, grads)}


@entry("project_by_null_space", shapes=SHAPES, extra=memory)
def project_by_null_space(gs, ps):
    for g in gs:
        matrix = g.reshape(-1, g.shape[-1])
        yield (matrix - matrix.mean(0)).reshape(g.shape)


@entry("project_by_weight_norm", shapes=SHAPES, fixed=TRACE, rank=2, every=5, scale=0.5)
def project_by_weight_norm(gs, ps, rank, every, scale):
    directions, lengths = Trace(), Trace()
    yield from weight_norm(gs, ps, rank, every, scale, directions, lengths)


def weight_norm(gs, ps, rank, every, scale, directions, lengths):
    """GradNormLoRP by the Jacobian of each column, `l v / |v|`."""
    slopes, turns, jacobians = [], [], []
    for g, w in zip(gs, ps):
        g, w = (x.reshape(-1, x.shape[-1]) for x in (g, w))
        columns = []
        for c in w.T:
            n = np.linalg.norm(c)
            columns.append((c / n, n * (np.eye(len(c)) - np.outer(c, c) / n**2)))
        slopes.append(np.array([v @ x for (v, _), x in zip(columns, g.T)]))
        turns.append(np.array([j.T @ x for (_, j), x in zip(columns, g.T)]).T)
        jacobians.append(columns)
    steps = inside(svd_bases(turns, rank, every), turns, directions, scale)
    for g, s, d, columns in zip(gs, slopes, steps, jacobians):
        grow = lengths(s)
        moved = [v * m + j @ x for (v, j), m, x in zip(columns, grow, d.T)]
        yield np.array(moved).T.reshape(g.shape)


ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-2, "weight_decay": 0.1}


def recipe(run, gs, ps, adams, learning_rate, weight_decay):
    """`run(i, gs, adam)` for matrices, counted from 0; Adam for the rest."""
    names = sorted(gs[0])
    matrices = [k for k in names if gs[0][k].ndim > 1]
    runs = {}
    for k in names:
        own, adam = [g[k] for g in gs], adams()
        is_matrix = k in matrices
        ds = run(matrices.index(k), own, adam) if is_matrix else map(adam, own)
        runs[k] = [-learning_rate * (d + weight_decay * p[k]) for d, p in zip(ds, ps)]
    for t in range(len(gs)):
        yield {k: runs[k][t] for k in names}


def apollo_steps(
    gs, ps, learning_rate, rank, every, scale, growth, b1, b2, eps, shadow_eps,
    weight_decay, key, axis,
):  # fmt: skip
    """APOLLO's release: Adam debiased last."""
    _, now = keys(key, sum(g.ndim > 1 for g in gs[0].values()), len(gs))

    def run(i, gs, adam):
        bases = shadows(gs, rank, every, i, now)
        limits = scale, growth, shadow_eps, axis
        for d in rescaled(bases, gs, adam.biased, *limits):
            yield adam.debias() * d

    adams = lambda: Adam(b1, b2, eps)
    yield from recipe(run, gs, ps, adams, learning_rate, weight_decay)


APOLLO = {"scale": 0.5, "growth": 1.01, "shadow_eps": 1e-2, "key": 7, **ADAM}


@entry(
    "apollo",
    whole=True,
    shapes=WITH_BIAS,
    excused=BY_ORDER,
    learning_rate=0.1,
    rank=2,
    every=5,
    **APOLLO,
)
def apollo(gs, ps, **hyper):
    yield from apollo_steps(gs, ps, axis=0, **hyper)


@entry(
    "apollo_mini",
    whole=True,
    shapes=WITH_BIAS,
    excused=BY_ORDER,
    learning_rate=0.1,
    every=5,
    **APOLLO,
)
def apollo_mini(gs, ps, **hyper):
    yield from apollo_steps(gs, ps, rank=1, axis=None, **hyper)


GRASS_RECIPE = {"learning_rate": 0.1, "column_eps": 1e-2, "key": 7, **ADAM}
GRASS_RECIPE |= {k: v for k, v in GRASS.items() if k != "eps"}


@entry(
    "grass_walk",
    whole=True,
    shapes=WITH_BIAS,
    angle=0.5,
    **GRASS_RECIPE,
)
def grass_walk(gs, ps, angle, **hyper):
    find = lambda gs, rank, every, i, now: walks(gs, rank, every, angle, i, now)
    yield from grass_steps(gs, ps, find, **hyper)


@entry("grass_jump", whole=True, shapes=WITH_BIAS, excused=BY_ORDER, **GRASS_RECIPE)
def grass_jump(gs, ps, **hyper):
    yield from grass_steps(gs, ps, jumps, **hyper)


def grass_steps(
    gs, ps, find, learning_rate, rank, every, scale, growth, b1, b2, eps, column_eps,
    weight_decay, key,
):  # fmt: skip
    """Adam on one of the Grassmann subspaces."""
    _, now = keys(key, sum(g.ndim > 1 for g in gs[0].values()), len(gs))

    def run(i, gs, adam):
        bases = carried(find(gs, rank, every, i, now), adam)
        return recovered(bases, gs, adam, scale, growth, column_eps)

    adams = lambda: DebiasedAdam(b1, b2, eps)
    yield from recipe(run, gs, ps, adams, learning_rate, weight_decay)


class Average:
    """An average that is not debiased."""

    def __init__(self, decay):
        self.decay, self.m = decay, 0.0

    def __call__(self, g):
        self.m = self.decay * self.m + (1 - self.decay) * g
        return self.m


@entry(
    "snsm",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    b1=0.9,
    b2=0.99,
    eps=1e-2,
    weight_decay=0.1,
)
def snsm(gs, ps, learning_rate, rank, every, b1, b2, eps, weight_decay):
    average = lambda: Average(b1)
    if gs[0].ndim > 1:
        numerators = momentum_inside(gs, rank, every, average)
    else:
        numerators = map(average(), gs)
    size = gs[0].size
    k = max(k for k in range(1, size + 1) if size % k == 0 and k * k <= size)
    v = 0.0
    for t, (d, g, p) in enumerate(zip(numerators, gs, ps), 1):
        v = b2 * v + (1 - b2) * np.sum(g.reshape(-1, k) ** 2, axis=1)
        root = np.repeat(np.sqrt(v) + eps, k).reshape(g.shape)
        debias = np.sqrt(1 - b2**t) / (1 - b1**t)
        yield -learning_rate * (debias * d / root + weight_decay * p)


@entry(
    "lorp",
    shapes=WITH_BIAS,
    learning_rate=0.1,
    rank=2,
    every=5,
    scale=0.5,
    b1=0.9,
    b2=0.99,
    eps=1e-2,
    weight_decay=0.1,
)
def lorp(gs, ps, learning_rate, rank, every, scale, b1, b2, eps, weight_decay):
    adam, lengths = Adam(b1, b2, eps), Adam(b1, b2, eps)
    if gs[0].ndim > 1:
        directions = weight_norm(gs, ps, rank, every, scale, adam, lengths)
    else:
        directions = map(adam, gs)
    for d, p in zip(directions, ps):
        yield -learning_rate * (d + weight_decay * p)
