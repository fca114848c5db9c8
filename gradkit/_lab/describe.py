"""What the catalogue and the docstrings say of a method; starts no device."""

import inspect
import re
import textwrap
from typing import Any, NamedTuple

import gradkit as gk
from gradkit._lab import equations
from gradkit._lab.complaint import pick
from gradkit.catalogue import FAMILIES, METHODS, Method

SECTION = re.compile(r"^([A-Z][a-z]+):(?=\s)", re.M)
ORDER = ("Args", "Needs", "State", "Flops", "Paper", "Departure", "Limits")
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

    def record(self) -> dict[str, str]:
        """The method as JSON."""
        name, family, paper, reference = self.method
        return {
            "name": name,
            "family": family,
            "kind": self.method.kind,
            "summary": self.summary,
            "paper": paper,
            "reference": reference,
            "file": self.method.path,
        }

    def page(self) -> str:
        """All that is said of the method."""
        method = self.method
        said = dict(self.sections)
        if method.kind in ("transform", "recipe"):
            each = self.bytes_a_parameter()
            said["State"] += f"\nIn a {SIDE} x {SIDE} matrix: {each} bytes a parameter."
            said.setdefault("Needs", "nothing beyond update(grads, state, params).")
        said["Reference"] = method.reference or "none"
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
    """The description of the method with this name."""
    known = {method.name: method for method in methods()}
    name = pick("method", name, known, "gradkit list names them all.")
    factory = getattr(gk, name)
    said = (inspect.getdoc(factory) or "").partition("\n>>> ")[0]
    body, *rest = SECTION.split(_readable(said))
    contents = [inspect.cleandoc(content) for content in rest[1::2]]
    sections = dict(zip(rest[::2], contents))
    return Description(known[name], _signature(factory), body.strip(), sections)


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
