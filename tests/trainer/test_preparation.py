"""Trimming and noise reduction of decoded recordings."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from pydantic import ValidationError

from trainer.audio import Int16, to_float, to_int16
from trainer.preparation import PrepareSettings, prepare_samples, reduce_noise


def _recording(noise: float = 0.01, seconds: int = 2) -> Int16:
    """Noise with three louder bursts in its first two seconds."""
    rng = np.random.default_rng(3)
    samples = noise * rng.standard_normal(16_000 * seconds)
    for start in (10_000, 15_000, 20_000):
        samples[start : start + 4_000] += 0.2 * rng.standard_normal(4_000)
    return to_int16(samples)


def _level_db(samples: Int16) -> float:
    return float(10 * np.log10(np.mean(to_float(samples) ** 2) + 1e-12))


def test_by_default_only_the_bounds_of_speech_are_found() -> None:
    samples = _recording(0.0005)
    prepared = prepare_samples(samples, PrepareSettings())
    assert np.array_equal(prepared.samples, samples)
    start, end = prepared.bounds
    assert abs(start - 10_000) <= 512
    assert abs(end - 24_000) <= 512


def test_librosas_trimming_is_librosas() -> None:
    samples = _recording(0.0005)
    for top_db in (None, 20.0):
        found = prepare_samples(samples, PrepareSettings(trim="librosa", top_db=top_db))
        _, expected = librosa.effects.trim(to_float(samples), top_db=top_db or 60)
        assert found.bounds == tuple(expected)


def test_top_db_moves_the_bounds() -> None:
    samples = _recording(0.01)
    wide = prepare_samples(samples, PrepareSettings(top_db=50)).bounds
    narrow = prepare_samples(samples, PrepareSettings(top_db=15)).bounds
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_without_trimming_the_bounds_are_the_recordings() -> None:
    prepared = prepare_samples(_recording(), PrepareSettings(trim="none"))
    assert prepared.bounds == (0, 32_000)


@pytest.mark.parametrize("kind", ["stationary", "non-stationary"])
def test_noise_reduction_lowers_the_pauses_more_than_the_bursts(kind: str) -> None:
    samples = _recording(0.03, seconds=8)
    settings = PrepareSettings.model_validate({"noise_reduction": kind})
    cleaned = prepare_samples(samples, settings).samples
    assert cleaned.dtype == np.int16
    assert cleaned.shape == samples.shape
    pause, burst = slice(1_000, 8_000), slice(15_500, 18_500)
    assert _level_db(cleaned[pause]) < _level_db(samples[pause]) - 6
    assert _level_db(cleaned[burst]) > _level_db(samples[burst]) - 4
    half = settings.model_copy(update={"noise_reduction_strength": 0.5})
    milder = prepare_samples(samples, half).samples
    assert _level_db(cleaned[pause]) < _level_db(milder[pause]) < _level_db(samples[pause])


@pytest.mark.parametrize("stationary", [True, False])
def test_noise_reduction_survives_silence_and_the_shortest(stationary: bool) -> None:
    silence = np.zeros(30_000, np.int16)
    assert np.array_equal(reduce_noise(silence, stationary), silence)
    short = _recording()[10_000:10_500]
    assert np.array_equal(reduce_noise(short, stationary), short)
    # More silence than the library looks at in one go.
    late = np.concatenate([np.zeros(700_000, np.int16), _recording(0.0)])
    cleaned = reduce_noise(late, stationary)
    assert cleaned.shape == late.shape
    assert not cleaned[:600_000].any()
    assert cleaned.any()


def test_impossible_settings_are_refused() -> None:
    for table, complaint in (
        ({"trim": "none", "top_db": 30}, "top_db has no meaning"),
        ({"top_db": 0}, "top_db"),
        ({"noise_reduction": "wiener"}, "noise_reduction"),
        ({"noise_reduction_strength": 1.5}, "noise_reduction_strength"),
        ({"denoise": True}, "denoise"),
    ):
        with pytest.raises(ValidationError, match=complaint):
            PrepareSettings.model_validate(table)
