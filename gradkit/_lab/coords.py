"""Coordinate checks of one transformer at several sizes, in several parametrizations."""

import functools
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.text import Text

import gradkit as gk
from gradkit._lab import (
    checkpoints,
    memory,
    models,
    places,
    plots,
    screen,
    tasks,
    text,
)
from gradkit._lab.complaint import Complaint, pick
from gradkit._lab.plan import RATES

CONTEXT = 32  # bytes that a model sees
HEAD = 16  # features of an attention head; wider models have more of them
READOUT = "head/"  # zero at first, as random logits shrink as the width grows
QUERIES = "query/"  # zero at first, so that attention starts uniform
BRANCHES = "out/|down/"  # zero at first, as random branches shrink as the depth grows


class Size(NamedTuple):
    """The size of a transformer."""

    width: int
    layers: int


class Start(NamedTuple):
    """How to change initial weights, by patterns searched for in their paths."""

    zeros: str = "$^"  # pattern of weights that start at zero; this matches none
    embedding: float = 1.0  # factor of the embedding

    def of(self, params: models.Params) -> models.Params:
        """The initial weights, changed so."""

        def weight(path: Any, p: jax.Array) -> jax.Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if re.search(self.zeros, name):
                return 0 * p
            return self.embedding * p if "embed/" in name else p

        return jax.tree.map_with_path(weight, params)


WIDTH = Start(f"{READOUT}|{QUERIES}")
# Two blocks that begin as the identity and add little to the stream are as near the limit of
# many as 16 are.
DEPTH = Start(f"{READOUT}|{BRANCHES}", 128.0)


class Parametrization(NamedTuple):
    """An optimizer, and its changes to updates, model and initial weights for transfer."""

    rate: float  # about the best for the smallest of these models
    tx: Callable[[gk.Parametrization, Any], Any]  # (parametrization, rate) -> transform
    rule: str = ""  # for initial weights and multipliers in the model
    start: Start = Start()

    def branch(self, base: Size, size: Size) -> float:
        """The factor of the output of every block."""
        return base.layers / size.layers if self.rule == "completep" else 1.0


def adam(rate: Any) -> Any:
    """AdamW without decay, so that only the rate transfers."""
    return gk.adamw(rate, weight_decay=0.0)


PARAMETRIZATIONS = {
    "sp": Parametrization(2**-7, lambda grew, rate: adam(rate)),
    "mup": Parametrization(
        2**-7,
        lambda grew, rate: gk.chain(adam(rate), gk.transfer_by_mup(grew)),
        "mup",
        WIDTH,
    ),
    "completep": Parametrization(
        2**-7,
        lambda grew, rate: gk.chain(
            gk.transfer_by_gradient_scale(grew, rule="completep"),  # Adam's eps
            adam(rate),
            gk.transfer_by_completep(grew),
        ),
        "completep",
        WIDTH,
    ),
    "spectral": Parametrization(  # Muon's updates keep the spectral condition as they are
        2**-5, lambda grew, rate: gk.muon(rate), "mup", WIDTH
    ),
}


class Plan(NamedTuple):
    """The parametrizations and sizes to compare."""

    parametrizations: tuple[str, ...]
    over: str  # the field of `Size` that changes
    sizes: tuple[int, ...]
    base: Size  # the smallest
    steps: int
    seeds: int
    rate: float | None = None

    def maker(self, name: str, data: jax.Array) -> Callable[[int], gk.Experiment]:
        """A function: size -> the experiment in parametrization `name` on windows of `data`."""
        batch = functools.partial(windows, data, CONTEXT, 8)
        start = PARAMETRIZATIONS[name].start if self.over == "width" else DEPTH
        return lambda n: experiment(name, self.base, self.size(n), batch, start)

    def learning_rate(self, name: str) -> float:
        """The rate of the plan, else the best of `name`, a quarter of it over depths."""
        best = PARAMETRIZATIONS[name].rate
        return self.rate or (best if self.over == "width" else best / 4)

    def rename(self, n: int, site: str) -> str | None:
        """A name of an activation that exists in models of every depth, or None to leave it out.

        Over depths these are activations in the first and the middle block, and the residual
        stream half way and at its end. Between attention and MLP of the first block the stream is
        at a different fraction of each depth.
        """
        if self.over == "width" or "blocks/" not in site:
            return site
        half = n // 2 if self.even else None
        plus, _, inside = site.rpartition("blocks/")
        block, _, layer = inside.partition("/")
        if f"{plus}{layer}" == "+ down/kernel":
            return {half: "+ half way", n: "+ last block"}.get(int(block) + 1)
        place = {0: not plus and "first block", half: "middle block"}.get(int(block))
        return f"{plus}{place}/{layer}" if place else None

    def scale(self, name: str, n: int, site: str) -> float:
        """The factor that undoes the branch multiplier of `name` in the outputs of blocks."""
        added = re.fullmatch(r"blocks/\d+/(out|down)/kernel", site)
        branch = PARAMETRIZATIONS[name].branch(self.base, self.size(n))
        return 1 / branch if added else 1.0

    @property
    def even(self) -> bool:
        """Whether all sizes are even."""
        return not any(n % 2 for n in self.sizes)

    def size(self, n: int) -> Size:
        """The base size, with `n` for the field that changes."""
        return self.base._replace(**{self.over: n})


