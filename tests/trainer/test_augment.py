"""Degradations do what they say, and keep lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.audio import WINDOW_SAMPLES, Float32, load_clips, to_int16
from trainer.augment import (
    Augmenter,
    AugmentSettings,
    NoiseLibrary,
    add_room,
    change_speed,
    clip_peaks,
    equalise,
    load_noise,
    lose_packets,
    mix_at_snr,
    rms,
    set_level,
    telephone,
)
from trainer.bank import render
from trainer.corpora import load
from trainer.errors import TrainerError


def _speech(samples: int = 16_000) -> Float32:
    time = np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * 220 * time) + 0.5 * np.sin(2 * np.pi * 1500 * time)
    return np.asarray(0.2 * tone * (1 + np.sin(2 * np.pi * 3 * time)), np.float32)


def _band_level(samples: Float32, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / 16_000)
    return float(power[(frequency >= low_hz) & (frequency < high_hz)].sum())


@given(snr_db=st.floats(-5, 40), noise_samples=st.integers(100, 40_000))
def test_the_snr_is_reached(snr_db: float, noise_samples: int) -> None:
    speech = _speech()
    noise = np.random.default_rng(0).standard_normal(noise_samples).astype(np.float32)
    mixed = mix_at_snr(speech, noise, snr_db)
    assert len(mixed) == len(speech)
    reached = 20 * np.log10(rms(speech) / rms((mixed - speech).astype(np.float32)))
    assert reached == pytest.approx(snr_db, abs=0.1)


def test_silence_is_left_alone() -> None:
    nothing = np.zeros(1_000, np.float32)
    assert mix_at_snr(_speech(1_000), nothing, 3.0) == pytest.approx(_speech(1_000))
    assert not set_level(nothing, -20.0).any()
    assert not clip_peaks(nothing, 0.5).any()


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


def test_level_and_clipping() -> None:
    quiet = set_level(_speech(), -30.0)
    assert 20 * np.log10(rms(quiet)) == pytest.approx(-30.0, abs=0.01)
    clipped = clip_peaks(quiet, 0.3)
    assert np.abs(clipped).max() == pytest.approx(0.3 * np.abs(quiet).max())


def test_speed_changes_duration_and_pitch() -> None:
    fast = change_speed(_speech(16_000), 1.25)
    assert len(fast) == pytest.approx(12_800, abs=2)
    peak_hz = np.argmax(np.abs(np.fft.rfft(fast))) * 16_000 / len(fast)
    assert peak_hz == pytest.approx(275, abs=5)


@given(samples=st.integers(1, 5_000), law=st.sampled_from(["mulaw", "alaw"]))
def test_the_telephone_keeps_the_length(samples: int, law: str) -> None:
    assert len(telephone(_speech(samples), law=law)) == samples


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_the_telephone_cuts_the_band_and_keeps_what_is_in_it(law: str) -> None:
    noise = 0.1 * np.random.default_rng(2).standard_normal(32_000).astype(np.float32)
    heard = telephone(noise, law=law)
    kept = _band_level(heard, 300, 3_400) / _band_level(noise, 300, 3_400)
    lost = _band_level(heard, 4_300, 8_000) / _band_level(noise, 4_300, 8_000)
    assert 10 * np.log10(kept) == pytest.approx(0.0, abs=0.5)
    assert 10 * np.log10(lost) < -35
    narrow = telephone(noise, law=law, narrow=True)
    bottom = _band_level(narrow, 20, 120) / _band_level(noise, 20, 120)
    assert 10 * np.log10(bottom) < -12


@given(rate=st.floats(0.02, 0.4), seed=st.integers(0, 99))
def test_lost_packets_are_whole(rate: float, seed: int) -> None:
    samples = np.full(160 * 200 + 37, 1_000, np.int16)
    heard = lose_packets(samples, rate, np.random.default_rng(seed), repeat=False)
    assert len(heard) == len(samples)
    packets = heard[: 160 * 200].reshape(200, 160)
    lost = (packets == 0).all(axis=1)
    assert ((packets == 1_000).all(axis=1) | lost).all()


def test_the_loss_rate_is_reached() -> None:
    samples = np.full(160 * 20_000, 1_000, np.int16)
    heard = lose_packets(samples, 0.1, np.random.default_rng(0), repeat=False)
    assert np.mean(heard == 0) == pytest.approx(0.1, abs=0.01)


def _augmenter(made_up: Path, settings: AugmentSettings) -> Augmenter:
    clips = load_clips(load("emodb", made_up / "corpora").utterances)
    return Augmenter(settings, load_noise(made_up / "noise"), clips)


def test_effects_are_no_rooms(made_up: Path) -> None:
    library = load_noise(made_up / "noise")
    assert (len(library.noises), len(library.music), len(library.rooms)) == (2, 1, 1)


def test_missing_noise_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="impulse_responses is missing"):
        load_noise(tmp_path)


@given(seed=st.integers(0, 10_000))
def test_everything_at_once_stays_finite_and_short(made_up: Path, seed: int) -> None:
    certain = AugmentSettings(
        speed=1, room=1, equaliser=1, noise=0.34, music=0.33, babble=0.33, clipping=1, telephone=1
    )
    augmenter = _augmenter(made_up, certain)
    rng = np.random.default_rng(seed)
    samples = augmenter.degrade(augmenter.segment(augmenter.babble, 0, rng, vary=True), rng)
    assert np.isfinite(samples).all()
    assert 0 < len(samples) <= WINDOW_SAMPLES
    assert np.abs(to_int16(samples)).max() > 0


def test_the_bank_is_reproducible_and_its_first_copy_clean(made_up: Path, tmp_path: Path) -> None:
    clips = load_clips(load("emodb", made_up / "corpora").utterances[:5])
    settings = AugmentSettings(copies=3)
    library = load_noise(made_up / "noise")
    one = render(clips, settings, library, 7, tmp_path / "a")
    two = render(clips, settings, library, 7, tmp_path / "b", processes=2)
    other = render(clips, settings, library, 8, tmp_path / "a")
    assert np.array_equal(one.audio, two.audio)
    assert np.array_equal(one.length, two.length)
    assert not np.array_equal(one.audio, other.audio)
    assert one.key == two.key != other.key
    for row in range(5):
        length = int(one.length[0, row])
        segment = one.audio[0, row]
        assert not segment[length:].any()
        # a clean segment is a stretch of its recording
        recording = clips.clip(row).tobytes()
        assert segment[:length].tobytes() in recording


def test_the_bank_is_read_back_without_work(made_up: Path, tmp_path: Path) -> None:
    clips = load_clips(load("emodb", made_up / "corpora").utterances[:2])
    settings = AugmentSettings(copies=1)
    first = render(clips, settings, NoiseLibrary(), 0, tmp_path)
    stamp = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = render(clips, settings, NoiseLibrary(), 0, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamp
    assert np.array_equal(first.audio, again.audio)
