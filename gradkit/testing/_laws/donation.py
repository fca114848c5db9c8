"""Law 11."""

import jax

from gradkit.testing._compare import attempt, leaves, require, same
from gradkit.testing._law import law
from gradkit.testing._subject import Subject, copies


@law(11)
def donation(s: Subject) -> None:
    """Parameters and state are donated to a jitted step, from the first state on.

    Where this does not hold, training holds every parameter and state in memory twice.
    """
    params = copies(s.params)
    state = s.tx.init(params)
    owners: dict[int, str] = {}
    named = {f"parameter {k}": x for k, x in leaves(params).items()}
    named |= {f"state leaf {k}": x for k, x in leaves(state).items()}
    for name, x in named.items():
        if isinstance(x, jax.Array) and x.size:
            for part in x.addressable_shards:
                owner = owners.setdefault(part.data.unsafe_buffer_pointer(), name)
                require(
                    owner == name, f"{name} must have memory of its own, not {owner}'s"
                )
    for t, want in enumerate(s.run.updates[:2]):
        with attempt("a step with donated parameters and state"):
            state, params, updates = s.donating_step(s.grads(t), state, params)
        if t == 0:
            same("the first update of a donating step", updates, want)
    require(
        not s.run.warnings,
        f"every donated leaf must be used, got {' '.join(s.run.warnings)[:300]}",
    )