def plan(
    task: str,
    parametrizations: str,
    widths: str,
    depths: str,
    steps: int,
    seeds: int,
    rate: float | None = None,
) -> Plan:
    """Parse the options of `gradkit coords`; either widths or depths must be several numbers."""
    pick("task of several sizes", task, ("bytes",))
    names = tuple(
        pick("parametrization", name, PARAMETRIZATIONS)
        for name in parametrizations.split(",")
    )
    sizes = {
        "width": _numbers("--widths", widths),
        "layers": _numbers("--depths", depths),
    }
    several = [over for over, ns in sizes.items() if len(ns) > 1]
    if len(several) != 1:
        raise Complaint(
            f"either --widths or --depths must be several numbers, got {widths} and {depths}."
        )
    if any(width % HEAD for width in sizes["width"]):
        raise Complaint(f"--widths must be multiples of {HEAD}, got {widths}.")
    for option, number in {"--steps": steps, "--seeds": seeds}.items():
        if number < 1:
            raise Complaint(f"{option} must be above 0, got {number}.")
    low, high = RATES
    if rate is not None and not low <= rate <= high:
        raise Complaint(f"--rate must be from {low:g} to {high:g}, got {rate:g}.")
    (over,) = several
    afford(Size(max(sizes["width"]), max(sizes["layers"])), steps, seeds)
    base = Size(min(sizes["width"]), min(sizes["layers"]))
    return Plan(names, over, tuple(sizes[over]), base, steps, seeds, rate)


def afford(largest: Size, steps: int, seeds: int) -> None:
    """Refuse a plan that exceeds memory: parameters, and means of about 14 sites a layer."""
    width, layers = largest
    models = memory.RUN * seeds * (12 * layers * width**2 + 512 * width)
    means = 112 * layers * steps * seeds
    asked = f"width {width}, {layers} layers, --steps {steps} and --seeds {seeds}"
    memory.require(asked, models + means)


def text_data(path: pathlib.Path | None, out: pathlib.Path | None = None) -> jax.Array:
    """Training bytes of the text at `path` without `out`, or of Python's own source."""
    train = (text.given(path, out) if path else text.standard_library()).train
    if len(train) <= CONTEXT:
        raise Complaint(
            f"too little data: {len(train)} bytes to train on, which must be above "
            f"{CONTEXT}. Name a larger file or folder."
        )
    return jnp.asarray(train)


def windows(data: jax.Array, context: int, batch: int, key: jax.Array) -> jax.Array:
    """A batch of random windows of text, `[batch, context + 1]`."""
    starts = jax.random.randint(key, (batch, 1), 0, len(data) - context)
    return data[starts + jnp.arange(context + 1)[None]].astype(jnp.int32)


