"""Each degradation of the sound itself does what its name says, and keeps its length."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.audio import Float32
from trainer.augment import (
    add_room,
    babble,
    change_gain,
    change_speed,
    clip_peaks,
    equalise,
    excerpt,
    gaussian,
    mix_at_snr,
    rms,
    set_level,
    shift_pitch,
    shift_time,
    stretch_time,
)
from trainer.augment.mixup import mixup


def _speech(samples: int = 16_000) -> Float32:
    time = np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * 220 * time) + 0.5 * np.sin(2 * np.pi * 1500 * time)
    return np.asarray(0.2 * tone * (1 + np.sin(2 * np.pi * 3 * time)), np.float32)


def _harmonic(base_hz: float, samples: int = 24_000) -> Float32:
    time = np.arange(samples) / 16_000
    tones = [np.sin(2 * np.pi * base_hz * k * time) / k for k in range(1, 12)]
    return np.asarray(0.2 * np.sum(tones, axis=0), np.float32)


def _pitch_hz(samples: Float32) -> float:
    return float(np.median(librosa.yin(samples, fmin=60, fmax=500, sr=16_000)[3:-3]))


def _band_level(samples: Float32, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / 16_000)
    return float(power[(frequency >= low_hz) & (frequency < high_hz)].sum())


@given(snr_db=st.floats(-5, 40), noise_samples=st.integers(100, 40_000))
def test_the_snr_is_reached(snr_db: float, noise_samples: int) -> None:
    speech = _speech()
    noise = gaussian(noise_samples, np.random.default_rng(0))
    mixed = mix_at_snr(speech, noise, snr_db)
    assert len(mixed) == len(speech)
    reached = 20 * np.log10(rms(speech) / rms((mixed - speech).astype(np.float32)))
    assert reached == pytest.approx(snr_db, abs=0.1)


def test_silence_is_left_alone() -> None:
    nothing = np.zeros(1_000, np.float32)
    assert mix_at_snr(_speech(1_000), nothing, 3.0) == pytest.approx(_speech(1_000))
    assert not set_level(nothing, -20.0).any()
    assert not clip_peaks(nothing, 0.5).any()


def test_voices_of_the_babble_are_equally_loud() -> None:
    low, high = _harmonic(100.0), 0.01 * _harmonic(130.0, 8_000)
    mixed = babble([low, high], 16_000)
    assert mixed.dtype == np.float32
    # lines at multiples of 100 Hz belong to the one voice, of 130 Hz to the other
    one = sum(_band_level(mixed, 100 * k - 3, 100 * k + 3) for k in (1, 2, 3))
    other = sum(_band_level(mixed, 130 * k - 3, 130 * k + 3) for k in (1, 2, 3))
    assert 10 * np.log10(one / other) == pytest.approx(0.0, abs=1.0)


def test_an_excerpt_is_a_stretch_of_the_sound() -> None:
    sound = np.arange(1_000, dtype=np.float32)
    cut = excerpt(sound, 100, np.random.default_rng(1))
    assert np.array_equal(cut, np.arange(cut[0], cut[0] + 100))
    assert np.array_equal(excerpt(sound, 5_000, np.random.default_rng(1)), sound)


def test_a_room_keeps_length_power_and_place() -> None:
    click = np.zeros(8_000, np.float32)
    click[2_000] = 1.0
    response = np.zeros(3_000, np.float32)
    response[500], response[900] = 1.0, 0.4
    wet = add_room(click, response)
    assert len(wet) == len(click)
    assert int(np.argmax(np.abs(wet))) == 2_000
    assert rms(wet) == pytest.approx(rms(click), rel=1e-3)
    assert wet[2_400] == pytest.approx(0.4 * wet[2_000], rel=1e-3)


def test_the_equaliser_moves_the_bands_it_should() -> None:
    noise = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    tilted = equalise(noise, [6.0, 6.0, 6.0, -6.0, -6.0, -6.0])
    assert len(tilted) == len(noise)
    low = _band_level(tilted, 60, 200) / _band_level(noise, 60, 200)
    high = _band_level(tilted, 4_000, 8_000) / _band_level(noise, 4_000, 8_000)
    assert 10 * np.log10(low) == pytest.approx(6.0, abs=0.5)
    assert 10 * np.log10(high) == pytest.approx(-6.0, abs=0.5)


def test_level_gain_and_clipping() -> None:
    quiet = set_level(_speech(), -30.0)
    assert 20 * np.log10(rms(quiet)) == pytest.approx(-30.0, abs=0.01)
    louder = change_gain(quiet, 6.0)
    assert 20 * np.log10(rms(louder)) == pytest.approx(-24.0, abs=0.01)
    clipped = clip_peaks(quiet, 0.3)
    assert np.abs(clipped).max() == pytest.approx(0.3 * np.abs(quiet).max())


def test_speed_changes_duration_and_pitch() -> None:
    fast = change_speed(_harmonic(160.0), 1.25)
    assert len(fast) == pytest.approx(24_000 / 1.25, abs=2)
    assert _pitch_hz(fast) == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_stretching_changes_duration_and_not_pitch(factor: float) -> None:
    stretched = stretch_time(_harmonic(160.0), factor)
    assert len(stretched) == pytest.approx(24_000 / factor, abs=2)
    assert _pitch_hz(stretched) == pytest.approx(160, rel=0.01)
    assert rms(stretched) == pytest.approx(rms(_harmonic(160.0)), rel=0.1)


def test_stretching_keeps_sounds_in_their_place() -> None:
    sound = np.zeros(32_000, np.float32)
    sound[8_000:12_000] = _harmonic(160.0, 4_000)
    stretched = stretch_time(sound, 0.8)
    power = np.cumsum(stretched.astype(np.float64) ** 2)
    middle = int(np.searchsorted(power, power[-1] / 2))
    assert middle == pytest.approx(10_000 / 0.8, abs=320)


@pytest.mark.parametrize("semitones", [-3.0, 2.0, 5.0])
def test_shifting_the_pitch_keeps_the_duration(semitones: float) -> None:
    shifted = shift_pitch(_harmonic(160.0), semitones)
    assert len(shifted) == 24_000
    assert _pitch_hz(shifted) == pytest.approx(160 * 2 ** (semitones / 12), rel=0.01)
    assert rms(shifted) == pytest.approx(rms(_harmonic(160.0)), rel=0.1)


@given(samples=st.integers(1, 4_000), factor=st.floats(0.7, 1.4), semitones=st.floats(-6, 6))
def test_voices_of_any_length_can_be_changed(samples: int, factor: float, semitones: float) -> None:
    speech = _speech(samples)
    for changed in (stretch_time(speech, factor), change_speed(speech, factor)):
        assert len(changed) == pytest.approx(samples / factor, abs=1.01)
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
    shifted = shift_pitch(speech, semitones)
    assert len(shifted) == samples
    assert np.isfinite(shifted).all()
    assert np.abs(shifted).max(initial=0.0) < 2.0
    assert np.array_equal(shifted, shift_pitch(speech, semitones))


@given(samples=st.integers(1, 500), offset=st.integers(-600, 600))
def test_a_time_shift_moves_and_fills_with_silence(samples: int, offset: int) -> None:
    speech = np.arange(1, samples + 1, dtype=np.float32)
    shifted = shift_time(speech, offset)
    assert len(shifted) == samples
    for place in range(samples):
        source = place - offset
        assert shifted[place] == (speech[source] if 0 <= source < samples else 0)


def test_mixup_mixes_by_what_is_heard() -> None:
    audio = torch.zeros(2, 16_000)
    audio[0] = torch.from_numpy(_harmonic(100.0, 16_000))
    # forty decibels lower, and half as long
    audio[1, :8_000] = 0.01 * torch.from_numpy(_harmonic(130.0, 8_000))
    length = torch.tensor([16_000, 8_000])
    targets = torch.eye(2)
    # a seed whose permutation swaps the two
    seed = next(s for s in range(9) if np.random.default_rng(s).permutation(2)[0] == 1)
    mixed, longest, soft = mixup(audio, length, targets, 8.0, np.random.default_rng(seed))
    assert longest.tolist() == [16_000, 16_000]
    assert soft.sum(dim=1).tolist() == pytest.approx([1, 1])
    share = float(soft[0, 0])
    assert 0 < share < 1
    start = mixed[0, :8_000].numpy()
    loud = np.sqrt(_band_level(start, 97, 103) / _band_level(audio[0, :8_000].numpy(), 97, 103))
    soft_voice = np.sqrt(
        _band_level(start, 127, 133) / _band_level(audio[1, :8_000].numpy(), 127, 133)
    )
    ratio = loud * rms(audio[0].numpy()) / (soft_voice * rms(audio[1, :8_000].numpy()))
    assert ratio == pytest.approx(share / (1 - share), rel=0.02)


def test_mixup_of_silence_is_finite() -> None:
    audio = torch.zeros(3, 100)
    mixed, _, soft = mixup(
        audio, torch.tensor([0, 50, 100]), torch.eye(3), 0.2, np.random.default_rng(0)
    )
    assert not mixed.any()
    assert torch.isfinite(soft).all()
