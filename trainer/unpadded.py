"""A second graph of the same weights, for telephone segments that need no padding.

The exported graph takes 16 kHz and masks, layer after layer, what lies beyond a row's length. Most
segments of a telephone stream fill the window to the sample, and come at 8 kHz. For those a graph
without masks gives the same scores for less: on one core 1.55 ms a segment of 3 s, where the other
takes 2.0 ms and the resampling 0.2 ms more.

- No masks: activations stay in the layout that onnxruntime's convolutions like, where each mask
  cost a conversion there and back (0.2 ms), and both directions of the GRU are one operator.
- No resampling: the front end looks no higher than 3.8 kHz. A frame's spectrum is a product of the
  upsampled frame with sines and cosines, and upsampling is linear: so the sines and cosines are
  sent through the resampler's filter once, here, instead of every segment there. That halves the
  spectrum's cost too (0.15 ms less).

A segment alone, of any length, runs at that length.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from serd.audio.resample import QUALITY
from trainer.audio import Float32
from trainer.backbones.compact import Compact, compact_steps
from trainer.backbones.whisper_mel import HOP_SAMPLES, N_FFT, fourier_basis, scaled
from trainer.errors import TrainerError
from trainer.features import LogMel
from trainer.features.spectrum import cut_windows
from trainer.graph import OPSET, Int64, Predictor, onnx_session
from trainer.models import EmotionModel
from trainer.models.backbone import Backbone
from trainer.models.crnn import Crnn

SAMPLE_RATE_HZ = 8_000

# The resampler's filter reaches beyond the frame; what is cut off is 2e-6 of its energy.
_MARGIN = 16
# Levels on a logarithmic scale without a floor, as Whisper's, show more of what is cut off: with 16
# scores differed by 1.5e-3, with 32 by 1.2e-4.
_COMPACT_MARGIN = 32
_REACH = 400


class Unpadded(nn.Module):
    """`audio` float32 [batch, samples] at 8 kHz, every sample valid, to logits.

    Parameters
    ----------
    model
        the network whose weights it takes, in evaluation mode.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        if not isinstance(model, Crnn) or not isinstance(model.frontend, LogMel):
            raise TrainerError("only a CRNN on log-mel features has a graph without padding.")
        settings = model.frontend.settings
        if settings.sample_rate_hz != 2 * SAMPLE_RATE_HZ or settings.fmax_hz > SAMPLE_RATE_HZ / 2:
            raise TrainerError("its front end hears more than 8 kHz audio has.")
        if settings.n_fft % 2 or settings.hop_length % 2:
            raise TrainerError("its frames are no whole samples at 8 kHz.")
        self.hop = settings.hop_length // 2
        self.log_floor = settings.log_floor
        self.by_band = settings.normalise == "band"
        basis = through_upsampling(model.frontend.basis[:, 0].double().numpy())
        self.taps = basis.shape[1]
        self.register_buffer("basis", torch.from_numpy(basis.T.astype(np.float32).copy()))
        self.register_buffer("mel", model.frontend.mel.T.contiguous())
        self.convolutions = nn.ModuleList(_folded(block) for block in model.blocks)
        self.project = model.project
        self.gru = _both_directions(model.forward_gru, model.backward_gru)
        self.attention = model.attention
        self.classify = model.classify

    def forward(self, audio: Tensor) -> Tensor:
        """Logits float32 [batch, labels]."""
        x = self._features(audio)[:, None]
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        batch, channels, rows, steps = x.shape
        x = self.project(x.permute(3, 0, 1, 2).reshape(steps, batch, channels * rows))
        x = self.gru(x)[0].transpose(0, 1)
        weight = torch.softmax(self.attention(x).squeeze(2), dim=1)[:, :, None]
        mean = (x * weight).sum(dim=1)
        away = x - mean[:, None, :]
        spread = (away * away * weight).sum(dim=1)
        logits: Tensor = self.classify(torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1))
        return logits

    def _features(self, audio: Tensor) -> Tensor:
        energy = (audio * audio).mean(dim=1)[:, None, None]
        # Silence before and after, as the resampler has it.
        frames = frames_of(audio, _MARGIN, _MARGIN, self.taps, self.hop)
        real, imaginary = torch.matmul(frames, self.basis).chunk(2, dim=2)
        power = torch.matmul(real * real + imaginary * imaginary, self.mel)
        # Powers are scaled to unit RMS, not the samples: a hundredth as many.
        levels = torch.log(power / (energy + 1e-10) + self.log_floor).transpose(1, 2)
        over = (2,) if self.by_band else (1, 2)
        centred = levels - levels.mean(dim=over, keepdim=True)
        return centred / torch.sqrt((centred * centred).mean(dim=(1, 2), keepdim=True) + 1e-5)


