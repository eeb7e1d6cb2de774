"""silero's network, rearranged so that the batch is the long side of every product.

As it is published the network works frame by frame: a short-time Fourier transform and four
convolutions over 4, 4, 2 and 1 steps of time, then an LSTM's single step. onnxruntime runs such a
convolution as one small matrix product a row of the batch, 4 columns wide at most, and cannot
optimise across the ``If`` that chooses the rate. Here every layer is one product whose first axis
is the batch, and a rate has a graph of its own. Microseconds a frame of the model call on one core
(AVX-512), published and rearranged, by size of the batch:

    rows          1    8   32  128  512
    8 kHz        63   29   24   22   22    published
                 44   10    6    5    5    rearranged

A convolution over so few steps is one matrix: all steps in, all steps out, zero where a kernel
does not reach. That multiplies by zeros (a third of the matrix of the first convolution, which
gathering the steps into columns would avoid at the same cost) but takes no other operator. The
weights are the published file's own, read when it is opened; nothing is trained or rounded, and
the sums differ by the order of their terms alone: probabilities by some 1e-6.
"""

from __future__ import annotations

import numpy as np

from serd.types import Float32Array, Int64Array
from serd.vad.onnx_graph import FLOAT, GraphWriter, read_constants

STATE = 128
"""Floats of each of the two halves of the LSTM's state."""

STEPS = 4
"""Windows of the Fourier transform in a frame."""

_BRANCH = {8000: "If_0_else_branch__Inline_0__", 16000: "If_0_then_branch__Inline_0__"}
_STRIDES = (1, 2, 2, 1)
_PEAK = 32768


def window_samples(frame_samples: int) -> int:
    """Samples of a window of the Fourier transform. Windows overlap by half."""
    return frame_samples // 2


def rearrange(published: bytes, sample_rate_hz: int) -> bytes:
    """The network for one rate (8000 or 16000).

    Inputs: ``windows`` float32 [batch * 4, window], the samples as 16-bit numbers, overlapping as
    the Fourier transform wants them, ``hidden`` and ``cell`` float32 [batch, 128]. Outputs:
    ``probability`` float32 [batch, 1], ``next_hidden`` and ``next_cell``.
    """
    weights = _weights(published, sample_rate_hz)
    graph = GraphWriter()
    _layers(graph, weights, "windows", "hidden", "cell")
    state = ("batch", STATE)
    return graph.model(
        "silero_rows",
        {"windows": ("windows", _window(weights)), "hidden": state, "cell": state},
        {"probability": ("batch", 1), "next_hidden": state, "next_cell": state},
    )


