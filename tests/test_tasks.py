"""Tasks that `gradkit race` trains: they are learned, split, drawn and named as they say."""

import functools
import inspect
import itertools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit._lab import models, tasks, text
from gradkit._lab.complaint import Complaint

SMALL = {"width": 8, "layers": 1, "heads": 2, "context": 8, "batch": 8}
# loss at the last of 50 steps, as a fraction of the first: what AdamW must reach
FALLS = {
    "bytes": 0.7,
    "digits": 0.5,
    "rnn": 0.8,
    "vit": 0.9,
    "autoencoder": 0.5,
    "lstsq": 0.3,
}


GOOD = gk.Task(
    name="good",
    init=lambda key: {"w": jax.random.normal(key, (3,))},
    loss=lambda params, x: jnp.mean((params["w"][None] - x) ** 2),
    data=lambda key: jax.random.normal(key, (4, 3)),
    validation=lambda params: jnp.sum(params["w"] ** 2),
    test=lambda params: jnp.sum(params["w"] ** 2),
    units=4,
)


def zero(params, batch):
    return jnp.float32(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """30 files of words, and one without bytes."""
    root = tmp_path_factory.mktemp("text") / "here"
    draw = np.random.default_rng(0)
    for i in range(30):
        (root / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        words = draw.choice(["alpha ", "beta ", "gamma "], 50)
        (root / f"{i % 3}" / f"{i}.txt").write_text(f"{i:02}" + "".join(words))
    (root / "empty").touch()
    return root


@functools.cache
def small(name: str, data: pathlib.Path) -> gk.Task:
    """The task in a small size."""
    takes = inspect.signature(tasks.TASKS[name]).parameters
    sizes = {size: n for size, n in SMALL.items() if size in takes}
    return tasks.named(name, data=data if "path" in takes else None, **sizes)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_adamw_learns_it(name, folder):
    task = small(name, folder)
    tx = gk.adamw(0.03)

    @jax.jit
    def train(key):
        params = task.init(key)

        def step(carry, key):
            params, state = carry
            loss, grads = jax.value_and_grad(task.loss)(params, task.data(key))
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        start = params, tx.init(params)
        (last, _), losses = jax.lax.scan(step, start, jax.random.split(key, 50))
        ends = jnp.stack([losses[:5].mean(), losses[-5:].mean()])
        held_out = [(f(params), f(last)) for f in (task.validation, task.test)]
        return [tuple(ends), *held_out]

    first = train(jax.random.key(0))
    for before, after in first:
        assert after < FALLS[name] * before
    assert first == train(jax.random.key(0)) != train(jax.random.key(1))
    assert set(task.arguments) == {"weight_decay", "rank"}
    assert jax.tree.leaves(task.data(jax.random.key(0)))[0].shape[0] == SMALL["batch"]


def test_least_squares_has_the_spectrum_that_it_states():
    task = tasks.lstsq(width=16, batch=4096)
    params = task.init(jax.random.key(0))
    x, _ = task.data(jax.random.key(1))
    found = np.linalg.eigvalsh(np.cov(x.T))
    np.testing.assert_allclose(found[::-1], np.geomspace(1, 1e-4, 16), rtol=0.2)
    best, *_ = np.linalg.lstsq(*map(np.asarray, task.data(jax.random.key(2))))
    assert task.test({"w": jnp.asarray(best)}) == pytest.approx(0.005, rel=0.1)
    assert task.test(params) > 100 * 0.005


def test_parts_of_text_are_disjoint_and_depend_on_names_and_contents_alone(
    folder, tmp_path
):
    there = folder.parent / "there"
    if not there.exists():
        there.symlink_to(folder)
    parts = text.given(folder)
    assert all(map(np.array_equal, parts, text.given(there)))
    assert sum(map(len, parts)) == sum(x.stat().st_size for x in folder.rglob("*.txt"))
    kept = [set(bytes(part).decode().split()) for part in parts]
    starts = [{w[:2] for w in words if w[:2].isdecimal()} for words in kept]
    assert [len(x) for x in starts] == [26, 2, 2]  # a twentieth each, rounded up
    assert not any(a & b for a, b in itertools.combinations(starts, 2))
    big, little = tmp_path / "big", tmp_path / "little"
    big.write_bytes(bytes(range(100)))
    assert [len(part) for part in text.given(big)] == [90, 5, 5]
    assert b"".join(map(bytes, text.given(tmp_path))) == big.read_bytes()
    little.write_bytes(b"12345678")
    two = text.given(tmp_path)
    assert [bytes(part) for part in two] == [big.read_bytes(), b"1234", b"5678"]
    assert min(map(len, text.standard_library())) > 1e5


def test_held_out_examples_are_different_and_evenly_spaced():
    seen = []
    loss = lambda params, x: jax.debug.callback(seen.append, x) or jnp.mean(x)
    for count, batch, used in ((100, 4, 12), (11, 4, 11 // 3 * 3), (3, 4, 3)):
        seen.clear()
        examples = np.arange(count, dtype=np.float32)
        mean = tasks.held_out(loss, examples, batch, batches=3)(None)
        jax.effects_barrier()
        places = np.sort(np.concatenate(seen))
        assert len(places) == used == len(set(places)) and places[0] == 0
        assert np.ptp(np.diff(places)) <= 1 and places[-1] >= count * (1 - 1 / used) - 1
        assert mean == pytest.approx(places.mean())
    windows = tasks.windows(np.arange(35, dtype=np.uint8), 8)
    assert windows.tolist() == np.arange(27).reshape(3, 9).tolist()


def test_digits_are_split_into_disjoint_images(monkeypatch):
    found = []
    keep = lambda loss, examples, batch: found.append(examples[0]) or (lambda p: 0.0)
    monkeypatch.setattr(tasks, "held_out", keep)
    task = tasks.digits(width=2, batch=1437)
    drawn = [task.data(jax.random.key(i))[0] for i in range(9)]
    train = {np.asarray(x).tobytes() for x in np.concatenate(drawn)}
    validation, test = ({x.tobytes() for x in part} for part in found)
    assert not (train & validation or train & test or validation & test)
    assert len(validation) == len(test) == 180 and len(train) > 1400


@pytest.mark.parametrize("name", ["bytes", "rnn"])
def test_what_predicts_bytes_sees_all_before_and_none_after(name, folder):
    build = {
        "bytes": functools.partial(models.Transformer, 8, 1, 2),
        "rnn": functools.partial(models.Recurrent, 8, 2),
    }
    init, apply = models.functional(build[name])
    params = init(jax.random.key(0))
    tokens = jnp.arange(6)[None]
    logits = functools.partial(apply, params)
    for i in range(6):
        moved = logits(tokens.at[0, i].set(200)) != logits(tokens)
        assert jnp.any(moved[0], axis=-1).tolist() == [j >= i for j in range(6)]


def test_a_vision_transformer_sees_every_pixel_and_where_it_is(folder):
    task = small("vit", folder)

    @jax.jit
    def losses(key):
        params = task.init(key)
        images, labels = (x[:2] for x in task.data(key))
        of = lambda images: task.loss(params, (images, labels))
        slopes = jax.grad(of)(images)
        return slopes, of(images), of(jnp.roll(images, 2, axis=1))  # a row of patches

    slopes, here, there = losses(jax.random.key(0))
    assert jnp.all(slopes != 0)
    assert abs(here - there) > 1e-3
    image = jnp.arange(64).reshape(1, 8, 8)
    assert models.patches(image)[0, 5].tolist() == [18, 19, 26, 27]


def test_a_fingerprint_tells_tasks_apart(tmp_path):
    others = [
        GOOD,
        GOOD._replace(),
        GOOD._replace(init=lambda key: GOOD.init(key) | {"v": jnp.zeros(2)}),
        GOOD._replace(data=lambda key: 1.01 * GOOD.data(key)),
        GOOD._replace(loss=lambda p, x: 1.01 * GOOD.loss(p, x)),
        GOOD._replace(validation=lambda p: 1.01 * GOOD.validation(p)),
        GOOD._replace(test=lambda p: 1.01 * GOOD.test(p)),
    ]
    one, again, *others = map(tasks.fingerprint, others)
    assert one == again and len({one, *others}) == 6
    for content in b"abcdefgh" * 50, b"abcdefgx" * 50:
        (tmp_path / "text").write_bytes(content)
        task = tasks.rnn(tmp_path / "text", width=1, context=2, batch=2)
        others.append(tasks.fingerprint(GOOD._replace(loss=zero, data=task.data)))
    assert others[-1] != others[-2]


@pytest.mark.parametrize(
    "name, given, said",
    [
        ("byte", {}, "no task 'byte'. Did you mean bytes? Choose from bytes, digits"),
        ("lstsq", {"heads": 2}, "--heads is for bytes, vit; lstsq takes --width, --batch."),
        ("digits", {"context": 2}, "--context is for bytes, rnn; digits takes"),
        ("digits", {"data": "x"}, "--data is for bytes, rnn; digits brings its own."),
        ("a:b", {"data": "x"}, "--data is for bytes, rnn; a:b brings its own."),
        ("vit", {"width": 0}, "--width must be at least 1, got 0."),
        ("vit", {"width": 6, "heads": 4}, "--width must be a multiple of --heads, got 6."),
        ("bytes", {"width": 6, "heads": 2}, "multiple of twice --heads"),
        ("autoencoder", {"width": 12}, "--width must be a multiple of 8, got 12."),
        ("lstsq", {"width": 1}, "--width must be at least 2 for lstsq, got 1."),
        ("digits", {"batch": 2000}, "--batch must be at most the 1437 images, got 2000."),
    ],
)  # fmt: skip
def test_a_wrong_request_is_a_complaint(name, given, said):
    with pytest.raises(Complaint) as found:
        tasks.named(name, **given)
    assert said in str(found.value)


def test_names_are_case_blind_and_sizes_may_be_left_out():
    task = tasks.named(" Digits ", width=2, batch=None, heads=None)
    assert (task.name, task.units) == ("digits", 64)


@pytest.mark.parametrize("sizes", [(100,), (500, 3), (500, 500, 8)])
def test_too_little_text_is_counted(tmp_path, sizes):
    for i, size in enumerate(sizes):
        (tmp_path / f"{i}").write_bytes(b"x" * size)
    with pytest.raises(Complaint, match=r"too little data: \d+ bytes to train on, \d"):
        tasks.rnn(tmp_path, context=8)


@pytest.fixture
def mine(monkeypatch):
    """A module `mine`, whose `task` is what the test sets."""
    module = type(sys)("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def test_a_task_is_loaded_from_a_module(mine):
    mine.task = GOOD
    assert tasks.named("mine:task") is GOOD
    mine.make = lambda width=3: GOOD._replace(name=f"good {width}")
    assert tasks.named("mine:make").name == "good 3"
    assert tasks.named("mine:make", width=5).name == "good 5"
    for name, said in {"task": "cannot change mine:task", "make": "is no arg"}.items():
        with pytest.raises(Complaint, match=said):
            tasks.named(f"mine:{name}", heads=2)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (3, "'mine:task' must be a gradkit.Task, or a function that returns one, got 3."),
        (lambda: 3, "must be a gradkit.Task, or a function that returns one, got 3."),
        (lambda: 1 // 0, "'mine:task' makes no task: ZeroDivisionError"),
        (GOOD._replace(data=3), "data of 'mine:task' must be a function, got 3."),
        (GOOD._replace(name=3), "name of 'mine:task' must be text, got 3."),
        (GOOD._replace(units=0), "units of 'mine:task' must be a whole number above 0"),
        (GOOD._replace(arguments={1: 2}), "arguments of 'mine:task' must be a dict by"),
        (GOOD._replace(init=lambda key: {}), "must return real floating arrays, got nothing"),
        (GOOD._replace(init=lambda key: jnp.arange(3)), "floating arrays, got int32."),
        (GOOD._replace(loss=lambda p, x: x), "loss of 'mine:task' must return one real number"),
        (GOOD._replace(loss=lambda p, x: 1 // 0), "loss of 'mine:task' fails: ZeroDivision"),
        (GOOD._replace(test=lambda p: (p["w"], 1)), "test of 'mine:task' must return one"),
        (GOOD._replace(units=13), "data of 'mine:task' must return a batch of 13 examples"),
        (
            GOOD._replace(data=lambda key: jax.random.choice(key, 3, (4,), replace=False)),
            "data of 'mine:task' fails: ValueError",
        ),
        (
            GOOD._replace(test=lambda p: jnp.log(-p["w"] ** 2).sum()),
            "test of 'mine:task' must be finite at the first parameters, got nan.",
        ),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_trained_says_which_field_is_wrong(mine, wrong, said):
    mine.task = wrong
    with pytest.raises(Complaint) as found:
        tasks.named("mine:task")
    assert said in str(found.value)
