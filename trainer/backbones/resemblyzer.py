"""Resemblyzer's voice encoder: three LSTM layers that tell speakers apart.

The weights (Apache-2.0) come with the PyPI package `Resemblyzer`, which is located, never
imported. Made for who speaks, it hears little of how: worth comparing, seldom worth using.

Source: Wan et al., Generalized End-to-End Loss for Speaker Verification, 2018.
"""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.backbones.base import SpeechEncoder
from trainer.errors import TrainerError
from trainer.features import time_mask
from trainer.features.spectrum import PowerSpectrum, cut_frames

PACKAGE = "Resemblyzer==0.1.4"
_N_FFT, _HOP, _MELS, _WIDTH, _DEPTH = 400, 160, 40, 256, 3
# Quieter speech is raised to this level, louder left as it is.
_LEVEL = 10 ** (-30 / 20)


class Resemblyzer(SpeechEncoder):
    """Mel power to the outputs of three LSTM layers, every 10 ms."""

    mel: Tensor
    first = 1

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.name = PACKAGE
        self.width = _WIDTH
        self.blocks = nn.ModuleList(
            nn.LSTM(_MELS if i == 0 else _WIDTH, _WIDTH, batch_first=True) for i in range(_DEPTH)
        )
        for i, block in enumerate(self.blocks):
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            block.load_state_dict({f"{kind}_l0": state[f"lstm.{kind}_l{i}"] for kind in kinds})
        self.spectrum = PowerSpectrum(_N_FFT)
        mel = librosa.filters.mel(sr=16_000, n_fft=_N_FFT, n_mels=_MELS)
        self.register_buffer("mel", torch.from_numpy(np.asarray(mel, np.float32)), persistent=False)

    def forward(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See `SpeechEncoder.forward`."""
        audio = audio * time_mask(length, audio.shape[1])
        power = (audio * audio).sum(dim=1) / length.clamp(min=1).float()
        audio = audio * (_LEVEL * torch.rsqrt(power + 1e-12)).clamp(min=1.0)[:, None]
        frames = cut_frames(functional.pad(audio, (_N_FFT // 2, _N_FFT // 2)), _N_FFT, _HOP)
        x = torch.matmul(self.spectrum(frames), self.mel.T)
        found = []
        for number, block in enumerate(self.blocks, start=1):
            x, _ = block(x)
            if number in layers:
                found.append(x)
        steps = torch.div(length, _HOP, rounding_mode="floor") + 1
        return torch.stack(found, dim=1).float(), steps


def load_package() -> Resemblyzer:
    """The encoder with the weights of the installed package.

    Raises
    ------
    TrainerError
        it is not installed, or not what it should be.
    """
    spec = find_spec("resemblyzer")
    if spec is None or spec.origin is None:
        raise TrainerError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    path = Path(spec.origin).parent / "pretrained.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        return Resemblyzer(state)
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainerError(f"{path} does not hold {PACKAGE}'s weights: {error}") from None
