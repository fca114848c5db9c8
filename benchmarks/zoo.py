"""Do activations of many kinds of models keep their size as the width grows?

Small forms of models that people have, from `tests/zoo`, are trained for a few steps at several
widths, in the standard parametrization and in muP: `rescale_init`, `transfer_by_mup`, and the
forward multipliers of `multipliers`, which multiply the leaves themselves, or the outputs where
the leaf is a tied table. Data and targets are random, the loss is the mean square.

    python benchmarks/zoo.py

The table of `benchmarks/results/zoo.md` is what this prints. `--only "gpt2;gemma" --full` prints
all powers of some of it; with `--zeros` output matrices start at zero in muP.
"""

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import gradkit as gk

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
from zoo import graphs, recurrent, transformers, vision

MODULES: Any = (transformers, vision, recurrent, graphs)
FORMS: Mapping[str, Any] = {form.name: form for m in MODULES for form in m.FORMS}
ASKED = (
    *("gpt2", "gemma", "lm1b", "llama", "palm", "albert", "ntk"),
    *("vit, map", "mixer", "mamba", "lru", "message passing", "autoencoder"),
)
WIDTHS = (32, 64, 128, 256)
# Of tied tables, whose logits are not linear: what multiplies the logits alone.
LOGITS: Mapping[str, Callable[[Any, Any], Any]] = {
    "gemma": lambda p, f: p | {"final_norm": f * (1 + p["final_norm"]) - 1}
}


def size(form: Any, width: int) -> Any:
    """The size of a form at a width: of several numbers, those that grow as its width does."""
    if not isinstance(form.base, Mapping):
        return width
    growth = form.target["n"] // form.base["n"]
    wide = [k for k, n in form.base.items() if form.target[k] == growth * n]
    times = {k: width // form.base["n"] if k in wide else 1 for k in form.base}
    return {k: times[k] * n for k, n in form.base.items()}


@functools.cache
def first(name: str, width: int) -> Any:
    """The parameters that a form starts with."""
    at = size(FORMS[name], width)
    init = FORMS[name].init
    return init(**at) if isinstance(at, Mapping) else init(at)


def drawn(params: Any, key: jax.Array) -> Any:
    """Other parameters: every matrix drawn from its own entries."""
    many = max(p.size for p in jax.tree.leaves(params))
    bits = jax.random.bits(key, (many,))  # one draw for all, which compiles faster

    def leaf(p: jax.Array) -> jax.Array:
        if sum(n > 1 for n in p.shape) < 2:
            return p
        return p.ravel()[bits[: p.size] % p.size].reshape(p.shape)

    return jax.tree.map(leaf, params)


def data(form: Any, key: jax.Array) -> Any:
    """An example like the form's: other tokens, or other numbers in the same graph."""

    def leaf(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jax.random.normal(key, x.shape)
        tokens = not isinstance(form.example, Mapping)
        return jax.random.randint(key, x.shape, 0, x.max() + 1) if tokens else x

    return jax.tree.map(leaf, form.example)


def times(numbers: Mapping[str, Any], params: Any) -> Any:
    """Parameters times the numbers under their paths."""

    def leaf(path: Any, p: jax.Array) -> jax.Array:
        return (
            numbers.get(jax.tree_util.keystr(path, simple=True, separator="/"), 1) * p
        )

    return jax.tree.map_with_path(leaf, params)


def model(form: Any, mup: bool, zeros: bool, width: int) -> gk.Experiment:
    """A form at a width; in muP output matrices may start at `zeros`."""
    adam = functools.partial(gk.adamw, weight_decay=0.0)
    own, base = (first(form.name, n) for n in (width, WIDTHS[0]))
    out = jax.eval_shape(form.apply, own, form.example)

    def batch(key: jax.Array) -> Any:
        for_data, for_target = jax.random.split(key)
        return data(form, for_data), jax.random.normal(for_target, out.shape)

    def error(out: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.mean((out - target) ** 2)

    def plain(params: Any, batch: Any) -> jax.Array:
        return error(form.apply(params, batch[0]), batch[1])

    if not mup:
        return gk.Experiment(functools.partial(drawn, own), plain, adam, batch)
    grown = gk.infer_parametrization(
        form.init,
        base=size(form, WIDTHS[0]),
        target=size(form, width),
        delta=size(form, 2 * WIDTHS[0]),
        apply=form.apply,
        example=form.example,
        roles=form.roles,
    )
    forward = {path: m.forward for path, m in gk.multipliers(grown).items()}
    tied = [forward.pop(p) for p in [*forward] if grown[p].role == "tied"]

    start = {p: 0.0 for p in grown if zeros and grown[p].role == "output"}

    def scaled(params: Any, batch: Any) -> jax.Array:
        params = times(forward, params)
        if not tied:
            return plain(params, batch)
        if form.name in LOGITS:
            return plain(LOGITS[form.name](params, tied[0]), batch)
        return error(tied[0] * form.apply(params, batch[0]), batch[1])

    def init(key: jax.Array) -> Any:
        params = gk.rescale_init(drawn(own, key), grown, drawn(base, key))
        return times(start, params)

    def tx(rate: Any) -> Any:
        return gk.chain(adam(rate), gk.transfer_by_mup(grown))

    return gk.Experiment(init, scaled, tx, batch)


def checked(form: Any, mup: bool, args: argparse.Namespace) -> gk.Coordinates:
    """The coordinates of a form in one of both parametrizations."""
    make = functools.partial(model, form, mup, args.zeros)
    return gk.check_coordinates(make, WIDTHS, args.rate, args.steps, args.seeds)


def told(found: gk.Coordinates) -> str:
    """The sites that fail, with their powers."""
    powers = found.powers()

    def one(site: str, verdict: str) -> str:
        power = powers[site].activation if verdict == "grows" else powers[site].change
        return f"`{site}` {verdict}, {power}"

    return "; ".join(one(*failure) for failure in found.failures().items())


def main() -> None:
    """Check every form in both parametrizations and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=lambda typed: typed.split(";"), default=ASKED)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2**-8)
    parser.add_argument("--zeros", action="store_true", help="outputs start at zero")
    parser.add_argument("--full", action="store_true", help="print all powers too")
    args = parser.parse_args()
    began = time.perf_counter()
    print("| form | sites | fail, standard | fail, muP | which, muP |")
    print("|---|---|---|---|---|")
    for name in args.only:
        standard, mup = (checked(FORMS[name], way, args) for way in (False, True))
        counts = (len(c.failures()) for c in (standard, mup))
        cells = name, len(mup.sites), *counts, told(mup)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        if args.full:
            print(standard.table(), mup.table(), sep="\n\n")
    print(f"\n{time.perf_counter() - began:.0f} seconds", file=sys.stderr)


if __name__ == "__main__":
    main()
