"""The energy gate: noise floor, rows, quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serd.types import Int16Array, frame_samples
from serd.vad.energy import EnergyDetector
from tests.vad.material import auc, conversations, listen, through_mulaw

RATES = (8000, 16000)


def noise(rate_hz: int, seconds: float, level: float, seed: int = 0) -> Int16Array:
    samples = np.random.default_rng(seed).normal(0, level, round(seconds * rate_hz))
    return samples.astype(np.int16)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("level", [0, 3, 100, 3000])
def test_steady_noise_of_any_level_is_silence(rate_hz: int, level: float) -> None:
    (got,) = listen(EnergyDetector(rate_hz, 1), [noise(rate_hz, 5, level)])
    assert got.max() < 0.35


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("level", [3, 100, 1000])
def test_what_stands_above_the_noise_is_speech(rate_hz: int, level: float) -> None:
    samples = noise(rate_hz, 4, level)
    samples[2 * rate_hz : 3 * rate_hz] *= 10
    (got,) = listen(EnergyDetector(rate_hz, 1), [samples])
    assert got[:62].max() < 0.35
    assert got[67:93].min() > 0.5
    assert got[105:].max() < 0.35


def test_the_floor_rises_to_louder_noise() -> None:
    (got,) = listen(
        EnergyDetector(8000, 1), [np.concatenate([noise(8000, 1, 30), noise(8000, 9, 300)])]
    )
    assert got[40] > 0.5
    assert got[-30:].max() < 0.35


def test_the_first_frames_of_a_loud_recording_are_taken_for_noise() -> None:
    (got,) = listen(EnergyDetector(8000, 1), [noise(8000, 1, 3000)])
    assert got[0] < 0.2


@pytest.mark.parametrize("rate_hz", RATES)
def test_rows_do_not_depend_on_their_company(rate_hz: int) -> None:
    rng = np.random.default_rng(5)
    frame = frame_samples(rate_hz)
    recordings = [noise(rate_hz, 1, level, level) for level in (1, 10, 100, 1000, 5000)]
    together = np.stack(listen(EnergyDetector(rate_hz, 5), recordings))
    detector = EnergyDetector(rate_hz, 9)
    place = rng.permutation(9)[:5]
    done = np.zeros(5, np.int64)
    count = together.shape[1]
    apart = np.zeros_like(together)
    while (done < count).any():
        ready = rng.permutation(np.flatnonzero(done < count))
        chosen = ready[: rng.integers(1, len(ready) + 1)]
        pieces = [recordings[k][done[k] * frame : (done[k] + 1) * frame] for k in chosen]
        apart[chosen, done[chosen]] = detector.step(place[chosen], np.stack(pieces))
        done[chosen] += 1
    assert np.array_equal(apart, together)


def test_extremes_stay_probabilities() -> None:
    square = np.tile(np.array([32767, -32768], np.int16).repeat(8), 16 * 20)
    spikes = np.zeros_like(square)
    spikes[::256] = -32768
    for got in listen(EnergyDetector(8000, 2), [square, spikes]):
        assert np.isfinite(got).all()
        assert ((got >= 0) & (got <= 1)).all()


def test_other_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="8000 and 16000"):
        EnergyDetector(44100, 1)


@pytest.mark.parametrize(("rate_hz", "telephone"), [(16000, False), (8000, False), (8000, True)])
def test_meetings(shared: Path, rate_hz: int, telephone: bool) -> None:
    recordings, truth = conversations(shared, rate_hz)
    if telephone:
        recordings = [through_mulaw(samples) for samples in recordings]
    got = listen(EnergyDetector(rate_hz, len(recordings)), recordings)
    assert auc(np.concatenate(truth), np.concatenate(got)) > 0.87
