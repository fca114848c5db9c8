"""Text of `gradkit list` and `show` from catalogue, docstrings and glossary; starts no device."""

import inspect
import re
import textwrap
from typing import Any, NamedTuple

import gradkit as gk
from gradkit._lab import equations
from gradkit._lab.complaint import Complaint, pick
from gradkit.catalogue import FAMILIES, METHODS, Method
from gradkit.glossary import TERMS
from gradkit.testing import Undocumented, stated_in

WIDTH = 80
SECTION = re.compile(r"^([A-Z][a-z]+):(?=\s)", re.M)
ARGUMENT = re.compile(r"^(\w+(?:,\s+\w+)*):\s", re.M)
CITED = "see the glossary."
GLUE = "\0"  # a non-breaking space
ORDER = ("Args", "Needs", "State", "Flops", "Paper", "Departure", "Limits")
ELSEWHERE = {  # names that only optax has
    "adabelief": "optax.adabelief",
    "adadelta": "optax.adadelta",
    "adafactor": "optax.adafactor",
    "adagrad": "optax.adagrad",
    "adamax": "optax.adamax",
    "d-adaptation": "optax.contrib.dadapt_adamw",
    "dp-sgd": "optax.contrib.dpsgd",
    "fromage": "optax.fromage",
    "l-bfgs": "optax.lbfgs",
    "lbfgs": "optax.lbfgs",
    "lookahead": "optax.lookahead",
    "mechanic": "optax.contrib.mechanize",
    "nadam": "optax.nadam",
    "plateau": "optax.contrib.reduce_on_plateau",
    "radam": "optax.radam",
    "rmsprop": "optax.rmsprop",
    "rprop": "optax.rprop",
    "sam": "optax.contrib.sam",
    "sm3": "optax.sm3",
    "sophia": "optax.contrib.sophia",
    "warmup": "optax.warmup_cosine_decay_schedule",
    "yogi": "optax.yogi",
}
SIDE = 1024  # of the example matrix for bytes of state


class Description(NamedTuple):
    """A method's catalogue line and docstring, parsed."""

    method: Method
    signature: str
    body: str  # the docstring before its sections, with equations as text
    sections: dict[str, str]  # by title: "Args", "State", "Paper", ...

    @property
    def summary(self) -> str:
        """The first sentence."""
        return self.body.partition("\n")[0]

    @property
    def line(self) -> str:
        """The first sentence, preceded by the common name of the method if `name` lacks it."""
        called = self.method.known_as.partition(", ")[0]
        plain = re.sub(r"\W|_", "", called).lower()
        contained = plain in self.method.name.replace("_", "")
        return self.summary if contained else f"{called}: {self.summary}"

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
        """Whether the names, the paper or the summary contain the words, in any case.

        Up to three letters, such as SAM, are a word of their own, and no part of "same".
        """
        method, typed = self.method, re.escape(words.strip().lower())
        text = " ".join([*method.names, method.paper, method.reference, self.summary])
        whole = rf"(?<![a-z0-9]){typed}(?![a-z0-9])"
        return bool(re.search(whole if len(typed) <= 3 else typed, text.lower()))

    def page(self) -> str:
        """The page that `gradkit show` prints for the method."""
        method = self.method
        sections = dict(self.sections)
        if method.kind in ("transform", "recipe"):
            each = self.bytes_a_parameter()
            sections["State"] += (
                f"\n\nIn a {SIDE} x {SIDE} matrix: {each} bytes a parameter."
            )
            sections.setdefault("Needs", "nothing beyond update(grads, state, params).")
        sections["Reference"] = method.reference or "none"
        if method.known_as:
            sections["Known as"] = method.known_as
        is_kind = method.family.rstrip("s") == method.kind  # such as recipe
        of = "" if is_kind else f" of the family {method.family}"
        sections["File"] = f"{method.path} (a {method.kind}{of})"
        titles = [*ORDER, *(title for title in sections if title not in ORDER)]
        ordered = {title: sections[title] for title in titles if title in sections}
        return _page(self.signature, self.body, ordered)

    def bytes_a_parameter(self) -> str:
        """The optimizer state of one parameter in a large float32 matrix, from `State:`."""
        arguments = _defaults(getattr(gk, self.method.name))
        try:
            stated = stated_in(self.sections["State"], arguments)
        except Undocumented:  # no formula a leaf
            return "0"
        each = stated.of_leaf("hidden/kernel", (SIDE, SIDE)) / SIDE**2
        number = f"{each:.3f}".rstrip("0").rstrip(".")
        return " and ".join([number, *(f"{name}'s" for name in stated.inner)])


def methods(family: str | None = None) -> list[Method]:
    """The methods of one family, or of all."""
    if family is not None:
        family = pick("family", family, FAMILIES)
    return [m for m in METHODS if hasattr(gk, m.name) and family in (None, m.family)]


def describe(name: str) -> Description:
    """The description of the method with this name or alias."""
    by_name = {method.name: method for method in methods()}
    typed = name.strip().lower()
    if typed not in by_name:
        aliased = [m for m in by_name.values() if typed in map(str.lower, m.names)]
        if len(aliased) > 1:
            names = " and ".join(m.name for m in aliased)
            raise Complaint(f"{name!r} is what {names} are known as. Choose one.")
        name = aliased[0].name if aliased else name
    if typed in ELSEWHERE:
        raise Complaint(f"no method {name!r} here. optax has it: {ELSEWHERE[typed]}.")
    name = pick("method", name, by_name, "gradkit list names them all.")
    signature, body, sections = _parsed(getattr(gk, name))
    return Description(by_name[name], signature, body, sections)


