"""Smaller forms of an exported graph: int8 for the CPU, fp16 for the GPU, calibrated logits.

The front end stays as it is in both: a filter bank in int8 is another filter bank, and squared
spectra leave the range of fp16.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from trainer.crossfit import Scaling
from trainer.errors import TrainerError
from trainer.halves import store_halves, widened

# How PyTorch names the nodes of a model's `frontend`.
_FRONTEND = "/frontend/"

# Recurrent layers other than LSTM have no int8 form. Convolutions have none here that pays: with
# their inputs' range found anew for each they take three times as long as in fp32.
_DYNAMIC = ("MatMul", "Gemm", "LSTM")

# With ranges known beforehand convolutions between many channels take a quarter of the time of
# fp32 on a CPU with VNNI (serd-crnn: 0.21 ms a segment for 0.77), a first one from a single channel
# four times as long; a matrix product gains from this many weights on.
_WIDE_CHANNELS = 16
_LARGE_WEIGHTS = 2**16

# So many times the weights of its convolutions are those of a transformer's products.
_TRANSFORMER = 4

Feed = Mapping[str, Any]
"""Inputs of a graph, by name."""


def append_scaling(path: Path, scaling: Scaling) -> None:
    """Put `logits * scale + bias` at the end of the graph in `path`."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == "logits":
                node.output[i] = "uncalibrated"
    graph.initializer.extend(
        [
            numpy_helper.from_array(scaling.scale.astype(np.float32), "calibration_scale"),
            numpy_helper.from_array(scaling.bias.astype(np.float32), "calibration_bias"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Mul", ["uncalibrated", "calibration_scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "calibration_bias"], ["logits"]),
        ]
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def write_int8(source: Path, target: Path, heard: Sequence[Feed] = ()) -> None:
    """Write a graph's int8 form.

    Where convolutions between many channels are a good part of it: those and the large matrix
    products, in int8 from end to end, the range of each activation taken from `heard`, and a scale
    for each output channel's weights. Elsewhere: weights of matrix products and LSTMs, activations
    quantised as they come.
    Either way a row's scores depend on its batch by 1e-3 or so: what float32 rounds differently
    there may fall to another of 256 steps.

    Parameters
    ----------
    heard
        inputs of the graph, each of real audio; may be empty where nothing is convolved.

    Raises
    ------
    TrainerError
        the graph has nothing of that kind behind its front end, or is a forest's or a support
        vector machine's.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = widened(onnx.load(source))
    _refuse_classical(model, "int8")
    front, body = _divide(model)
    if not any(node.op_type in _DYNAMIC for node in body):
        raise TrainerError(f"{source} has no matrix product or LSTM that int8 would speed up.")
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        plain, prepared = (Path(scratch) / f"{name}.onnx" for name in ("plain", "prepared"))
        onnx.save(model, str(plain))
        convolves = _is_convolutional(model, body)
        quant_pre_process(
            plain, prepared, skip_optimization=not convolves, skip_symbolic_shape=True
        )
        if convolves and heard:
            _write_static(prepared, target, heard)
        else:
            _write_dynamic(prepared, target, front)
    store_halves(target)


def _write_dynamic(prepared: Path, target: Path, front: Sequence[onnx.NodeProto]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        prepared,
        target,
        op_types_to_quantize=list(_DYNAMIC),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[node.name for node in front],
    )


def _write_static(prepared: Path, target: Path, heard: Sequence[Feed]) -> None:
    from onnxruntime.quantization import QuantType, quantize_static

    model = onnx.load(prepared)
    _, body = _divide(model)
    wide = _wide_convolutions(model, body)
    made = {name for node in wide for name in node.output}
    # The quantiser drops a ReLU that follows: the range of its result begins at zero.
    rectified = [n for n in body if n.op_type == "Relu" and n.input[0] in made]
    size = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    products = [
        node
        for node in body
        if node.op_type == "MatMul" and size.get(node.input[1], 0) >= _LARGE_WEIGHTS
    ]
    quantize_static(
        prepared,
        target,
        _Reader(heard),
        op_types_to_quantize=["Conv", "Relu", "MatMul"],
        nodes_to_quantize=[node.name for node in (*wide, *rectified, *products)],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


class _Reader:
    """What the quantiser reads the inputs from."""

    def __init__(self, heard: Iterable[Feed]) -> None:
        self._left = iter(heard)

    def get_next(self) -> Feed | None:
        return next(self._left, None)


def _wide_convolutions(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    # [output channels, input channels of a group, …]
    dims = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        node
        for node in nodes
        if node.op_type == "Conv" and dims.get(node.input[1], (0, 0))[1] >= _WIDE_CHANNELS
    ]


def _is_convolutional(model: onnx.ModelProto, body: Sequence[onnx.NodeProto]) -> bool:
    """Whether wide convolutions are more than the stem of a transformer.

    A transformer's activations have outliers that ranges known beforehand do not suit: the Whisper
    backbone loses two points of UAR by them, and 0.1 with ranges as they come.
    """
    size = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    convolved = sum(size[node.input[1]] for node in _wide_convolutions(model, body))
    multiplied = sum(size.get(n.input[1], 0) for n in body if n.op_type == "MatMul")
    return bool(convolved > 0 and multiplied < _TRANSFORMER * convolved)


def write_fp16(source: Path, target: Path) -> None:
    """All behind the front end in float16; `audio` and `logits` stay float32.

    Raises
    ------
    TrainerError
        the graph is a forest's or a support vector machine's, which have no such form.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = widened(onnx.load(source))
    _refuse_classical(model, "float16")
    front, body = _divide(model)
    part = _as_model(model, body, _crossing(model, front, body), model.graph.output)
    with _quiet():
        half = convert_float_to_float16(part, keep_io_types=True)
    graph = helper.make_graph(
        _sorted([*front, *half.graph.node]),
        model.graph.name,
        model.graph.input,
        model.graph.output,
        [*_used(model, front), *half.graph.initializer],
    )
    joined = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(joined, full_check=True)
    onnx.save(joined, str(target))


