"""Tasks of a race: a model, its loss, and its training, validation and test data.

All data are deterministic. Both held-out losses are means over fixed, evenly spaced examples of
disjoint splits, at most `HELD_OUT` batches of each: on a CPU a loss costs as much as one to six
steps of training, so that a run can be asked for it 50 times.
"""

import functools
import hashlib
import inspect
import math
import pathlib
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit import Task
from gradkit._lab import models, spec, text
from gradkit._lab.complaint import Complaint, pick

Batch = Any  # a pytree of arrays, examples first
Loss = Callable[[models.Params, Batch], jax.Array]

HELD_OUT = 16  # batches of validation and of test; each costs up to a third of a step
DRAWN = 16  # batches that a fingerprint sees
SPECTRUM = 1e4  # largest over smallest eigenvalue of the Hessian of least squares
NOISE = 0.1  # of the least squares' targets, by their size


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean of minus the log-probability of each label, in nats."""
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)


def arguments(width: int) -> dict[str, Any]:
    """One weight decay for all recipes, and a rank below `width`; defaults suit larger models."""
    return {"weight_decay": 0.01, "rank": max(1, width // 4)}


def held_out(
    loss: Loss, examples: Batch, batch: int, batches: int = HELD_OUT
) -> Callable[[models.Params], jax.Array]:
    """The mean loss over evenly spaced examples, at most so many batches, one after another."""
    count = len(jax.tree.leaves(examples)[0])
    asked = min(count, batches * batch)
    shape = (parts := -(-asked // batch)), asked // parts
    used = math.prod(shape)
    places = (np.arange(used) * count // used).reshape(shape)  # all different
    chosen = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[places]), examples)

    def mean(params: models.Params) -> jax.Array:
        return jnp.mean(jax.lax.map(functools.partial(loss, params), chosen))

    return mean


def windows(part: np.ndarray, context: int) -> np.ndarray:
    """All windows of `context + 1` bytes, none of which overlap, `[window, context + 1]`."""
    count = len(part) // (context + 1)
    return part[: count * (context + 1)].reshape(count, context + 1).astype(np.int32)


def of_bytes(
    name: str,
    model: str,
    init: Callable[[jax.Array], models.Params],
    loss: Loss,
    path: pathlib.Path | None,
    without: pathlib.Path | None,
    *,
    width: int,
    context: int,
    batch: int,
) -> Task:
    """The task of a model whose loss is of windows of `context + 1` bytes."""
    parts = text.given(path, without) if path else text.standard_library()
    if min(map(len, parts)) <= context:
        train, validation, test = map(len, parts)
        raise Complaint(
            f"too little data: {train} bytes to train on, {validation} for validation and {test} "
            f"for test, each must be above {context}. Name a larger file or folder."
        )
    train = jnp.asarray(parts.train)

    def data(key: jax.Array) -> jax.Array:
        starts = jax.random.randint(key, (batch,), 0, len(train) - context)
        cut = lambda start: jax.lax.dynamic_slice_in_dim(train, start, context + 1)
        return jax.vmap(cut)(starts).astype(jnp.int32)

    source = text.name(path) if path else "the Python standard library"
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:8]
    return Task(
        name=name,
        init=init,
        loss=loss,
        data=data,
        validation=held_out(loss, windows(parts.validation, context), batch),
        test=held_out(loss, windows(parts.test, context), batch),
        summary=f"the next byte of {source} ({len(train) / 1e6:.3g} MB, {digest}); {model}; "
        f"{batch} x {context} bytes a step",
        unit="bytes",
        units=batch * context,
        arguments=arguments(width),
    )


def next_byte(
    path: pathlib.Path | None = None,
    *,
    without: pathlib.Path | None = None,
    width: int = 64,
    layers: int = 2,
    heads: int = 2,
    context: int = 32,
    batch: int = 12,
) -> Task:
    """Predict the next byte of text, without files in `without`, with a transformer."""
    whole(width=width, layers=layers, heads=heads, context=context, batch=batch)
    divisible(width, 2 * heads, "twice --heads, as features are rotated in pairs")
    init, loss = predictor(functools.partial(models.Transformer, width, layers, heads))
    model = f"transformer, {_layers(layers)} of width {width}"
    sizes = {"width": width, "context": context, "batch": batch}
    return of_bytes("bytes", model, init, loss, path, without, **sizes)


def rnn(
    path: pathlib.Path | None = None,
    *,
    without: pathlib.Path | None = None,
    width: int = 64,
    layers: int = 1,
    context: int = 32,
    batch: int = 12,
) -> Task:
    """Predict the next byte of text, without files in `without`, with gated recurrent units."""
    whole(width=width, layers=layers, context=context, batch=batch)
    init, loss = predictor(functools.partial(models.Recurrent, width, layers))
    model = f"gated recurrent units, {_layers(layers)} of width {width}"
    sizes = {"width": width, "context": context, "batch": batch}
    return of_bytes("rnn", model, init, loss, path, without, **sizes)


def predictor(build: Callable[..., Any]) -> tuple[Callable[..., models.Params], Loss]:
    """`init`, and the loss of every byte of a window that has bytes before it."""
    init, apply = models.functional(build)

    def loss(params: models.Params, windows: Batch) -> jax.Array:
        return cross_entropy(apply(params, windows[..., :-1]), windows[..., 1:])

    return init, loss


def of_digits(
    name: str,
    model: str,
    init: Callable[[jax.Array], models.Params],
    loss: Loss,
    *,
    width: int,
    batch: int,
) -> Task:
    """The task of a model whose loss is of images `[image, 8, 8]`, from -1 to 1, and labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.asarray(images / 8 - 1, np.float32).reshape(-1, 8, 8)
    order = np.random.default_rng(0).permutation(len(images))
    cuts = len(order) * 4 // 5, len(order) * 9 // 10
    train, validation, test = (
        (images[part], labels[part].astype(np.int32)) for part in np.split(order, cuts)
    )
    count = len(train[0])
    if batch > count:
        raise Complaint(f"--batch must be at most the {count} images, got {batch}.")
    known = jax.tree.map(jnp.asarray, train)

    def data(key: jax.Array) -> Batch:
        chosen = jax.random.randint(key, (batch,), 0, count)
        return jax.tree.map(lambda x: x[chosen], known)

    return Task(
        name=name,
        init=init,
        loss=loss,
        data=data,
        validation=held_out(loss, validation, batch),
        test=held_out(loss, test, batch),
        summary=f"scikit-learn's digits ({count} images); {model}; {batch} images a step",
        unit="images",
        units=batch,
        arguments=arguments(width),
    )


