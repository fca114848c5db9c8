"""Law 23."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt, same
from gradkit.testing._law import law
from gradkit.testing._subject import Subject

Case = tuple[float | None, ...]  # what the entries of each leaf are, None where drawn
PLAIN: Case = (0.0, 1e-30, None)
IN_COND: Case = (1e25, None, 0.0)
IN_SCAN: tuple[Case, ...] = ((1e-30, 0.0, 1e25), (0.0, 0.0, 0.0))


@law(23)
def constant_gradient(s: Subject) -> None:
    """Where the compiler knows values of a gradient, updates and states are those without jit.

    It knows the gradient of a parameter that the loss does not use, or uses behind
    `stop_gradient`. Where this does not hold, what is computed before the run is another number
    than what is computed in it: nothing is clipped, or the state becomes NaN.
    """
    first, given = s.tx.init(s.params), (s.grads(0), s.params)

    def update(case: Case, state: Any, given: Any) -> tuple[Any, Any]:
        good, params = given
        grads = {}
        for i, (k, g) in enumerate(sorted(good.items())):  # as jit sorts them
            known = case[i % len(case)]
            grads[k] = g if known is None else jnp.full(g.shape, known, g.dtype)
        return s.update(grads, state, params)

    def after(case: Case, steps: int) -> list[tuple[Any, Any]]:
        """Run this many updates without jit; return the results of each."""
        state, out = first, []
        for _ in range(steps):
            out.append(update(case, state, given))
            state = out[-1][1]
        return out

    @jax.jit
    def once(states: Any, given: Any, flag: Any) -> Any:
        go = lambda state: update(IN_COND, state, given)
        stay = lambda state: (given[0], state)
        return update(PLAIN, states[0], given), jax.lax.cond(flag, go, stay, states[1])

    @jax.jit
    def twice(states: Any, given: Any) -> Any:
        def body(states: Any, _: None) -> tuple[Any, Any]:
            pairs = [update(c, x, given) for c, x in zip(IN_SCAN, states)]
            return [state for _, state in pairs], pairs

        pairs = jax.lax.scan(body, states, length=2)[1]
        return [jax.tree.map(lambda x, t=t: x[t], pairs) for t in (0, 1)]

    with attempt("a jitted update with a constant gradient"):
        one = once([first] * 2, given, jnp.bool_(True))
        two = once([state for _, state in one], given, jnp.bool_(True))
    with attempt("a scan over updates with a constant gradient"):
        both = twice([first] * len(IN_SCAN), given)
    runs = [(PLAIN, "", [one[0], two[0]]), (IN_COND, " in a cond", [one[1], two[1]])]
    runs += [(c, " in a scan", [*steps]) for c, *steps in zip(IN_SCAN, *both)]
    for case, where, jitted in runs:
        what = f"a jitted update{where} with gradients of {case}"
        with attempt(f"an update without jit with gradients of {case}"):
            eager = after(case, 2)
        for t, (got, want) in enumerate(zip(jitted, eager), 1):
            same(f"{what}, step {t}", got, want)
