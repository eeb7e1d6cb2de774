"""The log-mel front end against librosa."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from trainer.audio import Float32, decode, to_float
from trainer.corpora import load
from trainer.features import LogMel, LogMelSettings, frame_count

SETTINGS = [
    LogMelSettings(),
    LogMelSettings(n_fft=400, hop_length=160, n_mels=40, fmin_hz=0, fmax_hz=8000),
]


def _librosa_power(audio: Float32, settings: LogMelSettings) -> Float32:
    power = librosa.feature.melspectrogram(
        y=audio,
        sr=settings.sample_rate_hz,
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        window="hann",
        center=False,
        power=2.0,
        n_mels=settings.n_mels,
        fmin=settings.fmin_hz,
        fmax=settings.fmax_hz,
    )
    return np.asarray(power, np.float32)


def _signal(samples: int = 24_000) -> Float32:
    rng = np.random.default_rng(4)
    time = np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * (200 + 300 * time) * time)
    return (0.3 * tone + 0.02 * rng.standard_normal(samples)).astype(np.float32)


def _assert_like_librosa(audio: Float32, settings: LogMelSettings) -> None:
    ours = LogMel(settings).power(torch.from_numpy(audio)[None])[0].numpy()
    theirs = _librosa_power(audio, settings)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5 * theirs.max()
    floor = 1e-6 * float(theirs.max())
    assert np.abs(np.log(ours + floor) - np.log(theirs + floor)).max() < 1e-3


@pytest.mark.parametrize("settings", SETTINGS)
def test_power_is_librosas(settings: LogMelSettings) -> None:
    _assert_like_librosa(_signal(), settings)


@pytest.mark.parametrize("settings", SETTINGS)
def test_power_is_librosas_on_speech(shared: Path, settings: LogMelSettings) -> None:
    utterance = load("savee", shared / "corpora").utterances[0]
    _assert_like_librosa(to_float(decode(utterance.path)), settings)


@pytest.mark.parametrize("normalise", ["level", "band"])
def test_features_are_librosas_normalised(normalise: str) -> None:
    settings = LogMelSettings(normalise=normalise)
    audio, valid = _signal(), 17_000
    scaled = audio[:valid] / np.sqrt(np.mean(audio[:valid].astype(np.float64) ** 2))
    features = np.log(_librosa_power(scaled.astype(np.float32), settings) + settings.log_floor)
    axes = None if normalise == "level" else 1
    features = features - features.mean(axis=axes, keepdims=True)
    features = features / np.sqrt(np.mean(features**2))
    ours, frames = LogMel(settings)(torch.from_numpy(audio)[None], torch.tensor([valid]))
    assert int(frames[0]) == features.shape[1]
    assert np.abs(ours[0, :, : features.shape[1]].numpy() - features).max() < 2e-3
    assert not ours[0, :, features.shape[1] :].any()


def test_level_does_not_matter() -> None:
    frontend = LogMel(LogMelSettings())
    audio = torch.from_numpy(_signal())[None]
    length = torch.tensor([audio.shape[1]])
    loud, _ = frontend(audio, length)
    quiet, _ = frontend(audio * 0.01, length)
    assert torch.allclose(loud, quiet, atol=1e-2)


def test_silence_and_the_shortest_row_are_finite() -> None:
    frontend = LogMel(LogMelSettings())
    audio = torch.zeros(3, 48_000)
    audio[2, 0] = 1.0
    features, frames = frontend(audio, torch.tensor([48_000, 0, 1]))
    assert torch.isfinite(features).all()
    assert frames.tolist() == [238, 1, 1]


def test_frames_lie_within_the_length() -> None:
    assert frame_count(torch.tensor([0, 511, 512, 711, 712]), 512, 200).tolist() == [1, 1, 1, 1, 2]


def test_no_filter_is_empty() -> None:
    assert (LogMel(LogMelSettings()).mel.sum(dim=1) > 0).all()


def test_impossible_bands_are_refused() -> None:
    with pytest.raises(ValidationError, match="fmin_hz < fmax_hz"):
        LogMelSettings(fmin_hz=4_000, fmax_hz=300)
    with pytest.raises(ValidationError, match="fmin_hz < fmax_hz"):
        LogMelSettings(fmax_hz=9_000)
