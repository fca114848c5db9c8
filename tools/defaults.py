"""Write `docs/defaults.md`: every default here, in optax and in the paper; `--check` fails when it is stale."""

import argparse
import inspect
import pathlib
import sys
from typing import Any

import optax

import gradkit as gk
from gradkit.catalogue import METHODS

TARGET = pathlib.Path(__file__).parents[1] / "docs" / "defaults.md"
NOT_TUNED = {"mask", "hidden", "batch_axes", "model", "key", "inner"}
HEAD = """# Defaults

What every recipe, and every `scale_by_*` that optax has too, does if nothing is said: here, in optax, and in the paper. Written by
`python tools/defaults.py`, from the signatures of both libraries; the last column is kept by hand: what the paper recommends or its
authors' code has, blank where neither is known. Dion's, SOAP's and some of GaLore's and AdamW's are from memory, and were not read again.
What differs from gradkit's is bold. optax asks for every learning rate. Names are gradkit's, optax's follow in brackets where they
differ; `gradkit show adamw` says what they mean.

| method | argument | gradkit | optax | paper or release |
|---|---|---|---|---|
"""
RENAMED = {  # what optax calls an argument, where it is not as here
    "galore": {"every": "update_proj_gap"},
    "lars": {"trust": "trust_coefficient"},
    "muon": {"momentum": "beta", "b1": "adam_b1", "b2": "adam_b2"},
}
ADAM = {"b1": 0.9, "b2": 0.999}
BOUND = {
    "learning_rate": 1e-3,
    "final_ratio": 100.0,
    "gamma": 1e-3,
    "eps": 1e-8,
    **ADAM,
}
PAPERS: dict[str, dict[str, Any]] = {
    "adabound": BOUND,
    "adagc": {"max_ratio": 1.05, "decay": 0.98, "max_norm": 1.0, "warmup": 100},
    "adam_atan2": {"learning_rate": 1e-4, "b1": 0.9, "b2": 0.99, "a": 1.27, "b": 1.0},
    "adamomentum": {"learning_rate": 1e-3, **ADAM},
    "adamp": {"delta": 0.1, "wd_ratio": 0.1, "eps": 1e-8, **ADAM},
    "adamw": {"learning_rate": 1e-3, "eps": 1e-8, **ADAM},
    "adamw_subset_norm": {"eps": 1e-6, **ADAM},
    "adan": {"learning_rate": 1e-3, "b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-8, "weight_decay": 0.0},
    "ademamix": {"learning_rate": 1e-3, "b3": 0.9999, "alpha": 2.0, "eps": 1e-8, "weight_decay": 0.0, **ADAM},
    "amsbound": BOUND,
    "diffgrad": {"learning_rate": 1e-3, "eps": 1e-8, "weight_decay": 0.0, **ADAM},
    "dion": {"rank": 768, "momentum": 0.95, "eps": 1e-8, "b1": 0.9, "b2": 0.95, "weight_decay": 0.01},
    "fira": {"every": 200, "scale": 0.25, "growth": 1.01, "eps": 1e-6, "column_eps": 1e-8},
    "galore": {"every": 200, "scale": 0.25, "eps": 1e-6, **ADAM},
    "grams": {"learning_rate": 1e-3, "eps": 1e-6, "weight_decay": 0.0, **ADAM},
    "grass_jump": {"every": 100, "scale": 0.25, "growth": 1.01},
    "grass_walk": {"every": 100, "scale": 0.25, "growth": 1.01},
    "gravity": {"learning_rate": 0.1, "decay": 0.9, "start": 0.1},
    "hspg": {"penalty": 1e-3, "eps": 0.0},
    "innaprop": {"learning_rate": 1e-3, "alpha": 0.1, "beta": 0.9, "decay": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    "lion": {"b1": 0.9, "b2": 0.99},
    "lion_kappa": {"b1": 0.9, "b2": 0.99},
    "lorp": {"rank": 256, "every": 200, "scale": 1.0, "eps": 1e-6, **ADAM},
    "madgrad": {"learning_rate": 1e-2, "momentum": 0.9, "eps": 1e-6, "weight_decay": 0.0},
    "mars": {"learning_rate": 3e-3, "gamma": 0.025, "max_norm": 1.0, "b1": 0.95, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.0},
    "muon": {"learning_rate": 0.02, "momentum": 0.95, "eps": 1e-7, "adam_lr_ratio": 0.015, "b1": 0.9, "b2": 0.95, "adam_eps": 1e-10, "weight_decay": 0.0},
    "normuon": {"learning_rate": 0.02, "momentum": 0.95, "eps": 1e-7, "neuron_decay": 0.95, "neuron_eps": 1e-10, "adam_lr_ratio": 0.015, "b1": 0.9, "b2": 0.95, "adam_eps": 1e-10, "weight_decay": 0.0},
    "novograd": {"b1": 0.95, "b2": 0.98, "eps": 1e-8},
    "psgd": {"b1": 0.0, "fit_rate": 0.1},
    "random_scaled_sgdm": {"momentum": 0.99},
    "scale_by_adam": {"eps": 1e-8, **ADAM},
    "scale_by_adan": {"b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-8},
    "scale_by_madgrad": {"learning_rate": 1e-2, "momentum": 0.9, "eps": 1e-6},
    "scale_by_novograd": {"b1": 0.95, "b2": 0.98, "eps": 1e-8},
    "sgdp": {"delta": 0.1, "wd_ratio": 0.1},
    "snsm": {"every": 200, "eps": 1e-6, **ADAM},
    "soap": {"learning_rate": 3e-3, "b1": 0.95, "b2": 0.95, "eps": 1e-8, "every": 10, "max_size": 10000, "weight_decay": 0.01},
    "stable_spam": {"norm_b1": 0.7, "norm_b2": 0.9, "spike_decay": 0.999, "every": 1000, "eps": 1e-8, **ADAM},
    "zclip_adamw": {"max_zscore": 2.5, "decay": 0.97, "warmup": 25, "norm_eps": 1e-6, "max_norm": 1.0},
}  # fmt: skip


def defaults(factory: Any) -> dict[str, Any]:
    """Every argument that has a default."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def said(value: Any) -> str:
    """A value as a cell: floats that are equal read the same."""
    if callable(value):
        return f"`{value.__name__}`"
    if value == gk.newton_schulz.JORDAN:
        return "Jordan's"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def in_optax(name: str) -> Any:
    """What optax has under the same name."""
    return getattr(optax, name, getattr(optax.contrib, name, None))


def rows(name: str) -> list[str]:
    """The lines of one method."""
    theirs = defaults(in_optax(name)) if in_optax(name) else {}
    paper = PAPERS.get(name, {})
    found = []
    for argument, default in defaults(getattr(gk, name)).items():
        if argument in NOT_TUNED:
            continue
        other = RENAMED.get(name, {}).get(argument, argument)
        called = f" [`{other}`]" if other != argument else ""
        values = [(theirs, other, called), (paper, argument, "")]
        cells = [
            _cell(said(known[key]), said(default)) + after if key in known else ""
            for known, key, after in values
        ]
        found.append(
            f"| {name} | `{argument}` | {said(default)} | {' | '.join(cells)} |"
        )
    return found


def _cell(other: str, ours: str) -> str:
    return other if other == ours else f"**{other}**"


def text() -> str:
    """The page."""
    named = [
        m.name
        for m in METHODS
        if m.family == "recipe" or (m.name.startswith("scale_by_") and in_optax(m.name))
    ]
    return HEAD + "".join(f"{line}\n" for name in named for line in rows(name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        TARGET.write_text(text())
    elif not TARGET.exists() or TARGET.read_text() != text():
        sys.exit(f"{TARGET} is stale: run python tools/defaults.py")
