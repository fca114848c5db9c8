"""The transform under test: how to build it, what to feed it, and what it does when jitted."""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradkit
from gradkit.testing._compare import attempt
from gradkit.testing._program import Program

SHAPES = {"kernel": (6, 4), "wide": (3, 5), "bias": (4,), "scale": ()}
STEPS = 3
REQUIRED = {  # what a factory's arguments without defaults are filled with, by name
    "learning_rate": lambda: 1e-3,
    "inner": gradkit.scale_by_adam,  # holds all laws, so it is not what fails
    "key": lambda: jax.random.key(0),
}


class Run(NamedTuple):
    """The jitted transform over `STEPS` updates."""

    updates: list[Any]  # one a step
    states: list[Any]  # the first, then one a step
    traces: int  # how often the update was traced
    warnings: list[str]  # what jax said about the donated state and parameters


class Subject:
    """One transform and one tree of parameters, with what several laws need of them.

    `make_tx` is a ready transform, or a factory: a callable whose arguments have defaults or
    are named `learning_rate`, `inner` or `key`. `extra` is passed to every update. `seconds` are
    what one update may take where it could hang. `compiler_options` are those of `jax.jit` for
    the step that is jitted.
    """

    def __init__(
        self,
        make_tx: Any,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        extra: Mapping[str, Any] | None = None,
        seconds: float = 20.0,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        self.factory: Callable[..., Any] = (
            make_tx if callable(make_tx) else lambda: make_tx
        )
        self.shapes = dict(SHAPES if shapes is None else shapes)
        self.extra = dict(extra or {})
        self.seconds = seconds
        self.compiler_options = dict(compiler_options or {})
        self.required: dict[str, Any] = {}
        self.arguments: dict[str, Any] = {}
        for name, argument in inspect.signature(self.factory).parameters.items():
            if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                continue
            if argument.default is not argument.empty:
                self.arguments[name] = argument.default
            elif name in REQUIRED:
                self.arguments[name] = self.required[name] = REQUIRED[name]()
            else:
                raise TypeError(
                    f"gradkit.testing: argument {name!r} of {self.factory!r} must have a "
                    "default. Pass functools.partial of it, or a ready transform."
                )

    @property
    def hyper(self) -> dict[str, float]:
        """The hyperparameters that are floats."""
        return {k: v for k, v in self.arguments.items() if isinstance(v, float)}

    def make(self, **changed: Any) -> optax.GradientTransformationExtraArgs:
        """The transform, with some arguments changed."""
        tx = self.factory(**{**self.required, **changed})
        return optax.with_extra_args_support(tx)

    @functools.cached_property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """The transform as it comes."""
        return self.make()

    @functools.cached_property
    def params(self) -> dict[str, jax.Array]:
        """Parameters, float32."""
        return self._draw(0)

    def grads(self, step: int) -> dict[str, jax.Array]:
        """The gradients of one step, float32."""
        return self._draw(1 + step)

    def _draw(self, seed: int) -> dict[str, jax.Array]:
        rng = np.random.default_rng(seed)
        with (
            jax.ensure_compile_time_eval()
        ):  # whatever is traced where it is first drawn
            return {
                k: jnp.asarray(np.float32(rng.normal(size=s)))
                for k, s in self.shapes.items()
            }

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """One update, as it comes."""
        return self.tx.update(grads, state, params, **self.extra)

    def update_with(self, hyper: Any, grads: Any, state: Any) -> tuple[Any, Any]:
        """One update of `params` with these hyperparameters."""
        return self.make(**hyper).update(grads, state, self.params, **self.extra)

    @functools.cached_property
    def live(self) -> Program:
        """`update_with` as a program of all hyperparameters that are floats."""
        hyper = {k: jnp.float32(v) for k, v in self.hyper.items()}
        return Program(self.update_with, hyper, self.grads(0), self.state_kinds)

    @functools.cached_property
    def state_kinds(self) -> Any:
        """The shapes and dtypes of the first state."""
        return jax.eval_shape(self.tx.init, self.params)

    @functools.cached_property
    def program(self) -> Program:
        """The first update as a program."""
        return Program(self.update, self.grads(0), self.state_kinds, self.params)

    @functools.cached_property
    def donating_step(self) -> Any:
        """Jitted (grads, state, params) -> (state, params, updates); both are donated.

        JAX gives donated memory to the first result of its shape, in whichever memory that is to
        be, so results stand in the order of what is donated.
        """

        def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any, Any]:
            self._traces += 1
            updates, state = self.update(grads, state, params)
            return state, optax.apply_updates(params, updates), updates

        self._traces = 0
        options = self.compiler_options
        return jax.jit(step, donate_argnums=(1, 2), compiler_options=options)

    def step(self, grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """One jitted update, of `params` as they come if not given, nothing donated."""
        kept = copies(state), copies(self.params if params is None else params)
        state, _, updates = self.donating_step(grads, *kept)
        return updates, state

    @functools.cached_property
    def run(self) -> Run:
        """The jitted transform over `STEPS` updates, compiled once for all laws."""
        with attempt("init"):
            states = [self.tx.init(self.params)]
        updates = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for t in range(STEPS):
                with attempt("a jitted update"):
                    update, state = self.step(self.grads(t), states[-1])
                updates.append(update)
                states.append(state)
        said = [str(w.message) for w in caught]
        for w, text in zip(caught, said):
            if "donated" not in text:
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
        about_donation = [text for text in said if "donated" in text]
        return Run(updates, states, self._traces, about_donation)


def subject(make_tx: Any) -> Subject:
    """`make_tx` as a Subject, which it may be already."""
    return make_tx if isinstance(make_tx, Subject) else Subject(make_tx)


def copies(tree: Any) -> Any:
    """The same tree in buffers of its own."""
    return jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, tree)


def cast(tree: Any, dtype: Any) -> Any:
    """The same tree in another dtype."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x).astype(dtype)), tree)
