"""What the catalogue, the docstrings and the glossary say; starts no device."""

import inspect
import re
import textwrap
from typing import Any, NamedTuple

import gradkit as gk
from gradkit._lab import equations
from gradkit._lab.complaint import Complaint, pick
from gradkit.catalogue import FAMILIES, METHODS, Method
from gradkit.glossary import TERMS
from gradkit.testing import Unstated, stated_in

WIDTH = 80
SECTION = re.compile(r"^([A-Z][a-z]+):(?=\s)", re.M)
ARGUMENT = re.compile(r"^(\w+(?:,\s+\w+)*):\s", re.M)
CITED = "see the glossary."
GLUE = "\0"  # a space at which no line ends
ORDER = ("Args", "Needs", "State", "Flops", "Paper", "Departure", "Limits")
ELSEWHERE = {  # what people look for that is in optax alone
    "adabelief": "optax.adabelief",
    "adadelta": "optax.adadelta",
    "adafactor": "optax.adafactor",
    "adagrad": "optax.adagrad",
    "adamax": "optax.adamax",
    "cosine": "optax.cosine_decay_schedule",
    "cosine decay": "optax.cosine_decay_schedule",
    "d-adaptation": "optax.contrib.dadapt_adamw",
    "dp-sgd": "optax.contrib.dpsgd",
    "fromage": "optax.fromage",
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
SIDE = 1024  # of the matrix whose bytes are counted


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
            said["State"] += (
                f"\n\nIn a {SIDE} x {SIDE} matrix: {each} bytes a parameter."
            )
            said.setdefault("Needs", "nothing beyond update(grads, state, params).")
        said["Reference"] = method.reference or "none"
        if method.known_as:
            said["Known as"] = method.known_as
        own = method.family.rstrip("s") == method.kind  # a family of its kind alone
        of = "" if own else f" of the family {method.family}"
        said["File"] = f"{method.path} (a {method.kind}{of})"
        titles = [*ORDER, *(title for title in said if title not in ORDER)]
        ordered = {title: said[title] for title in titles if title in said}
        return _page(self.signature, self.body, ordered)

    def bytes_a_parameter(self) -> str:
        """The optimizer state of one parameter in a large float32 matrix, from `State:`."""
        arguments = _defaults(getattr(gk, self.method.name))
        try:
            stated = stated_in(self.sections["State"], arguments)
        except Unstated:  # of no leaf
            return "0"
        each = stated.of_leaf("hidden/kernel", (SIDE, SIDE)) / SIDE**2
        said = f"{each:.3f}".rstrip("0").rstrip(".")
        return " and ".join([said, *(f"{name}'s" for name in stated.inner)])


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
    """All that is said of a method, of a part of `gradkit.subspace`, or of a word."""
    typed = name.strip().lower()
    if typed == "glossary":
        return "\n".join(_entry(term, said) for term, said in TERMS.items())
    for term, said in TERMS.items():
        if typed in [term.lower(), *term.lower().split(", ")]:
            called = [m.name for m in methods() if typed in map(str.lower, m.names)]
            also = f" Methods: {', '.join(called)}." if called else ""
            return _entry(term, said + also)
    room, _, part = typed.rpartition(".")
    if room.removeprefix("gradkit.") != "subspace":
        return describe(name).page()
    parts = [part for part in gk.subspace.__all__ if part.islower()]
    part = pick("part of gradkit.subspace", part, parts)
    signature, body, sections = _said(getattr(gk.subspace, part))
    return _page(_filled(f"subspace.{signature}", "    "), body, sections)


def _said(factory: Any) -> tuple[str, str, dict[str, str]]:
    """The signature, the body and the sections of a docstring."""
    said = (inspect.getdoc(factory) or "").partition("\n>>> ")[0]
    body, *rest = SECTION.split(_readable(said))
    sections = dict(zip(rest[::2], map(inspect.cleandoc, rest[1::2])))
    if "Args" in sections:
        sections["Args"] = _arguments(sections["Args"], [*_defaults(factory)])
    return _signature(factory), body.strip(), sections


def _arguments(content: str, order: list[str]) -> str:
    """What `Args:` says of each argument, and the glossary where it is cited, in this order."""
    _, *parts = ARGUMENT.split(content)
    found = {}
    for names, text in zip(parts[::2], parts[1::2]):
        said = " ".join(text.split())
        for name in re.split(r",\s+", names):
            cited = said.startswith(CITED)
            found[name] = said.replace(CITED, TERMS[name], 1) if cited else said
    entries = (_entry(name, found[name], WIDTH - 4) for name in order if name in found)
    return "\n".join(entries)


def _page(signature: str, body: str, sections: dict[str, str]) -> str:
    said = [_section(title, content) for title, content in sections.items()]
    paragraphs = (
        part if part.startswith(" ") else _filled(part) for part in body.split("\n\n")
    )
    return "\n\n".join([signature, *paragraphs, "\n".join(said)])


def _section(title: str, content: str) -> str:
    if title == "Args":
        return f"Args:\n{textwrap.indent(content, '    ')}"
    first, *others = content.split("\n\n")
    below = [textwrap.indent(_filled(one, "", WIDTH - 4), "    ") for one in others]
    return "\n".join([_filled(f"{title}: {first}", "    "), *below])


def _entry(name: str, text: str, width: int = WIDTH) -> str:
    return _filled(f"{name}: {text}", "    ", width)


def _filled(text: str, indent: str = "", width: int = WIDTH) -> str:
    """Prose in lines of this width, all but the first indented; no short code is broken."""
    whole = re.sub(r"`[^`]*`", _glued, " ".join(text.split()))
    filler = textwrap.TextWrapper(
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filler.fill(whole).replace(GLUE, " ")


def _glued(code: re.Match[str]) -> str:
    return code[0].replace(" ", GLUE) if len(code[0]) < WIDTH / 2 else code[0]


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
    return _filled(f"{factory.__name__}({', '.join(said)})", "    ")


def _value(default: Any) -> str:
    """A default as it may be typed; a function by its name."""
    for name, named in vars(gk.newton_schulz).items():
        if name.isupper() and default is named:
            return f"newton_schulz.{name}"
    if callable(default):
        return default.__name__.replace("<lambda>", "...")
    return repr(default)


def _readable(doc: str) -> str:
    """The same with every formula as text, on lines of its own or in place."""

    def displayed(found: re.Match[str]) -> str:
        return textwrap.indent(equations.text(found[1]), "    ")

    doc = re.sub(r"\$\$(.*?)\$\$", displayed, doc, flags=re.S)
    return re.sub(r"\$([^$]*)\$", lambda m: equations.text(m[1]), doc)
