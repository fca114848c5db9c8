"""Law 2."""

import jax

from gradkit.testing._compare import leaves, require
from gradkit.testing._law import law
from gradkit.testing._subject import STEPS, Subject


@law(2)
def traced_once(s: Subject) -> None:
    """A jitted update is traced at the first step and never again.

    Where this does not hold, every training step is compiled twice, minutes at a time.
    """
    before, after = map(types, s.run.states[:2])
    changed = [k for k in before | after if before.get(k) != after.get(k)]
    change = ", ".join(f"{k!r} {before.get(k)} -> {after.get(k)}" for k in changed)
    require(
        s.run.traces == 1,
        f"{STEPS} updates must be traced once, got {s.run.traces} traces; "
        f"state leaves that changed type: {change or 'none'}",
    )


def types(state: object) -> dict[str, str]:
    """The type jit sees of every leaf: dtype, shape, and whether the dtype is weak."""

    def describe(x: object) -> str:
        seen = jax.typeof(x)
        weak = " weak" if getattr(seen, "weak_type", False) else ""
        return f"{seen.str_short()}{weak}"

    return {path: describe(x) for path, x in leaves(state).items()}
