"""What releases draw, multiply and step by, parameter by parameter, from growth inferred here.

`golden/mup_tables.json` was recorded from runs of the releases' own code. All of it must agree, but
for `DEPARTURES`, where a release is not as its paper.
"""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inferred import infer, shape

import gradkit as gk

FILE = json.loads(
    (pathlib.Path(__file__).parent / "golden/mup_tables.json").read_text()
)
TABLES = {  # by name, by parameter, by column
    f"{kind}/{name}": {path: dict(zip(columns[1:], row)) for path, *row in rows}
    for kind, columns in FILE["columns"].items()
    for name, rows in FILE[kind].items()
}
ROLES = {  # that shapes do not tell, by table or kind of table
    "mup/all_tied": {"embed": "tied", "place": "embedding"},
    "mup/example_transformer": {"^encoder": "embedding"},
    "mup/mlp": {},
    "mup/example_mlp": {},
    "mup": {"embed|place": "embedding"},
    "umup/decoder": {"embed": "embedding"},
    "completep": {"wte": "tied", "wpe": "embedding"},
    "experts": {"expert": "expert", "router": "router"},
}
DEPARTURES = {  # the release's number over its paper's
    # 2203.03466, Table 8: no width is in the variance of an embedding. The release makes the
    # readout larger by the root of the growth, as if the growth had made it smaller: the
    # embedding it shares, and its bias, are not.
    ("mup/all_tied", "embed.weight", "init"): 3**0.5,
    ("mup/all_tied", "readout.bias", "init"): 3**0.5,
    # 2407.17465, Table 2: no biases. The release multiplies the product with its bias; here a
    # bias is a gain, used as it is.
    ("umup/layers", "conv.bias", "forward"): 36**-0.5,
    ("umup/layers", "linear.bias", "forward"): 24**-0.5,
    ("umup/layers", "readout.bias", "forward"): 1 / 12,
    # 2505.01618, Table 1: the depth is in the eps of blocks alone. The release has one eps.
    **{
        (f"completep/{branch}", path, "eps"): 3**-branch
        for branch in (1.0, 0.5)
        for path in TABLES[f"completep/{branch}"]
        if ".h." not in path
    },
}


def of(*kinds: str) -> list[str]:
    """The names of the tables of these kinds."""
    return [name for name in TABLES if name.partition("/")[0] in kinds]


def grown(name: str) -> gk.Parametrization:
    """What a table's shapes say."""
    rows, kind = TABLES[name], name.partition("/")[0]
    trees = {
        size: {k: shape(*row[size]) for k, row in rows.items() if row[size]}
        for size in ("base", "delta", "target")
        if all(size in row for row in rows.values())
    }
    roles = ROLES.get(name, ROLES.get(kind))
    stacks = {"expert": (0,)} if kind == "experts" else None
    return gk.infer_parametrization(**trees, roles=roles, stacks=stacks)


def wanted(name: str, path: str, column: str) -> object:
    """What the paper of the release says."""
    release = TABLES[name][path][column]
    return pytest.approx(release / DEPARTURES.get((name, path, column), 1), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", of("mup"))
def test_mup(name, optimizer):
    """Of networks that grow in one size or in all of them, tied or not."""
    for path, m in gk.multipliers(grown(name), "mup", optimizer).items():
        want = functools.partial(wanted, name, path)
        assert m.forward == want("forward"), path
        assert m.learning_rate == want(f"{optimizer} lr"), path
        assert m.weight_decay == want(f"{optimizer} wd"), path


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", of("umup"))
def test_umup(name, optimizer):
    """The base has one residual layer, so that the depth is their number; decay knows no rate."""
    for path, m in gk.multipliers(grown(name), "umup", optimizer).items():
        want = functools.partial(wanted, name, path)
        assert m.forward == want("forward"), path
        assert m.learning_rate == want(f"{optimizer} lr"), path
        assert m.weight_decay * m.learning_rate == pytest.approx(1), path
        assert m.eps == 1, path


@pytest.mark.parametrize("name", of("completep"))
def test_completep(name):
    """And what the model multiplies: what blocks add, its logits, and not its embeddings."""
    branch = float(name.partition("/")[2])
    rule = functools.partial(gk.RULES["completep"], branch=branch)
    found = gk.multipliers(grow := grown(name), rule)
    for path, m in found.items():
        want = functools.partial(wanted, name, path)
        assert m.learning_rate == want("lr"), path
        assert m.weight_decay == want("wd"), path
        assert m.eps == want("eps"), path
    model = FILE["model"][name]
    block = grow["transformer.h.0.mlp.c_fc.weight"]
    assert block.depth**-branch == pytest.approx(model["branch"], rel=1e-6)
    tied = found["transformer.wte.weight"]
    assert tied.forward == pytest.approx(model["logits"], rel=1e-6)
    assert model["embedding"] == 1


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_experts(optimizer):
    """The code of arXiv:2605.14200 draws outputs smaller, where here a multiplier makes them so.

    A multiplier `a` may move into the weight, which is then drawn `a` times as large, moves by
    `a` times what it did, and has a gradient `a` times smaller.
    """
    name = f"experts/{optimizer}"
    grow, degree = grown(name), gk.OPTIMIZERS[optimizer].degree
    ones = {path: jnp.ones(p.shape) for path, p in grow.items()}
    tx = gk.transfer_by_expert_mup(grow, optimizer=optimizer)
    steps, _ = tx.update(ones, tx.init(ones))
    for path, m in gk.multipliers(grow, "mup", optimizer).items():
        row = TABLES[name][path]
        ours = {
            "init": m.init * m.forward,
            "lr": float(steps[path].max()) * m.forward ** (1 + degree),
            "eps": m.eps / m.forward,
        }
        for column in ours if optimizer == "adam" else ("init", "lr"):
            growth = row[column] / row[f"base {column}"]
            assert ours[column] == pytest.approx(growth, rel=1e-6), (path, column)


@pytest.mark.parametrize("name", of("mup", "drawn", "umup", "completep"))
def test_initial_sizes(name):
    """From draws of any size; what the release starts at zero is zero here."""
    rows, kind = TABLES[name], name.partition("/")[0]
    rng = np.random.default_rng(0)
    draw = lambda row: rng.normal(size=row["target"]) * (row["init"] > 0)
    rule = {"drawn": "mup"}.get(kind, kind)
    base = {path: row.get("base init") for path, row in rows.items()}
    with jax.enable_x64(True):
        params = {path: jnp.asarray(draw(row)) for path, row in rows.items()}
        based = None if rule == "umup" else base
        rescale = lambda params: gk.rescale_init(params, grown(name), based, rule)
        found = jax.jit(rescale)(params)  # in one program
    for path, x in found.items():
        assert math.sqrt(np.mean(np.square(x))) == wanted(name, path, "init"), path


@pytest.mark.parametrize("name", of("scores"))
def test_scores(name):
    """All divide by the features of a head, and so nothing is to be noted."""
    (small, large), times = TABLES[name], TABLES[name]

    def init(width):
        return {k: shape(3, width) for k in ("query", "key")}

    def apply(p, x):
        q, k = x @ p["query"], x @ p["key"]
        return jax.nn.softmax(times[q.shape[-1]]["times"] * q @ k.T)

    assert infer(init, apply, shape(5, 3), base=small, target=large).notes == ()
    for features, row in times.items():
        assert row["times"] * features == pytest.approx(1, rel=1e-12)
