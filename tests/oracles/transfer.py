"""Oracles of `_step/transfer`: the papers' tables, cell by cell, for one small model.

The model grew from widths 2 and 3 to 4 and 6, and from one residual layer to 3. Every oracle says
what its paper multiplies the update of each leaf by.
"""

import math

from entry import entry

import gradkit as gk

MODEL = {
    "embedding": gk.Parameter((7, 6), (7, 3), "embedding", (0,), (1,)),
    "first": gk.Parameter((5, 6), (5, 3), "input", (0,), (1,)),
    "kernel": gk.Parameter((6, 4), (3, 1), "hidden", (0,), (1,), depth=3),
    "bias": gk.Parameter((4,), (1,), "vector", (), (0,), depth=3),
    "output": gk.Parameter((4, 2), (1, 2), "output", (0,), (1,)),
    "scale": gk.Parameter((), (), "fixed"),
}
EXPERTS = {
    "router": gk.Parameter((6, 2), (2, 2), "router", (0,), (1,)),
    "up": gk.Parameter((2, 6, 4), (2, 2, 2), "expert", (1,), (2,), (0,)),
    "bias": gk.Parameter((4,), (2,), "vector", (), (0,)),
}
FACTORS = {
    "low": gk.Parameter((6, 3), (6, 3), "hidden", (0,), (1,)),
    "high": gk.Parameter((2, 3, 5), (2, 3, 5), "hidden", (1,), (2,), (0,)),
    "gain": gk.Parameter((), (), "fixed"),
    "kernel": gk.Parameter((6, 4), (2, 2), "hidden", (0,), (1,)),
}


ONE_MODEL = {  # laws that try another
    "trees": "a parametrization names the leaves of one model",
    "flops": "and knows their shapes, which this law changes",
}


def table(name, parameters=MODEL, fixed=None, **hyper):
    """Register an oracle that gives the factor of every leaf of `parameters`."""

    def register(factors):
        @entry(
            name,
            whole=True,
            shapes={k: p.shape for k, p in parameters.items()},
            fixed={"parametrization": gk.Parametrization(parameters), **(fixed or {})},
            xfail=ONE_MODEL,
            **hyper,
        )
        def oracle(gs, ps, **hyper):
            factor = factors(**hyper)
            for g in gs:
                yield {k: factor.get(k, 1) * x for k, x in g.items()}

        return factors

    return register


@table("transfer_by_mup", fixed={"optimizer": "sgd"})
def mup():
    # Table 8: input and bias x fan_out, hidden x fan_out / fan_in, output x fan_in
    return {"embedding": 2, "first": 2, "kernel": 4 / 2, "bias": 4, "output": 4}


@table("transfer_by_plain_mup", fixed={"optimizer": "sgd"})
def plain_mup():
    # Table 3: as Table 8, but output matrices / fan_in
    return mup() | {"output": 1 / 4}


@table("transfer_by_depth_mup")
def depth_mup():
    return {"kernel": 1 / 2 / math.sqrt(3), "bias": 1 / math.sqrt(3)}


@table("transfer_by_residual_scaling")
def residual_scaling():
    # SGD: the growth of the width produced, of the output's inputs; nothing for the depth
    return {"embedding": 2, "first": 2, "kernel": 4, "bias": 4, "output": 4}


@table("transfer_by_completep", fixed={"optimizer": "sgd"}, branch=0.75)
def completep(branch):
    depth = 3 ** (branch - 1) / 3**-branch
    return mup() | {"kernel": depth * 4 / 2, "bias": depth * 4}


@table("transfer_by_umup")
def umup():
    # absolute fans; the first layer is a matrix of 5 inputs, the embedding 6 wide
    rates = {"embedding": 6**-0.5, "first": 5**-0.5, "kernel": 6**-0.5, "bias": 1}
    return rates | {k: rates[k] * 3**-0.5 for k in ("kernel", "bias")}


@table("transfer_by_spectral", fixed={"optimizer": "sgd"})
def spectral():
    # fan_out / fan_in
    return {"embedding": 6, "first": 6 / 5, "kernel": 4 / 6, "bias": 4, "output": 2 / 4}


@table("transfer_by_second_order_mup", input_exponent=0.7, output_exponent=0.4)
def second_order_mup(input_exponent, output_exponent):
    # growth ** -c with c = (e_B - 1, e_B - e_A, 1 - e_A)
    c_input, c_output = output_exponent - 1, 1 - input_exponent
    return {
        "embedding": 2**-c_input,
        "first": 2**-c_input,
        "kernel": 4**-c_input * 2**-c_output,
        "bias": 4**-c_input,
        "output": 4**-c_output,
    }


@table("transfer_by_alignment", fixed={"table": "ntk"}, alignment=0.8)
def alignment(alignment):
    # Adam: c = (-a_1, alignment - a_hidden, alignment - a_output)
    return {"kernel": 2 ** (0.5 - alignment), "output": 4 ** (0.5 - alignment)}


@table("transfer_by_expert_mup", EXPERTS, fixed={"optimizer": "sgd"})
def expert_mup():
    return {"router": 3, "up": 2 / 3, "bias": 2}


@table("transfer_by_structure", FACTORS, fixed={"dense": {"low|high": 30}})
def structure():
    # n / n_i / 2 factors; the other matrix as in muP
    return {"low": 30 / 6 / 2, "high": 30 / 3 / 2, "kernel": 1 / 3}


@table("transfer_by_learned_mup")
def learned_mup():
    return {"kernel": 1 / 6}


@table("transfer_by_gradient_scale", fixed={"rule": "depth_mup"})
def gradient_scale():
    # one over m_N^-1 m_L^-1/2 in a block, m_N^-1 outside
    block = 4 * math.sqrt(3)
    return {"embedding": 2, "first": 2, "kernel": block, "bias": block, "output": 4}


@entry(
    "decay_by_completep",
    whole=True,
    shapes={k: p.shape for k, p in MODEL.items()},
    fixed={"parametrization": gk.Parametrization(MODEL)},
    xfail=ONE_MODEL,
    weight_decay=0.1,
    branch=0.75,
)
def completep_decay(gs, ps, weight_decay, branch):
    share = {"embedding": 1, "first": 1, "output": 1, "kernel": 3 ** (branch - 1)}
    for u, p in zip(gs, ps):
        yield {k: u[k] - weight_decay * share.get(k, 0) * p[k] for k in u}