def _refuse_classical(model: onnx.ModelProto, form: str) -> None:
    if any(node.domain == "ai.onnx.ml" for node in model.graph.node):
        raise TrainerError(f"ONNX has no {form} trees or support vectors.")


def _divide(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Nodes that make the features, and all others.

    Features are what the module `frontend` does, and in an encoder that brings its own, all that
    leads to a logarithm.
    """
    maker = {name: node for node in model.graph.node for name in node.output}
    needed: set[str] = set()
    todo = [n for n in model.graph.node if n.name.startswith(_FRONTEND) or n.op_type == "Log"]
    while todo:
        node = todo.pop()
        if node.output[0] not in needed:
            needed.add(node.output[0])
            todo.extend(maker[name] for name in node.input if name in maker)
    front = [n for n in model.graph.node if n.output[0] in needed]
    return front, [n for n in model.graph.node if n.output[0] not in needed]


def _crossing(
    model: onnx.ModelProto, front: Sequence[onnx.NodeProto], body: Sequence[onnx.NodeProto]
) -> list[onnx.ValueInfoProto]:
    """What the body takes from the features and from the graph's inputs."""
    inferred = shape_inference.infer_shapes(model).graph
    types = {value.name: value for value in (*inferred.value_info, *inferred.input)}
    made = {name for node in front for name in node.output} | {v.name for v in model.graph.input}
    wanted = dict.fromkeys(name for node in body for name in node.input if name in made)
    missing = [name for name in wanted if name not in types]
    if missing:
        raise TrainerError(f"The graph does not say the type of {missing[0]}.")
    return [types[name] for name in wanted]


def _used(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> list[TensorProto]:
    names = {name for node in nodes for name in node.input}
    return [tensor for tensor in model.graph.initializer if tensor.name in names]


def _as_model(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "body", inputs, list(outputs), _used(model, nodes))
    made: onnx.ModelProto = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    return made


def _sorted(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, each after those whose results it takes."""
    maker = {name: i for i, node in enumerate(nodes) for name in node.output}
    order = TopologicalSorter(
        {i: [maker[name] for name in node.input if name in maker] for i, node in enumerate(nodes)}
    )
    return [nodes[i] for i in order.static_order()]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice off the terminal."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