def digits(*, width: int = 16, batch: int = 64) -> Task:
    """Classify handwritten digits with a small convolutional network."""
    whole(width=width, batch=batch)
    init, loss = classifier(functools.partial(models.Convnet, width))
    model = f"convolutional network of width {width}"
    return of_digits("digits", model, init, loss, width=width, batch=batch)


def vit(*, width: int = 32, layers: int = 2, heads: int = 2, batch: int = 64) -> Task:
    """Classify handwritten digits, as 16 patches of 2 by 2 pixels, with a transformer."""
    whole(width=width, layers=layers, heads=heads, batch=batch)
    divisible(width, heads, "--heads")
    init, loss = classifier(functools.partial(models.Vit, width, layers, heads))
    model = f"vision transformer, {_layers(layers)} of width {width}"
    return of_digits("vit", model, init, loss, width=width, batch=batch)


def classifier(build: Callable[..., Any]) -> tuple[Callable[..., models.Params], Loss]:
    """`init`, and the loss of labels of images."""
    init, apply = models.functional(build)

    def loss(params: models.Params, examples: Batch) -> jax.Array:
        return cross_entropy(apply(params, examples[0]), examples[1])

    return init, loss


def autoencoder(*, width: int = 64, batch: int = 64) -> Task:
    """Encode digits in an eighth of `width` numbers: the task of many second-order papers.

    Layers are 64, 64, 32, 8, 32, 64 and 64 wide, with tanh between; the loss is the mean squared
    error of a pixel, from -1 to 1.
    """
    whole(width=width, batch=batch)
    divisible(width, 8, "8")
    init, apply = models.functional(functools.partial(models.Autoencoder, width))

    def loss(params: models.Params, examples: Batch) -> jax.Array:
        pixels = examples[0].reshape(-1, 64)
        return jnp.mean((apply(params, pixels) - pixels) ** 2)

    model = f"autoencoder of width {width} and code {width // 8}"
    return of_digits("autoencoder", model, init, loss, width=width, batch=batch)


