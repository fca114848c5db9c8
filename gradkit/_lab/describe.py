"""What the catalogue and the docstrings say of a method; starts no device."""

import inspect
import re
import textwrap
from typing import Any, NamedTuple

import gradkit as gk
from gradkit._lab import equations
from gradkit._lab.complaint import Complaint, pick
from gradkit.catalogue import FAMILIES, METHODS, Method

SECTION = re.compile(r"^([A-Z][a-z]+):(?=\s)", re.M)
ORDER = ("Args", "Needs", "State", "Flops", "Paper", "Departure", "Limits")
ELSEWHERE = {  # what people look for that is in optax alone
    "accumulation": "optax.MultiSteps",
    "adabelief": "optax.adabelief",
    "adadelta": "optax.adadelta",
    "adafactor": "optax.adafactor",
    "adagrad": "optax.adagrad",
    "adamax": "optax.adamax",
    "cosine": "optax.cosine_decay_schedule",
    "cosine decay": "optax.cosine_decay_schedule",
    "d-adaptation": "optax.contrib.dadapt_adamw",
    "dp-sgd": "optax.contrib.dpsgd",
    "ema": "optax.ema, or optax.incremental_update of parameters",
    "fromage": "optax.fromage",
    "gradient accumulation": "optax.MultiSteps",
    "l-bfgs": "optax.lbfgs",
    "lbfgs": "optax.lbfgs",
    "lookahead": "optax.lookahead",
    "mechanic": "optax.contrib.mechanize",
    "nadam": "optax.nadam",
    "one cycle": "optax.cosine_onecycle_schedule",
    "plateau": "optax.contrib.reduce_on_plateau",
    "polyak": "optax.polyak_sgd",
    "prodigy": "optax.contrib.prodigy",
    "radam": "optax.radam",
    "rmsprop": "optax.rmsprop",
    "rprop": "optax.rprop",
    "sam": "optax.contrib.sam",
    "schedule-free": "optax.contrib.schedule_free",
    "sm3": "optax.sm3",
    "sophia": "optax.contrib.sophia",
    "warmup": "optax.warmup_cosine_decay_schedule",
    "yogi": "optax.yogi",
}
SIDE = 1024
LEAF = {  # the matrix whose bytes are counted, and what a formula may use
    "__builtins__": {"min": min, "max": max, "range": range},
    "size": SIDE * SIDE,
    "rows": SIDE,
    "cols": SIDE,
    "ndim": 2,
    "path": "hidden/kernel",
}


class Description(NamedTuple):
    """A method in words."""

    method: Method
    signature: str
    body: str  # what it does, and its equations as text
    sections: dict[str, str]  # "Args", "State", "Paper", ... and what they say

    @property
    def summary(self) -> str:
        """The first sentence."""
        return self.body.partition("\n")[0]

    @property
    def line(self) -> str:
        """The first sentence, behind what people call the method if its name does not say it."""
        called = self.method.known_as.partition(", ")[0]
        plain = re.sub(r"\W|_", "", called).lower()
        said = plain in self.method.name.replace("_", "")
        return self.summary if said else f"{called}: {self.summary}"

    def record(self) -> dict[str, str]:
        """The method as JSON."""
        method = self.method
        return {
            "name": method.name,
            "known_as": method.known_as,
            "family": method.family,
            "kind": method.kind,
            "summary": self.summary,
            "paper": method.paper,
            "reference": method.reference,
            "file": method.path,
        }

    def says(self, words: str) -> bool:
        """Whether the words are in its names, its paper or its summary, in any case."""
        method = self.method
        text = " ".join([*method.names, method.paper, method.reference, self.summary])
        return words.strip().lower() in text.lower()

    def page(self) -> str:
        """All that is said of the method."""
        method = self.method
        said = dict(self.sections)
        if method.kind in ("transform", "recipe"):
            each = self.bytes_a_parameter()
            said["State"] += f"\nIn a {SIDE} x {SIDE} matrix: {each} bytes a parameter."
            said.setdefault("Needs", "nothing beyond update(grads, state, params).")
        said["Reference"] = method.reference or "none"
        if method.known_as:
            said["Known as"] = method.known_as
        own = method.family.rstrip("s") == method.kind  # a family of its kind alone
        of = "" if own else f" of the family {method.family}"
        said["File"] = f"{method.path} (a {method.kind}{of})"
        titles = [*ORDER, *(title for title in said if title not in ORDER)]
        sections = [_section(title, said[title]) for title in titles if title in said]
        return "\n\n".join([self.signature, self.body, "\n".join(sections)])

    def bytes_a_parameter(self) -> str:
        """The optimizer state of one parameter in a large float32 matrix, from `State:`."""
        stated = " ".join(self.sections["State"].split())
        formula = re.match(r"`([^`]*)` bytes a leaf", stated)
        names = _defaults(getattr(gk, self.method.name)) | LEAF
        each = eval(formula[1] if formula else "0", names) / LEAF["size"]
        said = f"{each:.3f}".rstrip("0").rstrip(".")
        inner = re.findall(r"\bof `(\w+)`", stated)
        return " and ".join([said, *(f"{name}'s" for name in inner)])


