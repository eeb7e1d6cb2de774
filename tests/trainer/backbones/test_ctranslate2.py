"""Whisper's weights out of CTranslate2's format."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers", reason="the teacher extra is not installed")

from trainer.backbones.whisper import import_ctranslate2
from trainer.errors import TrainerError


def _write_ctranslate2(path: Path, variables: dict[str, Tensor]) -> None:
    def text(value: str) -> bytes:
        data = value.encode() + b"\0"
        return struct.pack("<H", len(data)) + data

    with path.open("wb") as file:
        file.write(struct.pack("<I", 6) + text("WhisperSpec"))
        file.write(struct.pack("<II", 3, len(variables)))
        for name, tensor in variables.items():
            values = np.ascontiguousarray(tensor.detach().numpy(), np.float32)
            file.write(text(f"encoder/{name}") + struct.pack("<B", values.ndim))
            file.write(struct.pack(f"<{values.ndim}I", *values.shape))
            file.write(struct.pack("<BI", 0, values.nbytes) + values.tobytes())


def test_ctranslate2_is_imported_weight_by_weight(tmp_path: Path) -> None:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Theirs

    torch.manual_seed(3)
    config = WhisperConfig(
        d_model=128, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=96
    )
    made: Any = Theirs(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    variables = {"position_encodings/encodings": made.embed_positions.weight}
    parts = {"conv1": made.conv1, "conv2": made.conv2}
    norms = {"layer_norm": made.layer_norm}
    for i, layer in enumerate(made.layers):
        attention = layer.self_attn
        linear = torch.nn.Linear(128, 384)
        with torch.no_grad():
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            linear.weight.copy_(torch.cat([p.weight for p in projections]))
            zeros = torch.zeros(128)
            linear.bias.copy_(torch.cat([attention.q_proj.bias, zeros, attention.v_proj.bias]))
        parts[f"layer_{i}/self_attention/linear_0"] = linear
        parts[f"layer_{i}/self_attention/linear_1"] = attention.out_proj
        parts[f"layer_{i}/ffn/linear_0"] = layer.fc1
        parts[f"layer_{i}/ffn/linear_1"] = layer.fc2
        norms[f"layer_{i}/self_attention/layer_norm"] = layer.self_attn_layer_norm
        norms[f"layer_{i}/ffn/layer_norm"] = layer.final_layer_norm
    for name, part in parts.items():
        variables |= {f"{name}/weight": part.weight, f"{name}/bias": part.bias}
    for name, norm in norms.items():
        variables |= {f"{name}/gamma": norm.weight, f"{name}/beta": norm.bias}
    path = tmp_path / "model.bin"
    _write_ctranslate2(path, variables)
    state = import_ctranslate2(path).state_dict()
    expected = made.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)

    del variables["layer_1/ffn/linear_1/bias"]
    _write_ctranslate2(path, variables)
    with pytest.raises(TrainerError, match=r"model\.bin is not a Whisper model"):
        import_ctranslate2(path)
