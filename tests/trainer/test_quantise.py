"""Smaller graphs: the features stay as they are, inputs and outputs too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from trainer.crossfit import Scaling
from trainer.errors import TrainerError
from trainer.features import LogMelSettings
from trainer.graph import onnx_predictor, write_onnx
from trainer.models import CrnnSettings, LstmSettings, build
from trainer.quantise import append_scaling, write_fp16, write_int8
from trainer.timing import milliseconds

SAMPLES = 8_000


class Encoder(nn.Module):
    """Features without a name of their own: a logarithm of what would overflow float16."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Linear(100, 12, bias=False)
        self.out = nn.Linear(12, 4)

    def forward(self, audio: Tensor, length: Tensor) -> Tensor:
        frames = audio.reshape(audio.shape[0], -1, 100)
        power = self.filters((1e4 * frames) ** 2).abs()
        loud = torch.log(power + 1e-3).mean(dim=1)
        scores: Tensor = self.out(loud) * (length[:, None] > 0).float()
        return scores


@pytest.fixture(params=["lstm", "encoder"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model: nn.Module = Encoder()
    if request.param == "lstm":
        model = build(LstmSettings(hidden=8, layers=1), LogMelSettings(n_mels=16), 4)
    path = tmp_path / "model.onnx"
    write_onnx(model, path, samples=SAMPLES)
    return path


def asked(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal((3, SAMPLES))).astype(np.float32)
    return onnx_predictor(path)(audio, np.array([SAMPLES, 5_000, 700]))


def constants(nodes: Iterable[onnx.NodeProto], graph: onnx.GraphProto) -> set[bytes]:
    """Larger float32 constants that the nodes take."""
    nodes = list(nodes)
    names = {name for node in nodes for name in node.input}
    tensors = [t for t in graph.initializer if t.name in names]
    tensors += [a.t for n in nodes if n.op_type == "Constant" for a in n.attribute]
    arrays = [numpy_helper.to_array(t) for t in tensors if t.data_type == TensorProto.FLOAT]
    return {array.tobytes() for array in arrays if array.size > 100}


def test_features_stay_in_float32(source: Path, tmp_path: Path) -> None:
    small, half = tmp_path / "int8.onnx", tmp_path / "fp16.onnx"
    write_int8(source, small)
    write_fp16(source, half)
    expected = asked(source)
    graph = onnx.load(source).graph
    last = max(i for i, node in enumerate(graph.node) if node.op_type == "Log")
    kept = constants(graph.node[: last + 1], graph)
    assert kept
    for path, most in ((small, 0.05), (half, 0.02)):
        graph = onnx.load(path).graph
        assert {t.type.tensor_type.elem_type for t in graph.input} == {1, 7}
        assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
        assert kept <= constants(graph.node, graph)
        found = asked(path)
        assert 0 < float(np.abs(found - expected).max()) < most * float(np.abs(expected).max())


def test_convolutions_between_many_channels_are_static(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = CrnnSettings(channels=(16, 32, 32), time_strides=(2, 2, 1), projection=64, hidden=8)
    source, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    write_onnx(build(settings, LogMelSettings(n_mels=16), 4), source, samples=SAMPLES)
    rng = np.random.default_rng(0)
    heard = [
        {"audio": (0.1 * rng.standard_normal((1, SAMPLES))).astype(np.float32), "length": [SAMPLES]}
        for _ in range(3)
    ]
    write_int8(source, small, heard)
    graph = onnx.load(small).graph
    made = {name: node for node in graph.node for name in node.output}
    inside = [made[n.input[0]].op_type for n in graph.node if n.op_type == "Conv"]
    # The transform and the first convolution stay; no ReLU stands between the other two.
    assert inside.count("DequantizeLinear") == 2
    assert len(inside) == 4
    assert sum(node.op_type == "Relu" for node in graph.node) == 2
    expected = asked(source)
    assert 0 < np.abs(asked(small) - expected).max() < 0.05 * np.abs(expected).max()
    # Without audio to take ranges from, matrix products are all that is left.
    write_int8(source, small)
    assert not any(node.op_type == "QuantizeLinear" for node in onnx.load(small).graph.node)


def test_scaling_ends_the_graph(source: Path) -> None:
    before = asked(source)
    scaling = Scaling("vector", np.array([1.0, 2.0, 0.5, 1.0]), np.array([0.0, 1.0, -1.0, 3.0]))
    append_scaling(source, scaling)
    np.testing.assert_allclose(asked(source), scaling(before.astype(np.float64)), rtol=1e-5)


def test_what_int8_would_not_speed_up_is_refused(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, audio: Tensor, length: Tensor) -> Tensor:
            return audio[:, :4] * length[:, None].float()

    write_onnx(Mean(), tmp_path / "mean.onnx", samples=SAMPLES)
    with pytest.raises(TrainerError, match="no matrix product"):
        write_int8(tmp_path / "mean.onnx", tmp_path / "int8.onnx")


def test_every_path_is_timed(source: Path) -> None:
    found = milliseconds([source, source], rounds=2, samples=SAMPLES)
    assert len(found) == 2
    assert min(found) > 0
