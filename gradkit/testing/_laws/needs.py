"""Law 31: `Needs:` agrees with what an update requires."""

import functools
import re

import jax

from gradkit.testing._compare import require
from gradkit.testing._law import law
from gradkit.testing._program import Program, agree
from gradkit.testing._stated import name, words
from gradkit.testing._subject import Subject

CONDITION = r"\b(if|unless|when|where)\b"


@law(31)
def needs(s: Subject) -> None:
    """The docstring says which extra arguments an update needs, and an update says which it lacks.

    Under `Needs:`, "params" are refused where they lack, "params, unless `weight_decay` is 0" where
    it is not, and where they are not named the update is the same without them. Others, such as
    "`value`", are refused where they lack, if it is not said what holds "where given". What is refused is named in a
    ValueError or TypeError, with the factory; of a docstring without `Needs:` and `State:` no
    more is asked. Where this does not hold, who forgets an argument is told of None and of NoneType.
    """
    said = words(s, "Needs") or ""
    known = bool(said) or words(s, "State") is not None
    of_params(s, said, known)
    for extra in s.extra:
        lacks = refusal(s, extra, known)
        optional = "given" in said.partition(f"`{extra}`")[2]
        if known:
            require(f"`{extra}`" in said, f"`Needs:` must name {extra}, got {said!r}")
            require(bool(lacks) != optional, told(extra, said, lacks))


def of_params(s: Subject, said: str, known: bool) -> None:
    """Check what `Needs:` says of parameters."""
    lacks, first = refusal(s, "params", known), re.split("[.;]", said)[0]
    needed, unless = re.match(r"`?params\b", first), re.search(r"`(\w+)` is 0", first)
    if needed and unless and s.arguments.get(unless[1]) is not None:
        at_zero = Subject(
            functools.partial(s.factory, **{unless[1]: 0.0}), s.shapes, s.extra
        )
        lacks_at_zero = refusal(at_zero, "params", known)
        require(not lacks_at_zero, told("params", said, lacks_at_zero))
        require(lacks or not s.arguments[unless[1]], told("params", said, lacks))
    elif known and not (needed and re.search(CONDITION, first)):
        require(bool(lacks) == bool(needed), told("params", said, lacks))
    if known and not needed:
        args = s.grads(0), s.state_kinds, s.params
        without = Program(lambda g, state, _: s.update(g, state, None), *args)
        if not without.same_as(s.program):
            args = s.grads(0), s.tx.init(s.params), s.params
            agree("the update without params", without, s.program, *args)


def told(what: str, said: str, lacks: str) -> str:
    """How the docstring and an update without `what` differ."""
    return (
        f"an update without {what} must do what `Needs:` says, which is {said!r}, got "
        f"{lacks or 'an update as if none lacked'}"
    )


def refusal(s: Subject, what: str, known: bool) -> str:
    """The error of an update without the argument `what`, as text; empty if there is none."""
    grads, state = s.grads(0), s.state_kinds
    extra = {k: x for k, x in s.extra.items() if k != what}
    params = None if what == "params" else s.params
    try:
        jax.eval_shape(
            lambda g, state: s.tx.update(g, state, params, **extra), grads, state
        )
    except Exception as error:
        text = str(error)
        clear = isinstance(error, TypeError | ValueError) and "NoneType" not in text
        names = what in text and (not known or f"{name(s)}: " in text)
        require(
            clear and names,
            f"an update without {what} must say that they are missing, in an error that "
            f"begins with the name of the factory, got {type(error).__name__}: {text[:200]}",
        )
        return f"{type(error).__name__}: {text}"
    return ""
