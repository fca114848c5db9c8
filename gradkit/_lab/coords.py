"""One transformer at several sizes, in several parametrizations, and what its activations do."""

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
    program,
    screen,
    tasks,
    text,
)
from gradkit._lab.complaint import Complaint, pick

CONTEXT = 32  # bytes that a model sees
HEAD = 16  # features of an attention head; wider models have more of them
READOUT = "head/"  # of a random one the logits fade as the width grows
QUERIES = "query/"  # of zeros attention starts flat: its scores are all change
BRANCHES = "out/|down/"  # of random ones what blocks add fades as the depth grows


class Size(NamedTuple):
    """Of a transformer."""

    width: int
    layers: int


class Start(NamedTuple):
    """What is done to first weights, by what is found in their paths."""

    zeros: str = "$^"  # start at zero: none of them
    embedding: float = 1.0  # times the embedding

    def of(self, params: models.Params) -> models.Params:
        """First weights, from those that were drawn."""

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
    """An optimizer, and what is done to it, the model and its first weights for transfer."""

    rate: float  # about the best one for the smallest of these models
    tx: Callable[[gk.Parametrization, Any], Any]  # from how it grew and a rate
    rule: str = ""  # of first weights and multipliers in the model
    start: Start = Start()

    def branch(self, base: Size, size: Size) -> float:
        """What multiplies all that blocks add."""
        return base.layers / size.layers if self.rule == "completep" else 1.0


def adam(rate: Any) -> Any:
    """AdamW without decay: the rate is all there is to transfer."""
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
    """What is compared."""

    parametrizations: tuple[str, ...]
    over: str  # the field of `Size` that changes
    sizes: tuple[int, ...]
    base: Size  # the smallest
    steps: int
    seeds: int
    rate: float | None = None

    def maker(self, name: str, data: jax.Array) -> Callable[[int], gk.Experiment]:
        """From a size, the experiment in the parametrization `name` on windows of `data`."""
        batch = functools.partial(windows, data, CONTEXT, 8)
        start = PARAMETRIZATIONS[name].start if self.over == "width" else DEPTH
        return lambda n: experiment(name, self.base, self.size(n), batch, start)

    def learning_rate(self, name: str) -> float:
        """What was asked for, or what `name` is trained with; over depths a quarter of it."""
        best = PARAMETRIZATIONS[name].rate
        return self.rate or (best if self.over == "width" else best / 4)

    def rename(self, n: int, site: str) -> str | None:
        """Over depths, what is at the same share of the depth in every model.

        That is all in the first block and in the middle one, and the stream half way and at its
        end; between attention and MLP of the first block it is at another share in each.
        """
        if self.over == "width" or "blocks/" not in site:
            return site
        half = n // 2 if self.even else None
        plus, _, inside = site.rpartition("blocks/")
        block, _, rest = inside.partition("/")
        if f"{plus}{rest}" == "+ down/kernel":
            return {half: "+ half way", n: "+ last block"}.get(int(block) + 1)
        place = {0: not plus and "first block", half: "middle block"}.get(int(block))
        return f"{plus}{place}/{rest}" if place else None

    def scale(self, name: str, n: int, site: str) -> float:
        """What blocks add is compared before `name` divides it by the depth."""
        added = re.fullmatch(r"blocks/\d+/(out|down)/kernel", site)
        branch = PARAMETRIZATIONS[name].branch(self.base, self.size(n))
        return 1 / branch if added else 1.0

    @property
    def even(self) -> bool:
        """Whether every size has a half."""
        return not any(n % 2 for n in self.sizes)

    def size(self, n: int) -> Size:
        """The size of which `n` is what changes."""
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
    """A plan from what was typed: of widths and depths one has several numbers."""
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
    low, high = program.RATES
    if rate is not None and not low <= rate <= high:
        raise Complaint(f"--rate must be from {low:g} to {high:g}, got {rate:g}.")
    (over,) = several
    afford(Size(max(sizes["width"]), max(sizes["layers"])), steps, seeds)
    base = Size(min(sizes["width"]), min(sizes["layers"]))
    return Plan(names, over, tuple(sizes[over]), base, steps, seeds, rate)


