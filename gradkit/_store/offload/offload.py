"""A state that is kept in the memory of the host, and on the device during an update."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradkit._core import check, numbers
from gradkit._core.call import error
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates

HOST = jax.memory.Space.Host


@factory
def store_by_offload(inner: AnyTransform, *, min_size: int = 4096) -> Transform:
    r"""Keep the state of `inner` in host memory, and move it to the device for an update.

    $$(u_t, s_t) = \mathrm{inner}(g_t, \mathrm{device}(s_{t-1})), \qquad
      s_t \leftarrow \mathrm{host}(s_t)$$

    Nothing is rounded: updates and states are those of `inner`, and so is the structure of the
    state. Between updates, while activations fill the memory of the device, the state takes none
    of it. Its arrays have `memory_kind="pinned_host"`, and each shard is in the memory of the
    host of its device.

    Args:
        inner: any transform, ours or optax's. Arrays of its state with at least `min_size`
            entries are kept in host memory; smaller ones, so counters and keys too, stay on the
            device.
        min_size: the fewest entries of an array that is moved: the transfer of a small one takes
            longer than it saves.

    Needs: what `inner` needs.
    State: `0` bytes a leaf, and the state of `inner`.
    Flops: `0` a leaf, and those of `inner`.
    Paper: Ren et al., "ZeRO-Offload: Democratizing Billion-Scale Model Training",
        arXiv:2101.06840, for the state in host memory.
    Departure: the paper computes the update on the host; here the device does, as in axlearn and
        MaxText, since a host takes longer than the transfers.
    Limits: put it around everything else, a codec too: what is around it works on arrays in host
        memory, which `store_by_int8` and its kin refuse. An update brings in the whole state, so
        its peak is that of `inner`, unless XLA orders the transfers by leaf. Donate in the order
        of the results: in `step(params, state) -> params, state`, not in `tx.update` itself.
        JAX pairs donated memory with results by shape alone, and on one device a mismatch ends
        the process. An update cannot be differentiated through its state. Tested on CPUs, where
        host and device share one memory: transfers cost nothing there, and save nothing.

    >>> tx, p = gk.store_by_offload(gk.scale_by_adam()), jnp.zeros((64, 64))
    >>> print(tx.init(p).mu.sharding.memory_kind)
    pinned_host
    """
    if not isinstance(min_size, jax.Array):  # as optax.inject_hyperparams passes it
        check.count("store_by_offload", min_size=min_size)
    tx = optax.with_extra_args_support(inner)

    def moves(x: Any) -> bool:
        is_number = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, np.number)
        return is_number and x.size >= min_size

    def init(params: Params) -> optax.OptState:
        check.concrete("store_by_offload", min_size=min_size)
        backend = jax.default_backend()
        requirement = "the backend must have pinned memory of its host"
        remedy = "Use the inner transform without store_by_offload there."
        check.holds("store_by_offload", _can(backend), requirement, backend, remedy)
        state = tx.init(params)
        return jax.tree.map(lambda x: _to_host(x) if moves(x) else x, state)

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        near = jax.tree.map(numbers.on_device, state)  # a no-op for what is there
        u, new = tx.update(updates, near, params, **extra)
        # where it came from: JAX asks it of a scan's carry, and of memory that is donated
        back = lambda old, x: _to_host(x) if numbers.is_in_host_memory(old) else x
        return u, jax.tree.map(back, state, new)

    return tx._replace(init=init, update=update)


@jax.custom_jvp
def _to_host(x: jax.Array) -> jax.Array:
    return jax.device_put(x, HOST)


@_to_host.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    text = (
        "an update must not be differentiated through a state in host memory, as JAX cannot, "
        "got a derivative. Use the inner transform there."
    )
    raise error(TypeError, "store_by_offload", text)


@functools.cache
def _can(backend: str) -> bool:
    """Whether this backend keeps in host memory what is put there; some only say so."""
    del backend
    with jax.ensure_compile_time_eval():
        try:
            kept = jax.device_put(np.zeros(1, np.float32), HOST)
        except (ValueError, RuntimeError):
            return False
        return kept.sharding.memory_kind == "pinned_host"
