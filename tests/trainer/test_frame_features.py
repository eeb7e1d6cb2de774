"""The frame features against librosa, row by row, and as ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path

import librosa
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from trainer.audio import Float32, decode, to_float
from trainer.corpora import load
from trainer.errors import TrainerError
from trainer.features import (
    FEATURES,
    STATISTICS,
    FrameFeatures,
    FrameSettings,
    FrontendSettings,
    LogMel,
    LogMelSettings,
    build_frontend,
    feature_rows,
    librosa_features,
)
from trainer.features.spectral import Contrast
from trainer.features.spectrum import PowerSpectrum, cut_frames

SIZES = [
    FrameSettings(features=FEATURES, standardise=False),
    FrameSettings(
        features=FEATURES,
        standardise=False,
        n_mfcc=13,
        n_fft=400,
        hop_length=160,
        n_mels=40,
        fmin_hz=50.0,
        fmax_hz=4000.0,
    ),
]
# Decibels and what is made of them, against ratios.
TOLERANCE = {"mel": 0.01, "mfcc": 0.02, "mfcc_delta": 0.01, "mfcc_delta2": 0.01, "contrast": 0.05}


def _speech_like(samples: int, seed: int) -> Float32:
    """Harmonics under a gliding pitch, in bursts, over a little noise, as 16-bit samples."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16_000
    pitch = np.cumsum(120 + 40 * seed + 30 * np.sin(5 * time)) / 16_000
    voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20))
    burst = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, 1)
    sound = 0.2 * voice * burst + 0.003 * rng.standard_normal(samples)
    return (np.rint(sound * 32768) / 32768).astype(np.float32)


def _batch(rows: list[Float32], samples: int) -> tuple[Tensor, Tensor]:
    """Rows in one batch, with rubbish beyond each row's length."""
    rng = np.random.default_rng(1)
    audio = (0.5 * rng.standard_normal((len(rows), samples))).astype(np.float32)
    for i, row in enumerate(rows):
        audio[i, : len(row)] = row
    return torch.from_numpy(audio), torch.tensor([len(row) for row in rows])


def _assert_like_librosa(rows: list[Float32], settings: FrameSettings, samples: int) -> None:
    found, frames = FrameFeatures(settings)(*_batch(rows, samples))
    assert found.dtype == torch.float32
    for i, row in enumerate(rows):
        theirs = librosa_features(row, settings.features, settings)
        valid = int(frames[i])
        assert not found[i, :, valid:].any()
        first = 0
        for name, count in feature_rows(settings).items():
            ours = found[i, first : first + count, :valid].numpy()
            assert ours.shape == theirs[name].shape
            error = np.abs(ours - theirs[name])
            # A valley may be one bin in a deep null, of which single precision sees little.
            worst = np.quantile(error, 0.95) if name == "contrast" else error.max()
            assert worst < TOLERANCE.get(name, 1e-3), name
            first += count
        assert first == found.shape[1]


@pytest.mark.parametrize("settings", SIZES)
def test_features_are_librosas_at_every_length(settings: FrameSettings) -> None:
    lengths = (48_000, 31_234, 9_000, settings.n_fft, settings.n_fft - 100)
    rows = [_speech_like(length, seed) for seed, length in enumerate(lengths)]
    _assert_like_librosa(rows, settings, 48_000)


@pytest.mark.parametrize("settings", SIZES)
def test_features_are_librosas_on_speech(shared: Path, settings: FrameSettings) -> None:
    utterances = load("savee", shared / "corpora").utterances[:300:100]
    rows = [to_float(decode(u.path))[:60_000] for u in utterances]
    _assert_like_librosa(rows, settings, 60_000)


@given(st.integers(1, 300), st.integers(2, 64), st.integers(1, 80))
def test_frames_are_cut_where_they_lie(samples: int, n_fft: int, hop_length: int) -> None:
    audio = torch.arange(2 * samples, dtype=torch.float32).reshape(2, samples)
    frames = cut_frames(audio, n_fft, hop_length)
    padded = torch.cat([audio, torch.zeros(2, max(0, n_fft - samples))], dim=1)
    assert torch.equal(frames, padded.unfold(1, n_fft, hop_length))


@pytest.mark.parametrize("n_fft", [2048, 512, 400, 331])
def test_the_spectrum_and_its_contrast_are_librosas(n_fft: int) -> None:
    sound = _speech_like(20_000, 1)
    frames = cut_frames(torch.from_numpy(sound)[None], n_fft, 150)
    power = PowerSpectrum(n_fft)(frames)
    theirs = np.abs(librosa.stft(sound, n_fft=n_fft, hop_length=150, center=False))
    magnitude = power[0].T.sqrt().numpy()
    assert magnitude.shape == theirs.shape
    assert (np.abs(magnitude - theirs) <= 1e-6 * np.linalg.norm(theirs, axis=0)).all()
    ours = Contrast(16_000, n_fft)(power, torch.ones(1, power.shape[1], 1))[0].T
    contrast = librosa.feature.spectral_contrast(S=magnitude, sr=16_000, n_fft=n_fft)
    np.testing.assert_allclose(ours, contrast, atol=1e-3)


def test_silence_and_short_rows_are_finite_and_librosas() -> None:
    settings = SIZES[0]
    quiet = np.zeros(5_000, np.float32)
    _assert_like_librosa([quiet, quiet[:0]], settings, 5_000)
    # A batch shorter than a frame is one frame.
    _assert_like_librosa([_speech_like(900, 2), quiet[:1]], settings, 900)


