"""Weights that float16 holds exactly, stored so: half the file, and the same scores to the bit.

Encoders are often published in half precision. Read into float32 their numbers need no more bits
than before; onnxruntime widens them once, when the graph is loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_ENDING, _SCALED_ENDING = "_half", "_scaled"

# Published halves may have been divided since, as queries are by the root of the size of a head:
# the smallest of them then need bits that a half has only for larger numbers.
_FACTOR = np.array(8, np.float32)
_FACTOR_NAME = "factor_of_halves"

# Smaller ones are not worth a node.
_LEAST_VALUES = 1_024


def store_halves(path: Path) -> int:
    """Rewrite the graph in `path`; how many of its weights are stored in half now."""
    model = onnx.load(path)
    graph = model.graph
    kept, added = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _LEAST_VALUES:
            kept.append(tensor)
            continue
        name, scaled = f"{tensor.name}{_ENDING}", f"{tensor.name}{_SCALED_ENDING}"
        if (half := _half(values)) is not None:
            cast = helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT)
            added.append(cast)
        elif (half := _half(values * _FACTOR)) is not None:
            added.append(helper.make_node("Cast", [name], [scaled], to=TensorProto.FLOAT))
            added.append(helper.make_node("Div", [scaled, _FACTOR_NAME], [tensor.name]))
        else:
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(half, name))
    if not added:
        return 0
    if any(_FACTOR_NAME in node.input for node in added):
        kept.append(numpy_helper.from_array(_FACTOR, _FACTOR_NAME))
    _replace(graph, kept, [*added, *graph.node])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return sum(node.op_type == "Cast" for node in added)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what `store_halves` made of its weights undone, in place."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kept, nodes = dict(stored), []
    kept.pop(_FACTOR_NAME, None)
    for node in graph.node:
        name = node.input[0].removesuffix(_ENDING) if node.op_type == "Cast" else ""
        if name and node.input[0] in stored and node.output[0] in (name, f"{name}{_SCALED_ENDING}"):
            values = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
            del kept[node.input[0]]
            if node.output[0] != name:
                values /= _FACTOR
            kept[name] = numpy_helper.from_array(values, name)
        elif _FACTOR_NAME not in node.input:
            nodes.append(node)
    _replace(graph, list(kept.values()), nodes)
    return model


def _replace(
    graph: onnx.GraphProto, initializers: list[TensorProto], nodes: list[onnx.NodeProto]
) -> None:
    for field, values in ((graph.initializer, initializers), (graph.node, nodes)):
        # What is put in again must be a copy: the list that it is taken from is emptied first.
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)


def _half(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]] | None:
    """The values in float16, if nothing is lost."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else None