def page(name: str) -> str:
    """The page of a method, of another function, of a part of `gradkit.subspace`, or of a word."""
    typed = name.strip().lower()
    if typed == "glossary":
        return "\n".join(_entry(term, text) for term, text in TERMS.items())
    for term, text in TERMS.items():
        if typed in [term.lower(), *term.lower().split(", ")]:
            names = [m.name for m in methods() if typed in map(str.lower, m.names)]
            also = f" Methods: {', '.join(names)}." if names else ""
            return _entry(term, text + also)
    known = {word.lower() for m in methods() for word in (m.name, *m.names)}
    function = getattr(gk, typed, None)  # such as chain, which is no method
    if inspect.isfunction(function) and typed not in known:
        return _page(*_parsed(function))
    room, _, part = typed.rpartition(".")
    if room.removeprefix("gradkit.") != "subspace":
        return describe(name).page()
    parts = [part for part in gk.subspace.__all__ if part.islower()]
    part = pick("part of gradkit.subspace", part, parts)
    signature, body, sections = _parsed(getattr(gk.subspace, part))
    return _page(_filled(f"subspace.{signature}", "    "), body, sections)


def _parsed(factory: Any) -> tuple[str, str, dict[str, str]]:
    """The signature of a factory, and the body and sections of its docstring."""
    doc = (inspect.getdoc(factory) or "").partition("\n>>> ")[0]
    body, *parts = SECTION.split(_readable(doc))
    sections = dict(zip(parts[::2], map(inspect.cleandoc, parts[1::2])))
    if "Args" in sections:
        sections["Args"] = _arguments(sections["Args"], [*_defaults(factory)])
    return _signature(factory), body.strip(), sections


def _arguments(content: str, order: list[str]) -> str:
    """The entries of `Args:` in this order, with cited glossary entries put in place."""
    _, *parts = ARGUMENT.split(content)
    by_name = {}
    for names, text in zip(parts[::2], parts[1::2]):
        entry = " ".join(text.split())
        for name in re.split(r",\s+", names):
            cited = entry.startswith(CITED)
            by_name[name] = entry.replace(CITED, TERMS[name], 1) if cited else entry
    entries = (
        _entry(name, by_name[name], WIDTH - 4) for name in order if name in by_name
    )
    return "\n".join(entries)


def _page(signature: str, body: str, sections: dict[str, str]) -> str:
    blocks = [_section(title, content) for title, content in sections.items()]
    paragraphs = (
        part if part.startswith(" ") else _filled(part) for part in body.split("\n\n")
    )
    return "\n\n".join([signature, *paragraphs, "\n".join(blocks)])


def _section(title: str, content: str) -> str:
    if title == "Args":
        return f"Args:\n{textwrap.indent(content, '    ')}"
    first, *others = content.split("\n\n")
    below = [textwrap.indent(_filled(part, "", WIDTH - 4), "    ") for part in others]
    return "\n".join([_filled(f"{title}: {first}", "    "), *below])


def _entry(name: str, text: str, width: int = WIDTH) -> str:
    return _filled(f"{name}: {text}", "    ", width)


def _filled(text: str, indent: str = "", width: int = WIDTH) -> str:
    """Wrap text to this width, later lines indented; short `code` stays on one line."""
    glued = re.sub(r"`[^`]*`", _glued, " ".join(text.split()))
    filler = textwrap.TextWrapper(
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filler.fill(glued).replace(GLUE, " ")


def _glued(code: re.Match[str]) -> str:
    return code[0].replace(" ", GLUE) if len(code[0]) < WIDTH / 2 else code[0]


def _defaults(factory: Any) -> dict[str, Any]:
    """The default of every argument, `inspect.Parameter.empty` if it has none."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters}


def _signature(factory: Any) -> str:
    """Names and defaults, without types."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    kinds = {k: p.kind for k, p in inspect.signature(factory).parameters.items()}
    arguments = [
        f"{stars.get(kinds[name], '')}{name}"
        if default is inspect.Parameter.empty
        else f"{name}={_value(default)}"
        for name, default in _defaults(factory).items()
    ]
    return _filled(f"{factory.__name__}({', '.join(arguments)})", "    ")


def _value(default: Any) -> str:
    """A default as source text; a function by its name."""
    for name, named in vars(gk.newton_schulz).items():
        if name.isupper() and default is named:
            return f"newton_schulz.{name}"
    if callable(default):
        return default.__name__.replace("<lambda>", "...")
    return repr(default)


def _readable(doc: str) -> str:
    """The docstring with every formula as plain text; `$$` formulas on separate lines."""

    def displayed(match: re.Match[str]) -> str:
        return textwrap.indent(equations.text(match[1]), "    ")

    doc = re.sub(r"\$\$(.*?)\$\$", displayed, doc, flags=re.S)
    return re.sub(r"\$([^$]*)\$", lambda m: equations.text(m[1]), doc)
