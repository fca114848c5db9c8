"""Arguments and words that docstrings share, each explained once.

A docstring that reads `mask, hidden: see the glossary.` means the entries below. On the command
line, `gradkit show muon` puts them in place, and `gradkit show mask` prints one.
"""

import textwrap

__all__ = ["TERMS"]

TERMS = {
    # Arguments
    "learning_rate": "a number, or a schedule: a function of the number of updates made so far, "
    "from 0. Every other hyperparameter may be either, too.",
    "b1": "decay of the EMA of the gradient, Adam's first moment.",
    "b2": "decay of the EMA of the squared gradient, Adam's second moment.",
    "eps": "added to the divisor, the bias-corrected RMS of the gradient, in units of the gradient.",
    "weight_decay": "decoupled weight decay: `p -= rate * weight_decay * p` at each "
    "update, with the learning rate of the parameter.",
    "mask": "which parameters decay: a tree of bools like the parameters, or a function of the "
    "parameters that makes one; `None` for all.",
    "momentum": "decay of the sum of gradients, which is `1 / (1 - momentum)` times their EMA; 0 "
    "for no momentum.",
    "hidden": "which leaves are hidden matrices: a regular expression searched for in their "
    "paths, a predicate of path and leaf, or a dict from paths to bools, with the "
    "default for all other paths. By default names and shapes decide. A readout that is named like "
    "hidden layers, such as linen's last `Dense_2`, is taken for hidden: "
    "`print(gradkit.routes(tx, params))` shows where each leaf goes, and why.",
    "batch_axes": "the stacked axes, such as `(0,)` for scanned layers. Of the other axes the "
    "last is the columns and the rest are the rows. Recipes see kernels of attention, "
    "`[in, heads, size]`, as matrices of `in` rows.",
    "model": "what `gradkit.read_model` returns. In place of `hidden` and `batch_axes` "
    "it says which leaves are hidden matrices, and which matrices each leaf holds.",
    "key": "a seed or a `jax.random` key, kept in the state; the same key gives the same run.",
    "rank": "number of columns of a basis, at most the small side of a matrix.",
    "scale": "the learning rate of hidden matrices, as a multiple of that of all other leaves.",
    "growth": "the norm-growth limiter: by what factor the norm of a matrix's update, or of its "
    "residual where only that is limited, may grow in one update.",
    "floor": "the RMS up to which the norm-growth limiter lets a direction grow freely; Adam's "
    "directions have an RMS of about 1.",
    "adam_lr_ratio": "the learning rate of Adam, which moves all leaves but hidden matrices, as a "
    "multiple of the learning rate of hidden matrices.",
    "adam_eps": "the `eps` of Adam, which moves all leaves but hidden matrices.",
    "consistent_rms": "replaces the scale by shape, where given. Updates of matrices of every shape "
    "then have an RMS of about this times the learning rate; with 0.2, that of AdamW's.",
    "coefficients": "of the Newton-Schulz steps, one triple a step, from `gradkit.newton_schulz`.",
    # Words
    "EMA": "exponential moving average, `m <- decay m + (1 - decay) x`. It averages over about "
    "`1 / (1 - decay)` updates. `optax.ema` keeps one of gradients, and "
    "`optax.incremental_update` one of parameters.",
    "RMS": "root mean square: of the entries of an array, or over time, the root of the EMA of a "
    "square.",
    "bias correction": "division of an EMA that began at zero by `1 - decay^t`, so that its weights sum "
    "to 1 at every update t = 1, 2, ... An `eps` added before bias correction is added to the root of "
    "the uncorrected EMA, and counts `1 / sqrt(1 - b2^t)` times as much.",
    "update interval": "the number of updates from one renewal to the next, of what is costly: "
    "the basis of a projection, the roots of a preconditioner.",
    "decoupled weight decay": "decay that is subtracted from the parameters apart from the update, as "
    "in AdamW. Coupled decay is added to the gradient, as in L2 regularization, and then passes "
    "through momentum and scaling. Both are fractions of the parameters before the update.",
    "hidden matrix": "a weight matrix between two hidden layers. Embeddings, output "
    "heads, biases and scales of norms are not.",
    "stacked axes": "batch axes of a leaf, which index the matrices that it holds: scanned layers, "
    "experts.",
    "direction, update": "a direction is what transforms make of a gradient, and has its sign. "
    "The learning rate turns it into an update, which is added to the parameters.",
    "inner": "the transform inside a wrapper.",
    "residual": "the part of a gradient that its projection loses: `g - P P^T g`.",
    "size, rows, cols, ndim": "of one leaf, in the formulas under `State:` and `Flops:`: its "
    "number of entries, the sides of the matrices that it is treated as, `[stacked..., in, out]`, "
    "and its number of axes.",
}


def _entries() -> str:
    """All entries as text, for `help`."""
    fill = {"width": 90, "initial_indent": "    ", "subsequent_indent": "    "}
    said = (f"{term}\n{textwrap.fill(text, **fill)}" for term, text in TERMS.items())
    return "\n".join(said)


__doc__ = f"{__doc__}\n{_entries()}\n"