def methods(family: str | None = None) -> list[Method]:
    """The methods of one family, or all."""
    if family is not None:
        family = pick("family", family, FAMILIES)
    return [m for m in METHODS if hasattr(gk, m.name) and family in (None, m.family)]


def describe(name: str) -> Description:
    """The description of the method with this name, or of the one that is known as it."""
    known = {method.name: method for method in methods()}
    typed = name.strip().lower()
    if typed not in known:
        called = [m for m in known.values() if typed in map(str.lower, m.names)]
        if len(called) > 1:
            names = " and ".join(m.name for m in called)
            raise Complaint(f"{name!r} is what {names} are known as. Choose one.")
        name = called[0].name if called else name
    if typed in ELSEWHERE:
        raise Complaint(f"no method {name!r} here. optax has it: {ELSEWHERE[typed]}.")
    name = pick("method", name, known, "gradkit list names them all.")
    signature, body, sections = _said(getattr(gk, name))
    return Description(known[name], signature, body, sections)


def page(name: str) -> str:
    """All that is said of a method, or of a part of `gradkit.subspace`."""
    room, _, part = name.strip().lower().rpartition(".")
    if room.removeprefix("gradkit.") != "subspace":
        return describe(name).page()
    part = pick("part of gradkit.subspace", part, gk.subspace.__all__)
    signature, body, sections = _said(getattr(gk.subspace, part))
    said = [_section(title, content) for title, content in sections.items()]
    return "\n\n".join([f"subspace.{signature}", body, "\n".join(said)])


def _said(factory: Any) -> tuple[str, str, dict[str, str]]:
    """The signature, the body and the sections of a docstring."""
    said = (inspect.getdoc(factory) or "").partition("\n>>> ")[0]
    body, *rest = SECTION.split(_readable(said))
    contents = [inspect.cleandoc(content) for content in rest[1::2]]
    return _signature(factory), body.strip(), dict(zip(rest[::2], contents))


def _section(title: str, content: str) -> str:
    first, _, rest = content.partition("\n")
    if title == "Args":
        return f"Args:\n{textwrap.indent(content, '    ')}"
    return f"{title}: {first}" + textwrap.indent(f"\n{rest}" if rest else "", "    ")


def _defaults(factory: Any) -> dict[str, Any]:
    """Every argument's default, `inspect.Parameter.empty` where it has none."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters}


def _signature(factory: Any) -> str:
    """Names and defaults, without types."""
    said = [
        name if default is inspect.Parameter.empty else f"{name}={_value(default)}"
        for name, default in _defaults(factory).items()
    ]
    line = f"{factory.__name__}({', '.join(said)})"
    return textwrap.fill(line, 88, subsequent_indent="    ", break_long_words=False)


def _value(default: Any) -> str:
    return default.__name__ if callable(default) else repr(default)


def _readable(doc: str) -> str:
    """The same with every formula as text, on lines of its own or in place."""

    def displayed(found: re.Match[str]) -> str:
        return textwrap.indent(equations.text(found[1]), "    ")

    doc = re.sub(r"\$\$(.*?)\$\$", displayed, doc, flags=re.S)
    return re.sub(r"\$([^$]*)\$", lambda m: equations.text(m[1]), doc)