def experiment(
    name: str,
    base: Size,
    size: Size,
    batch: Callable[[jax.Array], Any],
    start: Start,
    schedule: Callable[[Any], Any] = lambda rate: rate,
) -> gk.Experiment:
    """The experiment of a transformer of this size, with hyperparameters tuned for `base`."""
    chosen, grew = PARAMETRIZATIONS[name], grown(base, size)
    forward = multipliers(chosen, grew, base, size)
    init, apply = transformer(size, **forward)
    narrow, _ = transformer(size._replace(width=base.width))

    def first(key: jax.Array) -> models.Params:
        params = init(key)
        if chosen.rule:
            params = gk.rescale_init(params, grew, narrow(key), chosen.rule)
        return start.of(params)

    def loss(params: models.Params, tokens: jax.Array) -> jax.Array:
        return tasks.cross_entropy(apply(params, tokens[:, :-1]), tokens[:, 1:])

    return gk.Experiment(
        first, loss, lambda rate: chosen.tx(grew, schedule(rate)), batch
    )


def transformer(size: Size, **forward: float) -> Any:
    """`init(key)` and `apply(params, tokens)`, with these multipliers inside."""
    build = functools.partial(models.Transformer, *size, size.width // HEAD, **forward)
    return models.functional(build)


def grown(base: Size, size: Size) -> gk.Parametrization:
    """The fan-in and fan-out of each parameter at both sizes."""

    def apply(params: Any, tokens: Any, width: int, layers: int) -> jax.Array:
        return transformer(Size(width, layers))[1](params, tokens)

    return gk.infer_parametrization(
        lambda width, layers: transformer(Size(width, layers))[0](jax.random.key(0)),
        base=base._asdict(),
        target=size._asdict(),
        delta=base._replace(width=2 * base.width)._asdict(),
        apply=apply,
        example=jnp.zeros((1, 2), jnp.int32),
    )


def multipliers(
    chosen: Parametrization, grew: gk.Parametrization, base: Size, size: Size
) -> dict[str, float]:
    """The multipliers in the model: of logits, and of the outputs of blocks."""
    if not chosen.rule:
        return {}
    output = gk.multipliers(grew, chosen.rule)["head/kernel"].forward
    return {"output": float(output), "branch": chosen.branch(base, size)}


def check(plan: Plan, data: jax.Array, out: pathlib.Path | None) -> bool:
    """Measure, show, draw to `out`; whether every parametrization passes."""
    if out is not None:
        places.picture(out, plots.SOFTWARE.encode())
    log, console = screen.console(stderr=True), screen.console()
    results = {name: measure(plan, name, data, log) for name in plan.parametrizations}
    for name, result in results.items():
        show(f"{name}, {plan.steps} updates, by {plan.over}", result, console)
    if out is not None:
        checkpoints.write(out.resolve(), plots.coordinates(results, plan.over))
        console.print(f"Picture: {out}", soft_wrap=True)
    return all(result.ok() for result in results.values())


def measure(plan: Plan, name: str, data: jax.Array, log: Console) -> Any:
    """The coordinate check of one parametrization, with a status line meanwhile."""
    make = plan.maker(name, data)
    scale = functools.partial(plan.scale, name)
    with log.status(Text(name)) as status:

        def make_and_report(n: int) -> gk.Experiment:
            status.update(Text(f"{name}, {plan.over} {n}"))
            return make(n)

        return gk.check_coordinates(
            make_and_report,
            plan.sizes,
            plan.learning_rate(name),
            plan.steps,
            plan.seeds,
            plan.rename,
            scale,
        )


def show(title: str, result: Any, console: Console) -> None:
    """Print the table of one parametrization."""
    table = screen.table()
    table.add_column("activation x", overflow="fold")
    for column in ("|x| grows as", "|x - x0| grows as"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    failures = result.failures()
    for site, powers in result.powers().items():
        cells = [f"n^{p.value:+.2f}{_margin(p)}" for p in powers]
        verdict = failures.get(site, "")
        table.add_row(site, *cells, verdict, style="red" if verdict else "")
    sites = len(result.sites)
    verdict = (
        f"{len(failures)} of {sites} sites fail" if failures else "every site passes"
    )
    screen.show(f"{title}: {verdict}", table, console)


def _margin(power: Any) -> str:
    """Half the confidence interval, or nothing for one seed."""
    margin = power.high - power.value
    return "" if math.isnan(margin) else f" ± {margin:.2f}"


def _numbers(option: str, typed: str) -> list[int]:
    try:
        numbers = [int(n) for n in typed.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise Complaint(
            f"{option} must be different whole numbers above 0, got {typed}."
        )
    return numbers
