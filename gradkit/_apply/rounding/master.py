"""Master weights: a float32 copy is updated, and the parameters are its rounded values."""

from typing import NamedTuple

import jax
import optax

from gradkit._core import check, numbers, tree
from gradkit._core.codec import floats
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Transform, Updates, rounding


class MasterState(NamedTuple):
    """State of `round_by_master`: the parameters in full precision."""

    master: Params  # float32, like the parameters of less than that


@factory
def round_by_master() -> Transform:
    r"""Update a copy of the parameters in float32, and land on the numbers nearest to it.

    $$m \leftarrow m + \Delta, \qquad u = \mathrm{nearest}(m) - p$$

    where `nearest` is in the parameter's dtype.

    Needs: params. Stands last in a chain, `gradkit.chain` or `optax.chain`. The update is in
        float32, so that `optax.apply_updates` lands on the nearest number.
    State: `4*size` bytes a leaf of bfloat16 or float16, `0` of others, `0` once.
    Flops: at most `20*size` a leaf.
    Paper: Micikevicius et al., "Mixed Precision Training", arXiv:1710.03740, Section 3.1.
    Departure: none.
    Limits: for bfloat16 and float16; leaves of float32 and wider pass as they are. Parameters that
        are set from outside return to the copy at the next update: call `init` anew. Transforms
        before this one see the rounded parameters, not the copy. A codec around it, such as
        `store_by_int4`, would round the copy too: put the codec around what stands before. Add
        updates by `optax.apply_updates`: `p + u`, as in `equinox.apply_updates`, makes parameters
        float32, which the next update refuses. Overflow gives the largest number of the dtype, and
        a non-finite entry counts as zero. Under strict promotion of dtypes add the update to
        parameters cast to float32. Put `optax.apply_if_finite` before it, inside the chain: it
        needs updates in the dtype of gradients.

    >>> tx, p, u = gk.round_by_master(), jnp.ones((), jnp.bfloat16), jnp.float32(1e-3)
    >>> state, add = tx.init(p), jax.jit(tx.update)
    >>> for _ in range(100): d, state = add(u, state, p); p = (p.astype(d.dtype) + d).astype(p.dtype)
    >>> print(p, state.master.round(4))  # rounded alone it would not move
    1.10156 1.1
    """

    def init(params: Params) -> MasterState:
        def copy(p: jax.Array) -> jax.Array | optax.MaskedNode:
            return numbers.wide(p) if numbers.is_narrow(p.dtype) else optax.MaskedNode()

        return MasterState(jax.tree.map(copy, params))

    def update(
        updates: Updates, state: MasterState, params: Params, **extra: Extra
    ) -> tuple[Updates, MasterState]:
        del extra
        check.still_narrow("round_by_master", params, state.master)

        def land(u: jax.Array, p: jax.Array, m: jax.Array) -> tuple[jax.Array, ...]:
            if not numbers.is_narrow(p.dtype):
                return u, m
            m = (m.astype(u.dtype) + u).astype(m.dtype)
            return floats.nearest(m, p.dtype) - p.astype(m.dtype), m

        us = numbers.read(updates)
        u, master = tree.unzip(us, jax.tree.map(land, us, params, state.master), 2)
        return u, MasterState(master)

    return rounding("round_by_master", init, update)