def afford(largest: Size, steps: int, seeds: int) -> None:
    """Refuse what would not fit into memory: parameters, and means of some 14 sites a layer."""
    width, layers = largest
    models = memory.RUN * seeds * (12 * layers * width**2 + 512 * width)
    means = 112 * layers * steps * seeds
    asked = f"width {width}, {layers} layers, --steps {steps} and --seeds {seeds}"
    memory.require(asked, models + means)


def text_data(path: pathlib.Path | None, out: pathlib.Path | None = None) -> jax.Array:
    """Bytes to train on: of what is at `path` but for `out`, or of Python's own source."""
    train, _ = text.given(path, out) if path else text.standard_library()
    if len(train) <= CONTEXT:
        raise Complaint(
            f"too little data: {len(train)} bytes to train on, which must be above "
            f"{CONTEXT}. Name a larger file or folder."
        )
    return jnp.asarray(train)


def windows(data: jax.Array, context: int, batch: int, key: jax.Array) -> jax.Array:
    """A batch of stretches of text, one byte longer than the context."""
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
    """A transformer of this size, with hyperparameters that were right for `base`."""
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
    """What each parameter sums over and produces at either size."""

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
    """What the model itself multiplies: logits, and what blocks add."""
    if not chosen.rule:
        return {}
    output = gk.multipliers(grew, chosen.rule)["head/kernel"].forward
    return {"output": float(output), "branch": chosen.branch(base, size)}


def check(plan: Plan, data: jax.Array, out: pathlib.Path | None) -> bool:
    """Measure, show, draw to `out`; whether every parametrization passes."""
    if out is not None:
        places.picture(out, plots.SOFTWARE.encode())
    log, console = screen.console(stderr=True), screen.console()
    found = {name: measure(plan, name, data, log) for name in plan.parametrizations}
    for name, one in found.items():
        show(f"{name}, {plan.steps} updates, by {plan.over}", one, console)
    if out is not None:
        checkpoints.write(out.resolve(), plots.coordinates(found, plan.over))
        console.print(f"Picture: {out}", soft_wrap=True)
    return all(one.ok() for one in found.values())


def measure(plan: Plan, name: str, data: jax.Array, log: Console) -> Any:
    """The coordinates of one parametrization, and on the way, where it is."""
    make = plan.maker(name, data)
    scale = functools.partial(plan.scale, name)
    with log.status(Text(name)) as status:

        def said(n: int) -> gk.Experiment:
            status.update(Text(f"{name}, {plan.over} {n}"))
            return make(n)

        return gk.check_coordinates(
            said,
            plan.sizes,
            plan.learning_rate(name),
            plan.steps,
            plan.seeds,
            plan.rename,
            scale,
        )


def show(title: str, found: Any, console: Console) -> None:
    """One parametrization's table."""
    table = screen.table()
    table.add_column("activation x", overflow="fold")
    for column in ("|x| grows as", "|x - x0| grows as"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    failures = found.failures()
    for site, powers in found.powers().items():
        cells = [f"n^{p.value:+.2f}{_margin(p)}" for p in powers]
        verdict = failures.get(site, "")
        table.add_row(site, *cells, verdict, style="red" if verdict else "")
    sites = len(found.sites)
    verdict = (
        f"{len(failures)} of {sites} sites fail" if failures else "every site passes"
    )
    screen.show(f"{title}: {verdict}", table, console)


def _margin(power: Any) -> str:
    """Half the interval; of one seed there is none."""
    margin = power.high - power.value
    return "" if math.isnan(margin) else f" ± {margin:.2f}"


def _numbers(option: str, given: str) -> list[int]:
    try:
        found = [int(n) for n in given.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise Complaint(
            f"{option} must be different whole numbers above 0, got {given}."
        )
    return found