def rearrange_with_tables(published: bytes, sample_rate_hz: int, context_samples: int) -> bytes:
    """The network for one rate with the state of all rows as a table that it reads and writes.

    For a device: samples go up and probabilities come down, the state stays. Inputs: ``samples``
    int16 [batch, context + frame], ``rows`` int64 [batch], ``keep`` float32 [batch, 1], 0 where a
    row's state is to be zero before the step, else 1, ``hidden`` and ``cell`` float32 [rows, 128],
    the state of all rows. Outputs: ``probability`` float32 [batch, 1], ``hidden_after`` and
    ``cell_after``, the tables with those rows replaced.
    """
    weights = _weights(published, sample_rate_hz)
    window = _window(weights)
    graph = GraphWriter()
    samples = graph.node("Cast", ["samples"], "samples.float", to=FLOAT)
    places = _window_places(window, context_samples)
    by_window = graph.node(
        "Gather", [samples, graph.constant("windows.places", places)], "windows.by_row", axis=1
    )
    shape = graph.constant("windows.shape", np.array([-1, window]))
    windows = graph.node("Reshape", [by_window, shape], "windows")
    state = {}
    for name in ("hidden", "cell"):
        gathered = graph.node("Gather", [name, "rows"], f"{name}.stored", axis=0)
        state[name] = graph.node("Mul", [gathered, "keep"], f"{name}.of_rows")
    _layers(graph, weights, windows, state["hidden"], state["cell"])
    column = graph.constant("rows.column", np.array([-1, 1]))
    at = graph.node("Reshape", ["rows", column], "rows.at")
    for name in ("hidden", "cell"):
        graph.node("ScatterND", [name, at, f"next_{name}"], f"{name}_after")
    table = ("rows_in_all", STATE)
    return graph.model(
        "silero_tables",
        {
            "samples": ("batch", context_samples + STEPS * window // 2),
            "rows": ("batch",),
            "keep": ("batch", 1),
            "hidden": table,
            "cell": table,
        },
        {"probability": ("batch", 1), "hidden_after": table, "cell_after": table},
        {"samples": "int16", "rows": "int64"},
    )


def _window_places(window: int, context_samples: int) -> Int64Array:
    """Where in a row of samples, the context before the frame, those of each window are.

    The last window reaches beyond the frame, into its mirror image.
    """
    end = context_samples + STEPS * window // 2
    places = np.arange(STEPS)[:, None] * (window // 2) + np.arange(window)
    return np.where(places < end, places, 2 * end - 2 - places).astype(np.int64)


def _weights(published: bytes, sample_rate_hz: int) -> dict[str, Float32Array]:
    prefix = _BRANCH[sample_rate_hz]
    return {
        name.removeprefix(prefix): values
        for name, values in read_constants(published).items()
        if name.startswith(prefix)
    }


def _window(weights: dict[str, Float32Array]) -> int:
    return int(weights["stft.forward_basis_buffer"].shape[2])


def _layers(
    graph: GraphWriter, weights: dict[str, Float32Array], windows: str, hidden: str, cell: str
) -> None:
    """All from windows and state to ``probability``, ``next_hidden`` and ``next_cell``."""
    steps = STEPS
    layer = graph.node(
        "Reshape",
        [
            _spectrum(graph, windows, weights["stft.forward_basis_buffer"]),
            graph.constant("by_row", np.array([-1, steps * _bins(weights)])),
        ],
        "spectra",
    )
    for index, stride in enumerate(_STRIDES):
        name = f"encoder.{index}.reparam_conv"
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        layer, steps = _convolution(graph, layer, name, kernel, bias, steps, stride)
    shown = _lstm(graph, layer, hidden, cell, weights)
    speech = graph.node("Relu", [shown], "speech")
    odds = graph.node(
        "Gemm",
        [
            speech,
            graph.constant("decoder.weight", weights["decoder.decoder.2.weight"][0]),
            graph.constant("decoder.bias", weights["decoder.decoder.2.bias"]),
        ],
        "odds",
    )
    graph.node("Sigmoid", [odds], "probability")


def _bins(weights: dict[str, Float32Array]) -> int:
    return len(weights["stft.forward_basis_buffer"]) // 2


def _spectrum(graph: GraphWriter, windows: str, basis: Float32Array) -> str:
    """Magnitudes of the windows, from a basis [2 * bins, 1, window] of cosines and sines."""
    bins = len(basis) // 2
    squares = []
    for name, part in (("cosines", basis[:bins, 0]), ("sines", basis[bins:, 0])):
        # A power of two, so taking 16-bit numbers for -1 to 1 changes no bit of the result.
        matrix = graph.constant(f"{name}.basis", part.T / np.float32(_PEAK))
        product = graph.node("MatMul", [windows, matrix], name)
        squares.append(graph.node("Mul", [product, product], f"{name}.squared"))
    return graph.node("Sqrt", [graph.node("Add", squares, "power")], "magnitude")


def _convolution(
    graph: GraphWriter,
    layer: str,
    name: str,
    kernel: Float32Array,
    bias: Float32Array,
    steps: int,
    stride: int,
) -> tuple[str, int]:
    """A convolution [out, in, 3] over `steps` steps, padded by one, with its rectifier; returns
    its output [batch, steps * out] and how many steps that has.
    """
    outputs, inputs, taps = kernel.shape
    after = (steps - 1) // stride + 1
    matrix = np.zeros((steps, inputs, after, outputs), np.float32)
    for to in range(after):
        for tap in range(taps):
            at = to * stride + tap - 1
            if 0 <= at < steps:
                matrix[at, :, to] = kernel[:, :, tap].T
    product = graph.node(
        "Gemm",
        [
            layer,
            graph.constant(f"{name}.weight", matrix.reshape(steps * inputs, after * outputs)),
            graph.constant(f"{name}.bias", np.tile(bias, after)),
        ],
        f"{name}.sum",
    )
    return graph.node("Relu", [product], f"{name}.output"), after


def _lstm(
    graph: GraphWriter, layer: str, hidden: str, cell: str, weights: dict[str, Float32Array]
) -> str:
    """One step of the LSTM (PyTorch's order of gates: input, forget, cell, output)."""
    matrix = np.concatenate(
        [weights["decoder.rnn.weight_ih"].T, weights["decoder.rnn.weight_hh"].T]
    )
    gates = graph.node(
        "Gemm",
        [
            graph.node("Concat", [layer, hidden], "lstm.input", axis=1),
            graph.constant("lstm.weight", matrix),
            graph.constant(
                "lstm.bias", weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
            ),
        ],
        "lstm.gates",
    )
    sizes = graph.constant("lstm.sizes", np.full(4, STATE))
    names = ("gate.input", "gate.forget", "gate.cell", "gate.output")
    graph.node("Split", [gates, sizes], *names, axis=1)
    let_in, kept, candidate, let_out = (
        graph.node("Tanh" if name == "gate.cell" else "Sigmoid", [name], f"{name}.open")
        for name in names
    )
    old = graph.node("Mul", [kept, cell], "cell.kept")
    new = graph.node("Mul", [let_in, candidate], "cell.new")
    after = graph.node("Add", [old, new], "next_cell")
    shown = graph.node("Tanh", [after], "cell.shown")
    return graph.node("Mul", [let_out, shown], "next_hidden")
