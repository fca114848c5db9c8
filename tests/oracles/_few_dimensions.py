"""What oracles of methods that act in a few dimensions share.

Every matrix is turned to lie on its side, `[small, large]`, at the start and back at the end.
Random numbers are those of `jax.random` under the keys that the library says it uses.
"""

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = {"conv": (2, 2, 3, 4), "square": (4, 4), "tall": (8, 3), "wide": (3, 8)}
BY_ORDER = {
    "partition_norms": "leaves draw by their order, so each group draws for itself"
}
LIMITS = {"scale": 0.5, "growth": 1.01, "floor": 0.5}
GRASS = {"rank": 2, "every": 1, "eps": 1e-2, **LIMITS}


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
    """`p` with the sum of each column's entries times `2 + cos(k)` positive."""
    return p * np.sign((2 + np.cos(1 + np.arange(len(p)))) @ p)


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
    """Normal numbers, drawn in float32."""
    return np.float64(jax.random.normal(key, shape, jnp.float32))


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


def keys(key, leaves, steps):
    """The keys that the leaves start from, and those of each update."""
    *starts, key = jax.random.split(jax.random.key(key), leaves + 1)
    now = []
    for _ in range(steps):
        one, key = jax.random.split(key)
        now.append(one)
    return starts, now


def by_leaf(run, gs, *ps):
    """A run of each leaf, `run(i, its gradients)`, as one run of the tree."""
    names = sorted(gs[0])
    runs = {k: list(run(i, [g[k] for g in gs])) for i, k in enumerate(names)}
    for t in range(len(gs)):
        yield {k: runs[k][t] for k in names}


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


class DebiasedAdam(Adam):
    """Adam of the paper, where eps is added after debiasing."""

    def __call__(self, g):
        super().biased(g)
        m, v = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        return m / (np.sqrt(v) + self.eps)


class Limiter:
    """The norm-growth limiter; below the root mean square `floor` growth is free."""

    def __init__(self, growth, eps, floor=0.0):
        self.growth, self.eps, self.floor, self.last = growth, eps, floor, None

    def __call__(self, s):
        if self.last is not None:
            norm, free = np.linalg.norm(s), self.floor * s.size**0.5
            s = s * min(1, max(self.growth * (self.last + self.eps), free) / norm)
        self.last = np.linalg.norm(s)
        return s


def svd_bases(gs, rank, every):
    """The wide gradients, each with the basis at that step."""
    for t, g in enumerate(map(wide, gs)):
        if t % every == 0:
            p = principal(g, rank)
        yield p, g


def shadows(gs, rank, every, i, now):
    """APOLLO's bases: a seed a column, drawn anew now and then."""
    for t, g in enumerate(map(wide, gs)):
        if t % every == 0:
            own = jax.random.fold_in(now[t], i)
            p = np.where(columns(own, len(g), rank) < 0, -1.0, 1.0)
        yield p / np.sqrt(rank), g


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


def inside(bases, gs, inner, scale):
    """GaLore: `scale p inner(p^T g)`."""
    for (p, g), leaf in zip(bases, gs):
        yield unwide(scale * p @ inner(p.T @ g), leaf)


def recovered(bases, gs, inner, scale, growth, eps, floor=0.0):
    """Fira's release, with `inner` for its undebiased Adam."""
    limiter = Limiter(growth, eps, floor)
    for (p, g), leaf in zip(bases, gs):
        r = p.T @ g
        d = inner(r)
        gain = np.linalg.norm(d, axis=0) / (np.linalg.norm(r, axis=0) + eps)
        s = limiter((g - scale * p @ r) * gain)
        yield unwide(scale * p @ d + s, leaf)


def rescaled(bases, gs, inner, scale, growth, eps, axis, floor=0.0):
    """APOLLO, `axis` 0 by channels, None by tensors."""
    limiter = Limiter(growth, eps, floor)
    for (p, g), leaf in zip(bases, gs):
        r = p.T @ g
        d = inner(r)
        gain = np.linalg.norm(d, axis=axis) / (np.linalg.norm(r, axis=axis) + eps)
        yield unwide(scale * limiter(g * gain), leaf)


def momentum_inside(gs, rank, every, average):
    """Subspace momentum: `average` begins again in each new basis."""
    inner = average()
    for t, ((p, g), leaf) in enumerate(zip(svd_bases(gs, rank, every), gs)):
        inner = average() if t % every == 0 else inner
        r = p.T @ g
        yield unwide(p @ inner(r) + g - p @ r, leaf)


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
