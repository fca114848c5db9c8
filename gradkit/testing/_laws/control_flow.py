"""Law 4."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(4)
def control_flow(s: Subject) -> None:
    """The state is carried through `lax.scan`, `lax.cond` and `lax.while_loop`.

    Where this does not hold, no training loop can be compiled, and no step skipped. They
    refuse at tracing what changes its type, so nothing is compiled here.
    """
    grads, params, flag = s.grads(0), s.params, jnp.bool_(True)
    state = s.tx.init(params)
    steps = jax.tree.map(lambda g: jnp.stack([g, g]), grads)

    def update(grads: Any, state: Any) -> tuple[Any, Any]:
        return s.update(grads, state, params)

    def scan(state: Any) -> Any:
        return jax.lax.scan(lambda state, g: update(g, state)[::-1], state, steps)

    def cond(state: Any) -> Any:
        return jax.lax.cond(flag, update, lambda *unchanged: unchanged, grads, state)

    def loop(state: Any) -> Any:
        first = update(grads, state)
        return jax.lax.while_loop(lambda _: flag, lambda x: update(*x), first)

    for name, flow in {"scan": scan, "cond": cond, "while_loop": loop}.items():
        with attempt(f"lax.{name} over updates"):
            jax.eval_shape(flow, state)
