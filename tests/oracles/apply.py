"""Oracles of `_apply`: every one yields `new_params - params`."""

import numpy as np
from entry import entry

MATRICES = {"kernel": (6, 4), "wide": (3, 5), "conv": (2, 3, 4)}


@entry("shrink_by_group_lasso", shrinkage=1.5)
def group_lasso(gs, ps, shrinkage):
    for u, p in zip(gs, ps):
        new = p + u
        for i in range(p.shape[-1]) if p.ndim > 1 else []:
            norm = np.linalg.norm(new[..., i])
            new[..., i] *= max(0, 1 - shrinkage / norm)
        yield new - p


@entry("shrink_by_half_space", shrinkage=0.5, eps=0.6, warmup=3)
def half_space(gs, ps, shrinkage, eps, warmup):
    for t, (u, p) in enumerate(zip(gs, ps)):
        new = p + u
        for i in range(p.shape[-1]) if p.ndim > 1 else []:
            x, trial = p[..., i], new[..., i]
            trial -= shrinkage * x / np.sqrt(np.sum(x * x))
            if t >= warmup and np.sum(trial * x) < eps * np.sum(x * x):
                trial[...] = 0
        yield new - p


@entry("shrink_by_nonconvex", shrinkage=0.5, plateau=1.5)
def nonconvex(gs, ps, shrinkage, plateau):
    for u, p in zip(gs, ps):
        z = np.abs(p + u)
        # the proximal point of shrinkage * (z - z^2 / (2 plateau)) up to the plateau
        inner = np.maximum(z - shrinkage, 0) / (1 - shrinkage / plateau)
        yield np.sign(p + u) * np.where(z <= plateau, inner, z) - p


@entry("retract_by_fixed_norm", free_steps=3)
def fixed_norm(gs, ps, free_steps):
    for t, (u, p) in enumerate(zip(gs, ps)):
        if t == free_steps:
            c = np.linalg.norm(p)
        if t < free_steps or p.ndim < 2:
            yield u
            continue
        new = p + u - np.sum(u * p) / np.sum(p * p) * p
        yield c * new / np.linalg.norm(new) - p


@entry("retract_by_mirror", power=2.6)
def mirror(gs, ps, power):
    for u, p in zip(gs, ps):
        y = np.sign(p) * np.abs(p) ** (power - 1) + u
        yield np.sign(y) * np.abs(y) ** (1 / (power - 1)) - p


@entry("retract_by_conditioned_low_rank", shapes=MATRICES, rank=2, max_condition=1.3)
def conditioned_low_rank(gs, ps, rank, max_condition):
    for g, p in zip(gs, ps):
        u, s, v = np.linalg.svd((p + g).reshape(-1, p.shape[-1]), full_matrices=False)
        mean = np.mean(s[:rank])
        e = mean * (max_condition - 1) / (max_condition + 1)
        s = np.clip(s[:rank], mean - e, mean + e)
        yield (u[:, :rank] @ np.diag(s) @ v[:rank]).reshape(p.shape) - p


@entry("retract_by_stiefel", shapes=MATRICES, learning_rate=0.3, b1=0.8, b2=0.7)
def stiefel(gs, ps, learning_rate, b1, b2):
    def tall(x):  # orthonormal columns
        matrix = x.reshape(-1, x.shape[-1])
        return matrix if matrix.shape[0] > matrix.shape[1] else matrix.T

    def project(x, z):
        return z - x @ (x.T @ z + z.T @ x) / 2

    m, v, most = 0 * tall(gs[0]), 0.0, 0.0
    for g, p in zip(gs, ps):
        x = tall(p)
        grad = project(x, tall(g))
        m = b1 * project(x, m) + (1 - b1) * grad
        v = b2 * v + (1 - b2) * np.sum(grad**2)
        most = max(most, v)
        q, r = np.linalg.qr(x - learning_rate * m / np.sqrt(most))
        u = q * np.sign(np.diag(r)) - x
        matrix = p.reshape(-1, p.shape[-1])
        yield (u if u.shape == matrix.shape else u.T).reshape(p.shape)
