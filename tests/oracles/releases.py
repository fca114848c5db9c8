"""Recipes beside the code that their authors, or the best kept library, released.

Recorded in float64 on the gradients of `adamp.npz` (`soap.npz`: on square matrices, where no
covariance is singular and its eigenvectors are unique). `tests/golden/README.md` says from what.
"""

import optax
from entry import golden

import gradkit as gk


def matrices(path, x):
    """Every matrix is a hidden one, whatever its name."""
    return x.ndim > 1


def fira():
    """The release decays what the update left: (p + u) (1 - lr wd)."""
    return optax.chain(
        gk.fira(1e-2, rank=3, every=1000, b2=0.99, hidden=matrices),
        optax.scale(1 - 1e-2 * 0.02),
        gk.decay_by_weight(1e-2 * 0.02),
    )


golden("sgdp", lambda: gk.sgdp(1e-2, weight_decay=0.01), transpose=True)
golden("adan", lambda: gk.adan(1e-2, weight_decay=0.02))
golden("madgrad", lambda: gk.madgrad(1e-2))
golden("stable_spam", lambda: gk.stable_spam(1e-2))
golden("amsgrad", lambda: gk.amsgrad(1e-2, b2=0.99))
golden("amsbound", lambda: gk.amsbound(1e-2, final_ratio=10.0))
golden("lion", lambda: gk.lion(1e-3, weight_decay=0.1))
golden("soap", lambda: gk.soap(1e-2, b1=0.9, every=5, weight_decay=0.0), transpose=True)
golden("fira", fira, transpose=True)
golden("snsm", lambda: gk.snsm(1e-2, rank=3, every=1000, hidden=matrices))
golden(
    "normuon",
    lambda: gk.normuon(0.02, weight_decay=0.1, hidden=matrices),
    transpose=True,
)
