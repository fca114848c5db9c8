"""Law 6."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt, same
from gradkit.testing._devices import stack
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject

SHARES = (1.0, 0.9)  # of every hyperparameter: two runs


@law(6)
def vmap(s: Subject) -> None:
    """Two runs under `jax.vmap` are the two runs in a loop, hyperparameters differing.

    Where this does not hold, no sweep or ensemble can be trained as one program.
    """
    hyper = [
        {k: jnp.float32(share * v) for k, v in s.hyper.items()} for share in SHARES
    ]
    grads = [[s.grads(2 * t + i) for i in range(len(SHARES))] for t in range(2)]

    def init(hyper: Any) -> Any:
        return s.make(**hyper).init(s.params)

    over = f"hyperparameters {', '.join(s.hyper)}" if s.hyper else "states"
    with attempt(f"init over {over}"):
        loop = [*map(jax.jit(init), hyper)]
        batch = stack(loop)
        if s.hyper:
            mapped = jax.jit(jax.vmap(init))(stack(hyper))
            same(f"init under vmap over {over}", mapped, batch)
    with attempt(f"an update under vmap over {over}"):
        one, update = s.live, jax.vmap(s.update_with)
        all_at_once = Program(update, stack(hyper), stack(grads[0]), batch)
    for t, gs in enumerate(grads):
        run = [one(h, g, state) for h, g, state in zip(hyper, gs, loop)]
        mapped, batch = all_at_once(stack(hyper), stack(gs), batch)
        loop = [state for _, state in run]
        same(f"update {t + 1} under vmap", mapped, stack([u for u, _ in run]))
        same(f"state {t + 1} under vmap", batch, stack(loop))
