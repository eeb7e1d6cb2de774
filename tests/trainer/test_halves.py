"""Weights stored in half: the same scores, and only where nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from trainer.graph import onnx_predictor, write_onnx
from trainer.halves import store_halves, widened


class _Model(nn.Module):
    def __init__(self, exact: bool, divided_by: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 3)
        if exact:
            # Down to the smallest that a half tells apart with all its bits.
            smaller = self.first.weight.data * torch.logspace(-3, 0, 64)
            self.first.weight.data = smaller.half().float() / divided_by

    def forward(self, audio: Tensor, length: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(audio))) * length[:, None].float()
        return found


@pytest.mark.parametrize("divided_by", [1.0, 8.0])
def test_scores_stay_the_same_to_the_bit_and_the_file_shrinks(
    tmp_path: Path, divided_by: float
) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(_Model(True, divided_by), path, samples=64)
    size = path.stat().st_size
    audio = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    length = np.arange(1, 6)
    before = onnx_predictor(path)(audio, length)
    assert store_halves(path) == 1
    assert path.stat().st_size < 0.65 * size
    assert np.array_equal(onnx_predictor(path)(audio, length), before)
    assert store_halves(path) == 0
    again = onnx.load(path)
    onnx.save(widened(again), str(path))
    assert not any(node.op_type in ("Cast", "Div") for node in again.graph.node[:2])
    assert path.stat().st_size >= size
    assert np.array_equal(onnx_predictor(path)(audio, length), before)


def test_weights_that_need_all_their_bits_keep_them(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(_Model(exact=False), path, samples=64)
    before = path.read_bytes()
    assert store_halves(path) == 0
    assert path.read_bytes() == before
    large = onnx.load(path)
    kinds = {tensor.data_type for tensor in large.graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds
