"""A parametrization inferred in a test, in short."""

import jax
import jax.numpy as jnp

import gradkit as gk


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


IMAGES, TOKENS = shape(4, 3), shape(2, 5, dtype=jnp.int32)


def infer(init, apply, example, base=8, target=32, **options):
    """By what `apply` does with each parameter; models may promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        return gk.infer_parametrization(
            init, base=base, target=target, apply=apply, example=example, **options
        )


def axes(found):
    """By path: role, inputs, outputs, stacks."""
    return {k: (p.role, p.inputs, p.outputs, p.stacks) for k, p in found.items()}


def roles(found):
    return {path: p.role for path, p in found.items()}
