"""All laws over one transform, as a table."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gradkit.testing._compare import Unavailable, Undocumented
from gradkit.testing._law import every
from gradkit.testing._subject import Subject

LAWS = every()


class Row(NamedTuple):
    """The outcome of one law."""

    law: str
    outcome: str  # "pass", "fail", "xfail", "undocumented" or "unavailable"
    reason: str  # empty where it passes


class Table(tuple[Row, ...]):
    """One row a law, in their order."""

    @property
    def ok(self) -> bool:
        """No law fails."""
        return all(row.outcome != "fail" for row in self)

    def __str__(self) -> str:
        wide, first = max(map(len, LAWS)), {}

        def reason(row: Row) -> str:
            what, works, error = row.reason.partition(" must work, got ")
            law = first.setdefault(error, row.law) if works else row.law
            return row.reason if law == row.law else f"{what}{works}the error of {law}"

        return "\n".join(
            f"{row.law:{wide}}  {row.outcome:12}  {reason(row)}".rstrip()
            for row in self
        )


def check(
    tx_or_factory: Any,
    *,
    xfail: Mapping[str, str] | None = None,
    laws: Iterable[str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Table:
    """Hold one transform to the laws.

    Args:
        tx_or_factory: a transform, or what makes one: a callable, such as `optax.adamw` or a
            `functools.partial` of it, whose arguments have defaults or are named
            `learning_rate`, `inner` or `key`. Only a factory lets its hyperparameters vary.
        xfail: law -> the reason why it is expected to fail. Such a law that holds is a failure:
            take it off.
        laws: names from `LAWS`; all by default.
        shapes: name -> shape of the parameters; by default two matrices, a vector, a scalar.
        extra: keyword arguments that every update needs, such as `value`.

    >>> from gradkit.testing import check
    >>> print(check(gk.adamw, laws=["jit", "donation"]))
    jit                   pass
    donation              pass
    """
    xfail = dict(xfail or {})
    chosen = list(LAWS if laws is None else laws)
    for name in [*chosen, *xfail]:
        if name not in LAWS:
            raise ValueError(
                f"gradkit.testing.check: laws must be among {', '.join(LAWS)}, "
                f"got {name!r}."
            )
    subject = (
        tx_or_factory
        if isinstance(tx_or_factory, Subject)
        else Subject(tx_or_factory, shapes, extra)
    )
    return Table(row(name, subject, xfail.get(name)) for name in chosen)


def row(name: str, subject: Subject, why: str | None) -> Row:
    """Try one law."""
    try:
        LAWS[name](subject)
    except AssertionError as error:
        return Row(name, "fail", str(error)) if why is None else Row(name, "xfail", why)
    except Undocumented as error:
        return Row(name, "undocumented", str(error))
    except Unavailable as error:
        return Row(name, "unavailable", str(error))
    if why is None:
        return Row(name, "pass", "")
    return Row(name, "fail", f"it holds, and was expected to fail: {why}")