def frames_of(audio: Tensor, before: int, after: int, taps: int, hop: int) -> Tensor:
    """Every frame that there is, as `cut_windows` has them: float32 [batch, frames, taps].

    `before` and `after` are samples of silence around it.
    """
    count = (audio.shape[1] + before + after - taps) // hop + 1
    return cut_windows(functional.pad(audio, (before, after)), count, taps, hop)


def has_form(model: EmotionModel) -> bool:
    """Whether there may be a network without padding that has the weights of `model`."""
    if isinstance(model, Backbone):
        return isinstance(model.encoder, Compact)
    return isinstance(model, Crnn)


def form_of(model: EmotionModel) -> nn.Module:
    """The network without padding that has the weights of `model`.

    Raises
    ------
    TrainerError
        there is none for such a model.
    """
    if isinstance(model, Backbone) and isinstance(model.encoder, Compact):
        return UnpaddedCompact(model, model.encoder)
    return Unpadded(model)


def write_unpadded(model: EmotionModel, path: Path) -> None:
    """Export with both axes of `audio` free.

    Raises
    ------
    TrainerError
        the model has no such form.
    """
    unpadded = form_of(model.eval()).eval()
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but its successor needs onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            unpadded,
            (torch.randn(2, 3 * SAMPLE_RATE_HZ),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["audio"],
            output_names=["logits"],
            dynamic_axes={"audio": {0: "batch", 1: "samples"}, "logits": {0: "batch"}},
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def whole_predictor(path: Path) -> Predictor:
    """The graph as a predictor of rows at 8 kHz that are valid to their end."""
    session = onnx_session(path)

    def predict(audio: Float32, length: Int64) -> Float32:
        (logits,) = session.run(["logits"], {"audio": audio})
        return np.asarray(logits, np.float32)

    return predict


def unpadded_predictor(path: Path) -> Predictor:
    """The graph as a predictor of segments at 16 kHz, each brought to 8 kHz and run alone."""
    whole = whole_predictor(path)

    def predict(audio: Float32, length: Int64) -> Float32:
        rows = zip(audio, length, strict=True)
        return np.concatenate([whole(narrowed(row, count)[None], length) for row, count in rows])

    return predict


def narrowed(row: Float32, samples: int) -> Float32:
    """The first `samples` of a 16 kHz row at 8 kHz: float32 [samples / 2]."""
    return np.asarray(
        soxr.resample(row[:samples], 2 * SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, quality=QUALITY),
        np.float32,
    )


def widened(audio: Float32, length: Int64) -> tuple[Float32, Int64]:
    """What the daemon makes of 8 kHz segments for the other graph: narrowed, then upsampled."""
    wide, there = np.zeros_like(audio), np.zeros_like(length)
    for i, (row, count) in enumerate(zip(audio, length, strict=True)):
        both = soxr.resample(
            narrowed(row, count), SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, quality=QUALITY
        )
        there[i] = min(len(both), audio.shape[1])
        wide[i, : there[i]] = both[: there[i]]
    return wide, there


def through_upsampling(basis: npt.NDArray[np.float64], margin: int = _MARGIN) -> Float32:
    """[rows, n] for 16 kHz to [rows, n / 2 + 2 * margin] for 8 kHz, by the response of soxr."""
    impulse = np.zeros(2 * _REACH + 1)
    impulse[_REACH] = 1.0
    response = soxr.resample(impulse, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, quality=QUALITY)
    taps = basis.shape[1]
    fine = np.arange(taps)[:, None]
    coarse = np.arange(-margin, taps // 2 + margin)[None, :]
    return np.asarray(basis @ response[2 * _REACH + fine - 2 * coarse], np.float32)


class UnpaddedCompact(nn.Module):
    """The same of a backbone on a compact encoder: 8 kHz, every sample valid, to logits."""

    basis: Tensor
    mel: Tensor

    def __init__(self, model: Backbone, encoder: Compact) -> None:
        super().__init__()
        if not model.settings.is_embedding_fixed or model.settings.normalise:
            raise TrainerError("only a compact encoder as it is has a graph without padding.")
        self.model, self.encoder = model, encoder
        if encoder.log_mel.highest_hz > SAMPLE_RATE_HZ / 2:
            raise TrainerError("its front end hears more than 8 kHz audio has.")
        bins = encoder.log_mel.bins
        basis = fourier_basis(N_FFT, bins).T
        plain = through_upsampling(basis, _COMPACT_MARGIN)
        self.taps = plain.shape[1]
        self.register_buffer("basis", torch.from_numpy(plain.T.copy()))
        # Of the first frames, which begin before the first sample.
        self.early = range(-N_FFT // 2, 0, HOP_SAMPLES)
        for number, first in enumerate(self.early):
            folded = through_upsampling(_reflected(basis, -first), _COMPACT_MARGIN)
            folded = folded[:, _COMPACT_MARGIN:]
            self.register_buffer(f"early_{number}", torch.from_numpy(folded.T.copy()))
        self.register_buffer("mel", encoder.log_mel.mel[:, :bins].T.contiguous())

    def forward(self, audio: Tensor) -> Tensor:
        """Logits float32 [batch, labels]."""
        mel = self._features(audio)
        # The last step that there is room for may lie beyond the valid ones.
        steps = compact_steps(torch.tensor(mel.shape[1]), self.encoder.settings.stride)
        told = self.encoder.say(mel, None, steps).flatten(2)
        mean = told.mean(dim=1)
        away = told - mean[:, None]
        spread = (away * away).mean(dim=1)
        return self.model.head(torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1))

    def _features(self, audio: Tensor) -> Tensor:
        hop, beyond = HOP_SAMPLES // 2, N_FFT // 4 + _COMPACT_MARGIN
        longer = functional.pad(audio, (0, beyond))
        found = []
        for number in range(len(self.early)):
            early = self.get_buffer(f"early_{number}")
            found.append(torch.matmul(longer[:, None, : early.shape[0]], early))
        # Where the first frame begins that lies behind the first sample as a whole.
        start = (self.early[-1] + HOP_SAMPLES) // 2 - _COMPACT_MARGIN
        late = frames_of(audio[:, start:], 0, beyond, self.taps, hop)
        found.append(torch.matmul(late, self.basis))
        spectrum = torch.cat(found, dim=1)[:, : audio.shape[1] // hop]
        real, imaginary = spectrum.chunk(2, dim=2)
        power = torch.matmul(real * real + imaginary * imaginary, self.mel)
        return scaled(torch.log10(power.clamp(min=1e-10)), None)


def _reflected(basis: npt.NDArray[np.float64], before: int) -> npt.NDArray[np.float64]:
    """What falls on the `before` samples before the first, laid onto those they mirror.

    [rows, n] of a frame to [rows, n - before], and one of nothing more if that is odd.
    """
    rows, taps = basis.shape
    width = max(taps - before, before + 1)
    laid = np.zeros((rows, width + width % 2))
    laid[:, : taps - before] = basis[:, before:]
    laid[:, 1 : before + 1] += basis[:, :before][:, ::-1]
    return laid


def _folded(block: nn.Module) -> nn.Module:
    """The convolution of a block, its batch norm folded into the weights."""
    convolution, norm = block.conv, block.norm
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def _both_directions(ahead: nn.GRU, back: nn.GRU) -> nn.GRU:
    both = nn.GRU(ahead.input_size, ahead.hidden_size, bidirectional=True)
    with torch.no_grad():
        for name, value in ahead.named_parameters():
            getattr(both, name).copy_(value)
        for name, value in back.named_parameters():
            getattr(both, f"{name}_reverse").copy_(value)
    return both
