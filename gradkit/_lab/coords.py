"""One transformer at several sizes, in several parametrizations, and what its activations do."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

import gradkit as gk
from gradkit._lab import checkpoints, models, plots, tasks, text
from gradkit._lab.complaint import Complaint

HEAD = 16  # features of an attention head; wider models have more of them
READOUT = "head/"  # of a random one the logits fade as the width grows
QUERIES = "query/"  # of random ones the scores do
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

    def maker(self, name: str, data: jax.Array) -> Callable[[int], gk.Trial]:
        """From a size, the trial in the parametrization `name` on windows of `data`."""
        batch = functools.partial(windows, data, 32, 8)
        start = PARAMETRIZATIONS[name].start if self.over == "width" else DEPTH
        return lambda n: trial(name, self.base, self.size(n), batch, start)

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
    if task != "bytes":
        raise Complaint(f"no task {task!r} that comes in sizes. Choose bytes.")
    names = tuple(name.strip() for name in parametrizations.split(","))
    for name in names:
        if name not in PARAMETRIZATIONS:
            known = ", ".join(PARAMETRIZATIONS)
            raise Complaint(f"no parametrization {name!r}. Choose from {known}.")
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
    numbers = {
        "--steps": steps,
        "--seeds": seeds,
        "--rate": 1 if rate is None else rate,
    }
    for option, number in numbers.items():
        if not number > 0:
            raise Complaint(f"{option} must be above 0, got {number}.")
    (over,) = several
    base = Size(min(sizes["width"]), min(sizes["layers"]))
    return Plan(names, over, tuple(sizes[over]), base, steps, seeds, rate)


def text_data(path: pathlib.Path | None) -> jax.Array:
    """Bytes to train on: of what is at `path`, or of Python's own source."""
    train, _ = text.given(path) if path else text.standard_library()
    return jnp.asarray(train)


def windows(data: jax.Array, context: int, batch: int, key: jax.Array) -> jax.Array:
    """A batch of stretches of text, one byte longer than the context."""
    starts = jax.random.randint(key, (batch, 1), 0, len(data) - context)
    return data[starts + jnp.arange(context + 1)[None]].astype(jnp.int32)


def trial(
    name: str,
    base: Size,
    size: Size,
    batch: Callable[[jax.Array], Any],
    start: Start,
    schedule: Callable[[Any], Any] = lambda rate: rate,
) -> gk.Trial:
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

    return gk.Trial(first, loss, lambda rate: chosen.tx(grew, schedule(rate)), batch)


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
    screen, console = Console(stderr=True), Console()
    found = {name: measure(plan, name, data, screen) for name in plan.parametrizations}
    for name, one in found.items():
        show(f"{name}, {plan.steps} updates, by {plan.over}", one, console)
    if out is not None:
        checkpoints.write(out, plots.coordinates(found, plan.over))
        console.print(f"Picture: {out}")
    return all(one.ok() for one in found.values())


def measure(plan: Plan, name: str, data: jax.Array, screen: Console) -> Any:
    """The coordinates of one parametrization, and on the way, where it is."""
    make = plan.maker(name, data)
    scale = functools.partial(plan.scale, name)
    with screen.status(name) as status:

        def said(n: int) -> gk.Trial:
            status.update(f"{name}, {plan.over} {n}")
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
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("activation x", overflow="fold")
    for column in ("|x| grows as", "|x - x0| grows as"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    failures = found.failures()
    for site, powers in found.powers().items():
        cells = [f"n^{p.value:+.2f} ± {p.high - p.value:.2f}" for p in powers]
        verdict = failures.get(site, "")
        table.add_row(site, *cells, verdict, style="red" if verdict else "")
    sites = len(found.sites)
    verdict = (
        f"{len(failures)} of {sites} sites fail" if failures else "every site passes"
    )
    console.print(f"\n[bold]{title}: {verdict}[/]", table, sep="\n", end="")


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
