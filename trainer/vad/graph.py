"""The network and its front ends as one ONNX graph, written operator by operator.

Inputs: ``input`` float32 [batch, context + frame] in [-1, 1], ``state`` float32 [layers, batch,
hidden], ``sr`` int64, 8000 or 16000. Outputs: ``output`` float32 [batch, 1], the probability of
speech, and ``stateN``, the state for the next frame. The rate chooses a front end with its own
dense layer, into which the standardisation of the features is folded; all behind is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from trainer.vad.frontend import LOG_FLOOR, WINDOWS, Frontend, bands
from trainer.vad.network import RATES_HZ, Network

OPSET = 17
_IR_VERSION = 8


class _Graph:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        name = self.prefix + name
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def numbers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def weights(self, name: str, value: Tensor | npt.NDArray[np.floating]) -> str:
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        return self.constant(name, np.ascontiguousarray(array, np.float32))

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        name = output if output in _OUTPUTS else self.prefix + output
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name


_OUTPUTS = ("output", "stateN")


def build_graph(network: Network) -> onnx.ModelProto:
    """The graph of a trained network."""
    settings = network.settings
    graph = _Graph("")
    branches = {rate: _front(network, rate) for rate in RATES_HZ}
    narrow = graph.add("Equal", ["sr", graph.constant("narrow_hz", np.int64(8000))], "is_narrow")
    heard = graph.add(
        "If", [narrow], "heard", then_branch=branches[8000], else_branch=branches[16_000]
    )
    heard = graph.add("Unsqueeze", [heard, graph.numbers("first_axis", 0)], "step_0")
    states = _split_state(graph, settings.layers)
    for layer, state in enumerate(states):
        heard, states[layer] = _recurrent(graph, network, layer, heard, state)
    joined = states[0] if len(states) == 1 else "states"
    if len(states) > 1:
        graph.nodes.append(helper.make_node("Concat", states, [joined], axis=0))
    graph.add("Identity", [joined], "stateN")
    last = graph.add("Squeeze", [states[-1], "first_axis"], "last")
    head = [
        graph.weights("head_weight", network.head.weight.T),
        graph.weights("head_bias", network.head.bias),
    ]
    graph.add("Sigmoid", [graph.add("Gemm", [last, *head], "logit")], "output")
    value = helper.make_tensor_value_info
    shape: list[str | int | None] = [settings.layers, "batch", settings.hidden]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "serd-vad",
            [
                value("input", TensorProto.FLOAT, ["batch", "samples"]),
                value("state", TensorProto.FLOAT, shape),
                value("sr", TensorProto.INT64, []),
            ],
            [
                value("output", TensorProto.FLOAT, ["batch", 1]),
                value("stateN", TensorProto.FLOAT, shape),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="serd-trainer",
    )
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _front(network: Network, rate_hz: int) -> onnx.GraphProto:
    frontend = Frontend(network.frontend_settings, rate_hz)
    graph = _Graph(f"at_{rate_hz}_")
    size, half = frontend.size, frontend.size // 2
    axis = graph.numbers("axis", 1)
    end, step = graph.numbers("size", size), graph.numbers("half", half)
    early = graph.add("Slice", ["input", graph.numbers("zero", 0), end, axis], "early")
    late = graph.add("Slice", ["input", step, graph.numbers("all", size + half), axis], "late")
    both = graph.add("Concat", [early, late], "both", axis=1)
    windows = graph.add("Reshape", [both, graph.numbers("shape", -1, WINDOWS, size)], "windows")
    last = graph.numbers("last_axis", 2)
    front = graph.add("Slice", [windows, graph.prefix + "zero", step, last], "front")
    backwards = [graph.numbers("end", size - 1), graph.numbers("middle", half - 1)]
    back = graph.add("Slice", [windows, *backwards, last, graph.numbers("back_step", -1)], "back")
    squares = []
    for operator, name, matrix in (("Add", "even", frontend.cosine), ("Sub", "odd", frontend.sine)):
        folded = graph.add(operator, [front, back], name)
        part = graph.add("MatMul", [folded, graph.weights(f"{name}_basis", matrix)], f"{name}_part")
        squares.append(graph.add("Mul", [part, part], f"{name}_square"))
    power = graph.add("Add", squares, "power")
    mel = graph.add("MatMul", [power, graph.weights("mel_basis", frontend.mel)], "mel")
    floored = graph.add("Add", [mel, graph.constant("floor", np.float32(LOG_FLOOR))], "floored")
    logs = graph.add("Log", [floored], "logs")
    count = WINDOWS * bands(network.frontend_settings, rate_hz)
    features = graph.add("Reshape", [logs, graph.numbers("flat", -1, count)], "features")
    weight, bias = _folded(network, rate_hz)
    dense = [graph.weights("dense_weight", weight), graph.weights("dense_bias", bias)]
    graph.add("Relu", [graph.add("Gemm", [features, *dense], "dense")], "heard")
    shape: list[str | int | None] = ["batch", network.settings.dense]
    result = helper.make_tensor_value_info(f"{graph.prefix}heard", TensorProto.FLOAT, shape)
    return helper.make_graph(
        graph.nodes, f"front end at {rate_hz} Hz", [], [result], graph.constants
    )


def _folded(
    network: Network, rate_hz: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The dense layer over raw features: weight [features, dense], bias [dense]."""
    kept = network.low.numpy() | (rate_hz == 16_000)
    mean, scale = (b.double().numpy()[kept] for b in (network.mean, network.scale))
    weight = network.dense.weight.detach().double().numpy().T[kept] * scale[:, None]
    bias = network.dense.bias.detach().double().numpy() - mean @ weight
    return weight, bias


def _split_state(graph: _Graph, layers: int) -> list[str]:
    if layers == 1:
        return ["state"]
    names = [f"state_{layer}" for layer in range(layers)]
    graph.nodes.append(
        helper.make_node("Split", ["state", graph.numbers("ones", *[1] * layers)], names, axis=0)
    )
    return names


def _recurrent(
    graph: _Graph, network: Network, layer: int, heard: str, state: str
) -> tuple[str, str]:
    hidden = network.settings.hidden

    def reordered(name: str) -> npt.NDArray[np.float32]:
        # torch has reset, update, new; ONNX wants update, reset, new.
        value = getattr(network.recurrent, f"{name}_l{layer}").detach().numpy()
        reset, update, new = np.split(value, 3)
        return np.asarray(np.concatenate([update, reset, new]), np.float32)[None]

    inputs = [
        heard,
        graph.weights(f"recurrent_{layer}_input", reordered("weight_ih")),
        graph.weights(f"recurrent_{layer}_state", reordered("weight_hh")),
        graph.weights(
            f"recurrent_{layer}_bias",
            np.concatenate([reordered("bias_ih"), reordered("bias_hh")], axis=1),
        ),
        "",
        state,
    ]
    name = f"state_{layer}_next"
    graph.nodes.append(
        helper.make_node("GRU", inputs, ["", name], hidden_size=hidden, linear_before_reset=1)
    )
    return name, name