def test_statistics_are_those_of_the_valid_frames() -> None:
    rows = [_speech_like(length, seed) for seed, length in enumerate((20_000, 13_000, 2_048, 10))]
    audio, length = _batch(rows, 20_000)
    plain = FrameSettings(features=("mfcc", "zcr"), n_mfcc=5, standardise=False)
    values, frames = FrameFeatures(plain)(audio, length)
    frontend = FrameFeatures(plain.model_copy(update={"summary": STATISTICS}))
    found, columns = frontend(audio, length)
    assert frontend.is_summary
    assert columns.tolist() == [1] * len(rows)
    assert found.shape == (len(rows), frontend.dims, 1)
    for i in range(len(rows)):
        valid = values[i, :, : int(frames[i])].numpy()
        expected = [
            valid.mean(1),
            valid.std(1),
            valid.min(1),
            valid.max(1),
            *np.quantile(valid, (0.5, 0.25, 0.75), axis=1),
        ]
        np.testing.assert_allclose(found[i, :, 0], np.concatenate(expected), rtol=1e-4, atol=1e-4)


def test_a_rows_features_are_its_own() -> None:
    frontend = FrameFeatures(FrameSettings(features=FEATURES, summary=("mean", "median")))
    rows = [_speech_like(30_000, 0), _speech_like(8_000, 1) * 0.01]
    together, _ = frontend(*_batch(rows, 30_000))
    for i, row in enumerate(rows):
        alone, _ = frontend(torch.from_numpy(row)[None], torch.tensor([len(row)]))
        torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("summary", [(), ("mean", "std")])
def test_standardisation_is_measured_on_what_fit_is_given(summary: tuple[str, ...]) -> None:
    settings = FrameSettings.model_validate(
        {"features": ("mfcc", "rms"), "n_mfcc": 4, "summary": summary}
    )
    frontend = FrameFeatures(settings)
    batches = [
        _batch([_speech_like(n, seed) for seed, n in enumerate(lengths)], 20_000)
        for lengths in ((20_000, 9_000), (15_000,), (5_000, 12_000, 800))
    ]
    frontend.fit(iter(batches))
    kept = []
    for audio, length in batches:
        values, frames = frontend(audio, length)
        kept += [row[:, : int(n)] for row, n in zip(values, frames, strict=True)]
    fitted = torch.cat(kept, dim=1)
    assert fitted.mean(1).abs().max() < 1e-4
    assert (fitted.std(1, unbiased=False) - 1).abs().max() < 1e-4
    again = FrameFeatures(settings)
    again.load_state_dict(frontend.state_dict())
    torch.testing.assert_close(again(*batches[0]), frontend(*batches[0]))
    # A constant dimension stays at zero.
    frontend.fit([(torch.zeros(2, 9_000), torch.tensor([9_000, 9_000]))])
    assert not frontend(torch.zeros(1, 9_000), torch.tensor([9_000]))[0].any()


def test_standardisation_needs_training_audio() -> None:
    with pytest.raises(TrainerError, match="no training audio"):
        FrameFeatures(FrameSettings()).fit([])
    broken = (torch.full((1, 4_000), torch.nan), torch.tensor([4_000]))
    with pytest.raises(TrainerError, match="not numbers"):
        FrameFeatures(FrameSettings()).fit([broken])


@pytest.mark.parametrize("summary", [(), STATISTICS])
def test_onnx_computes_the_same(tmp_path: Path, summary: tuple[str, ...]) -> None:
    settings = FrameSettings.model_validate(
        {"features": FEATURES, "summary": summary, "n_fft": 512, "hop_length": 200, "n_mels": 40}
    )
    frontend = FrameFeatures(settings).eval()
    lengths = (16_000, 7_000, 512, 100, 0)
    audio, length = _batch([_speech_like(n, seed) for seed, n in enumerate(lengths)], 16_000)
    frontend.fit([(audio, length)])
    path = tmp_path / "frontend.onnx"
    with warnings.catch_warnings():
        # The tracer warns of Python numbers, which are meant to be constants here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            frontend,
            (audio[:2], length[:2]),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["audio", "length"],
            output_names=["features", "frames"],
            dynamic_axes={name: {0: "batch"} for name in ("audio", "length", "features")},
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows in (slice(0, 1), slice(0, 5), slice(2, 5)):
        expected, frames = frontend(audio[rows], length[rows])
        found = session.run(None, {"audio": audio[rows].numpy(), "length": length[rows].numpy()})
        assert found[1].tolist() == frames.tolist()
        assert np.abs(found[0] - expected.numpy()).max() < 5e-3


def test_settings_are_told_apart_by_kind() -> None:
    adapter: TypeAdapter[FrontendSettings] = TypeAdapter(FrontendSettings)
    assert adapter.validate_python({"n_mels": 32}) == LogMelSettings(n_mels=32)
    frames = adapter.validate_python({"kind": "frames", "features": ["zcr"]})
    assert frames == FrameSettings(features=("zcr",))
    assert adapter.validate_json(adapter.dump_json(frames)) == frames
    assert isinstance(build_frontend(LogMelSettings()), LogMel)
    assert isinstance(build_frontend(FrameSettings()), FrameFeatures)
    for table, complaint in (
        ({"kind": "wavelets"}, "wavelets"),
        ({"kind": "frames", "features": ["pitch"]}, "features"),
        ({"kind": "frames", "features": ["zcr", "zcr"]}, "twice"),
        ({"kind": "frames", "n_mfcc": 41, "n_mels": 40}, "n_mfcc"),
        ({"kind": "frames", "fmax_hz": 9_000}, "fmin_hz < fmax_hz"),
        ({"kind": "frames", "features": ["contrast"], "n_fft": 64}, "contrast"),
        ({"n_mfcc": 3}, "n_mfcc"),
    ):
        with pytest.raises(ValidationError, match=complaint):
            adapter.validate_python(table)
