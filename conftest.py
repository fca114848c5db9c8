"""Names that every doctest may use."""

import pytest


@pytest.fixture(autouse=True)
def _names(doctest_namespace):
    import jax
    import jax.numpy as jnp
    import optax

    import gradkit as gk

    doctest_namespace.update(gk=gk, jax=jax, jnp=jnp, optax=optax)
