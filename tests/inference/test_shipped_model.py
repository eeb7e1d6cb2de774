"""What the daemon relies on, shown on the emotion model that comes with serd."""

from __future__ import annotations

import numpy as np
import pytest

from serd.audio.resample import to_model_rate
from serd.inference.manifest import resolve_model
from serd.inference.model import EmotionModel
from serd.inference.worker import SegmentJob
from serd.types import Float32Array, Int64Array

# What float32 rounds differently in another batch.
BATCH_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> EmotionModel:
    model = EmotionModel.load(resolve_model("serd-crnn"), "cpu")
    model.warm_up()
    return model


def telephone(samples: int, seed: int) -> SegmentJob:
    """Something like a voice, at 8 kHz: a buzz whose pitch and colour wander, in some noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(samples) / 8000
    pitch_hz = 130 + 40 * np.sin(2 * np.pi * 0.7 * time_s + seed)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch_hz) / 8000)) + 0.3 * rng.standard_normal(
        samples
    )
    colour = np.convolve(buzz, np.hanning(5 + seed % 7), "same")
    loud = np.abs(np.sin(2 * np.pi * 1.3 * time_s)) * colour
    return SegmentJob((loud / np.abs(loud).max() * 12_000).astype(np.int16), 8000, 0)


def noise(model: EmotionModel, rows: int) -> tuple[Float32Array, Int64Array]:
    rng = np.random.default_rng(3)
    length = rng.integers(model.sample_rate_hz // 4, model.samples + 1, size=rows)
    loudness = rng.uniform(0.001, 0.3, size=(rows, 1))
    audio = (rng.standard_normal((rows, model.samples)) * loudness).clip(-1, 1)
    audio[np.arange(model.samples) >= length[:, None]] = 0.0
    return audio.astype(np.float32), length


def test_it_takes_the_default_window(model: EmotionModel) -> None:
    model.manifest.check_window(3.0)


def test_a_segment_scores_the_same_whatever_batch_it_rides_in(model: EmotionModel) -> None:
    audio, length = noise(model, 21)
    alone = np.concatenate([model.run(audio[i : i + 1], length[i : i + 1]) for i in range(21)])
    for rows in (2, 5, 8, 21):
        together = model.run(audio[:rows], length[:rows])
        np.testing.assert_allclose(together, alone[:rows], atol=BATCH_TOLERANCE, rtol=0)
        backwards = model.run(audio[:rows][::-1], length[:rows][::-1])[::-1]
        np.testing.assert_allclose(backwards, alone[:rows], atol=BATCH_TOLERANCE, rtol=0)


def test_what_lies_beyond_the_length_does_not_matter(model: EmotionModel) -> None:
    audio, length = noise(model, 6)
    dirty = np.where(np.arange(model.samples) < length[:, None], audio, np.float32(0.9))
    np.testing.assert_allclose(
        model.run(dirty, length), model.run(audio, length), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("length", [1, 100, 4000, 48000])
@pytest.mark.parametrize("level", [0.0, 1e-6, 1.0])
def test_any_level_and_length_gives_probabilities(
    model: EmotionModel, length: int, level: float
) -> None:
    audio = np.zeros((1, model.samples), np.float32)
    audio[0, :length] = np.where(np.arange(length) % 40 < 20, level, -level)
    scores = model.run(audio, np.array([length]))
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1.0, abs=1e-6)


def test_telephone_segments_score_as_if_they_were_resampled_and_padded(
    model: EmotionModel,
) -> None:
    lengths = (24_000, 24_000, 17_003, 8_000, 24_000, 4_096, 12_345, 256)
    segments = [telephone(samples, seed) for seed, samples in enumerate(lengths)]
    audio = np.zeros((len(segments), model.samples), np.float32)
    length = np.zeros(len(segments), np.int64)
    for row, segment in enumerate(segments):
        heard = to_model_rate(segment.audio, 8000, model.sample_rate_hz)
        audio[row, : len(heard)], length[row] = heard, len(heard)
    expected = model.run(audio, length)
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(model.score(segments), expected, atol=1e-3, rtol=0)


def test_a_telephone_segment_scores_the_same_whatever_batch_it_rides_in(
    model: EmotionModel,
) -> None:
    segments = [telephone(24_000 if seed % 3 else 9_000 + seed, seed) for seed in range(21)]
    alone = np.concatenate([model.score([segment]) for segment in segments])
    for rows in (2, 5, 8, 21):
        together = model.score(segments[:rows])
        np.testing.assert_allclose(together, alone[:rows], atol=BATCH_TOLERANCE, rtol=0)