def lstsq(*, width: int = 32, batch: int = 64) -> Task:
    """Least squares of a matrix, whose Hessian has condition number 1e4.

        x = Q diag(sqrt(spectrum)) z,  y = x W + 0.1 noise,  z and noise normal
        loss = sum((x w - y)^2) / 2, a mean over examples

    Every example is new. `w` is `[width, outputs]`, with half as many outputs; `Q` is orthogonal,
    and `spectrum` log-spaced from 1 to 1e-4: the eigenvalues of the Hessian of the expected loss,
    each of them once for every output. Its minimum, of noise alone, is 0.005.
    """
    whole(width=width, batch=batch)
    if width < 2:
        raise Complaint(f"--width must be at least 2 for lstsq, got {width}.")
    outputs = width // 2
    draw = np.random.default_rng(0)
    basis, _ = np.linalg.qr(draw.normal(size=(width, width)))
    spectrum = np.geomspace(1, 1 / SPECTRUM, width)
    root = jnp.asarray(spectrum[:, None] ** 0.5 * basis, jnp.float32)  # z -> x
    best = draw.normal(size=(width, outputs)) / outputs**0.5
    target = jnp.asarray(best, jnp.float32)

    def drawn(key: jax.Array, count: int) -> Batch:
        inputs, noise = jax.random.split(key)
        x = jax.random.normal(inputs, (count, width), jnp.float32) @ root
        noise = jax.random.normal(noise, (count, outputs), jnp.float32)
        return x, x @ target + NOISE / outputs**0.5 * noise

    def loss(params: models.Params, examples: Batch) -> jax.Array:
        x, y = examples
        return jnp.sum((x @ params["w"] - y) ** 2) / (2 * len(x))

    def init(key: jax.Array) -> models.Params:
        w = jax.random.normal(key, (width, outputs), jnp.float32)
        return {"w": 0.1 * w / outputs**0.5}

    validation, test = (
        held_out(loss, drawn(key, HELD_OUT * batch), batch)
        for key in jax.random.split(jax.random.key(1), 2)
    )
    return Task(
        name="lstsq",
        init=init,
        loss=loss,
        data=functools.partial(drawn, count=batch),
        validation=validation,
        test=test,
        summary=f"least squares of {width} x {outputs} parameters, condition number "
        f"{SPECTRUM:.0e}; {batch} examples a step",
        units=batch,
        arguments=arguments(width),
    )


TASKS: Mapping[str, Callable[..., Task]] = {
    "bytes": next_byte,
    "digits": digits,
    "rnn": rnn,
    "vit": vit,
    "autoencoder": autoencoder,
    "lstsq": lstsq,
}


def named(
    name: str,
    *,
    data: pathlib.Path | None = None,
    without: pathlib.Path | None = None,
    **sizes: int | None,
) -> Task:
    """The task of this name, or at `module:task`, on the text at `data`, without `without`.

    At `module:task` is a `Task` or a function that returns one. Sizes that are None are left to
    the task; one that it does not take is a `Complaint`.
    """
    asked = {size: n for size, n in sizes.items() if n is not None}
    if ":" in name:
        if data is not None:
            raise Complaint(f"--data is for {_takers('path')}; {name} brings its own.")
        return loaded(name, asked)
    everything = f"Choose from {', '.join(TASKS)}, or name your own as module:task."
    name = pick("task", name, TASKS, everything)
    make = TASKS[name]
    for size in asked:
        if size not in (taken := _sizes(make)):
            raise Complaint(
                f"--{size} is for {_takers(size)}; {name} takes "
                f"{', '.join(f'--{x}' for x in taken)}."
            )
    if "path" in inspect.signature(make).parameters:
        return make(data, without=without, **asked)
    if data is not None:
        raise Complaint(f"--data is for {_takers('path')}; {name} brings its own.")
    return make(**asked)


def loaded(name: str, sizes: Mapping[str, int]) -> Task:
    """The task at `module:task`, checked."""
    found = spec.find(name)
    if callable(found):
        with spec.refused(f"{name!r} makes no task"):
            takes = inspect.signature(found).parameters if sizes else {}
        rest = any(x.kind is x.VAR_KEYWORD for x in takes.values())
        for size in sizes:
            if not rest and size not in takes:
                raise Complaint(f"--{size} is no argument of {name}. Leave it out.")
        with spec.refused(f"{name!r} makes no task"):
            found = found(**sizes)
    elif sizes:
        given = " and ".join(f"--{size}" for size in sizes)
        raise Complaint(f"{given} cannot change {name}, which is no function.")
    if not isinstance(found, Task):
        raise Complaint(
            f"{name!r} must be a gradkit.Task, or a function that returns one, got "
            f"{reprlib.repr(found)}."
        )
    check(name, found)
    return found


