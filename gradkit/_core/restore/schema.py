"""`state_schema`: the classes, paths, shapes and dtypes of a state, which files do not keep."""

import json

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.paths import unboxed
from gradkit._core.restore.nodes import Node, nodes, shape_of, without_variables
from gradkit._core.types import AnyTransform, Params, abstract_state

LAYOUT = 1  # version of all states; raise it when a field changes its meaning


def state_schema(tx: AnyTransform, params: Params) -> str:
    """Describe the state of a transform in one line of JSON, to save beside a checkpoint.

    Two schemas are equal exactly if the classes, paths, shapes and dtypes of the states are.
    Nothing is added to the state, and nothing is computed unless `init` cannot be traced.

    Args:
        tx: any transform, of gradkit or optax.
        params: the parameters, or their shapes as `jax.ShapeDtypeStruct`.

    Returns:
        A string for `restore_state(..., schema=)`, which learns from it the class names that
        files do not keep, and finds leaves that a file lacks.

    Errors: `params` is None, or `tx` is not a transform.

    >>> before, after = (gk.state_schema(tx, jnp.zeros(3)) for tx in (gk.sgd(), gk.lion()))
    >>> print(before == after)
    False
    """
    check.transform("state_schema", "tx", tx)
    check.given("state_schema", params, "init")
    root = nodes(unboxed(abstract_state(tx, params)))
    leaves = {path: _text(n) for path, n in root.leaves().items()}
    classes = {n.path: n.name for n in root.below() if n.name}
    return json.dumps({"layout": LAYOUT, "states": classes, "leaves": leaves})


def with_classes(schema: str, root: Node) -> Node:
    """The saved state, with its class names; raises an error if it lacks a leaf of the schema."""
    try:
        read = json.loads(schema)
        layout, classes, leaves = (read[k] for k in ("layout", "states", "leaves"))
    except (TypeError, ValueError, KeyError, IndexError):
        text = f"schema must be what gradkit.state_schema returned, got {schema!r:.60}"
        remedy = "Save that string beside the checkpoint, or leave schema out."
        raise error(ValueError, "restore_state", f"{text}. {remedy}") from None
    if layout != LAYOUT:
        text = f"schema must be of layout {LAYOUT}, got {layout}"
        remedy = "Restore it with the release of gradkit that saved it."
        raise error(ValueError, "restore_state", f"{text}. {remedy}")
    root = without_variables(root, leaves)
    got = {path: _text(n) for path, n in root.leaves().items()}
    for path, text in leaves.items():
        if got.get(path) != text:
            must = f"old must have leaf {path}, {text}, as its schema says"
            remedy = "Was the file cut short? Give the state alone, of the run of this schema."
            found = f"{must}, got {got.get(path, 'none')}. {remedy}"
            raise error(ValueError, "restore_state", found)
    for n in root.below():  # whose classes a live state knows
        if n.name != classes.get(n.path, n.name):
            must = f"old must have {classes[n.path]} at {n.path or 'its root'}"
            remedy = "Pass the schema that was saved beside this state."
            found = f"{must}, as its schema says, got {n.name}. {remedy}"
            if n.name:
                raise error(ValueError, "restore_state", found)
        n.name = n.name or classes.get(n.path)
    return root


def _text(node: Node) -> str:
    shape, dtype = shape_of(node.leaf)
    return f"{dtype}[{','.join(map(str, shape))}]"