def check(name: str, task: Task) -> None:
    """Refuse a task that cannot be trained, and say which field is wrong."""

    def wrong(field: str, must: str, got: Any) -> Complaint:
        return Complaint(f"{field} of {name!r} must {must}, got {got}.")

    for field in ("init", "loss", "data", "validation", "test"):
        if not callable(f := getattr(task, field)):
            raise wrong(field, "be a function", reprlib.repr(f))
    for field in ("name", "summary", "unit"):
        if not isinstance(x := getattr(task, field), str):
            raise wrong(field, "be text", reprlib.repr(x))
    if not task.name:
        raise wrong("name", "be text", "none")
    if not isinstance(n := task.units, int) or n < 1:
        raise wrong("units", "be a whole number above 0", reprlib.repr(n))
    given = task.arguments
    if not isinstance(given, Mapping) or not all(isinstance(k, str) for k in given):
        raise wrong("arguments", "be a dict by name", reprlib.repr(given))
    key, shapes = jax.random.key(0), dict[str, Any]()
    with spec.refused(f"init of {name!r} fails"):
        params = jax.eval_shape(task.init, key)
    leaves = jax.tree.leaves(params)
    if not leaves or not all(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
        kinds = ", ".join(sorted({str(x.dtype) for x in leaves})) or "nothing"
        raise wrong("init", "return real floating arrays", kinds)
    with spec.refused(f"data of {name!r} fails"):
        batch = jax.eval_shape(task.data, key)
    drawn = [x.size for x in jax.tree.leaves(batch)]
    if min(drawn, default=0) < 1 or sum(drawn) < task.units:
        must = f"return a batch of {task.units} {task.unit}, as units says"
        raise wrong("data", must, f"{sum(drawn)} numbers")
    with spec.refused(f"loss of {name!r} fails"):
        shapes["loss"] = jax.eval_shape(task.loss, params, batch)
    for field in ("validation", "test"):
        with spec.refused(f"{field} of {name!r} fails"):
            shapes[field] = jax.eval_shape(getattr(task, field), params)
    for field, x in shapes.items():
        one = isinstance(x, jax.ShapeDtypeStruct) and x.shape == ()
        if not one or not jnp.issubdtype(x.dtype, jnp.floating):
            raise wrong(field, "return one real number", x)
    for field, x in first_losses(task).items():
        if not math.isfinite(x):
            raise wrong(field, "be finite at the first parameters", f"{x:g}")


def first_losses(task: Task) -> dict[str, float]:
    """Losses at the first parameters of key 0: of a batch, and held out."""

    @jax.jit
    def losses(key: jax.Array) -> dict[str, jax.Array]:
        params = task.init(key)
        return {
            "loss": task.loss(params, task.data(key)),
            "validation": task.validation(params),
            "test": task.test(params),
        }

    return {field: float(x) for field, x in losses(jax.random.key(0)).items()}


def fingerprint(task: Task) -> str:
    """A hash that differs when data or model differ, for a resumed race to compare.

    It is of names, shapes and dtypes of the parameters, of some batches, and of the first losses
    in five digits. Batches of floats, which are not the same bits on every machine, go by their
    shapes and their root mean square in five digits.
    """

    @jax.jit
    def batches(keys: jax.Array) -> Batch:
        return jax.vmap(task.data)(keys)

    digest = hashlib.sha256()
    said = jax.tree_util.tree_leaves_with_path(
        jax.eval_shape(task.init, jax.random.key(0))
    )
    for path, x in said:
        digest.update(f"{jax.tree_util.keystr(path)} {x.shape} {x.dtype}\n".encode())
    for x in jax.tree.leaves(batches(jax.random.split(jax.random.key(0), DRAWN))):
        digest.update(f"{x.shape} {x.dtype}\n".encode())
        if jnp.issubdtype(x.dtype, jnp.inexact):
            wide = np.abs(np.asarray(x, np.complex128))
            digest.update(f"{np.sqrt(np.mean(wide**2)):.5g}\n".encode())
        else:
            digest.update(np.asarray(x).tobytes())
    for field, x in first_losses(task).items():
        digest.update(f"{field} {x:.5g}\n".encode())
    return digest.hexdigest()[:16]


def whole(**sizes: int) -> None:
    """Refuse sizes below 1."""
    for size, n in sizes.items():
        if n < 1:
            raise Complaint(f"--{size} must be at least 1, got {n}.")


def divisible(width: int, by: int, what: str) -> None:
    """Refuse a width that `by`, which is called `what`, does not divide."""
    if width % by:
        raise Complaint(f"--width must be a multiple of {what}, got {width}.")


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count > 1)}"


def _sizes(make: Callable[..., Task]) -> list[str]:
    names = inspect.signature(make).parameters
    return [name for name in names if name not in ("path", "without")]


def _takers(size: str) -> str:
    """The tasks that take this argument."""
    takers = [k for k, f in TASKS.items() if size in inspect.signature(f).parameters]
    return ", ".join(takers) or "no task"
