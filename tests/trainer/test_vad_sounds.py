"""Voice-activity mixtures: sounds, lines, labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.audio import Clips
from trainer.corpora.base import Utterance
from trainer.pcm import Float32
from trainer.vad import sounds
from trainer.vad.line import Line, lose_packets, through_line
from trainer.vad.mixture import (
    CONDITIONS,
    FRAME_POINTS,
    HARD,
    Mixer,
    Sounds,
    Style,
    bridge,
)
from trainer.vad.voices import GRID_SAMPLES, Voices, activity


def tone(points: int, hz: float = 200.0) -> Float32:
    time = np.arange(points * GRID_SAMPLES) / 16_000
    return (0.2 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


@pytest.fixture(scope="module")
def voices() -> Voices:
    """Two speakers of two clips: 0.2 s of silence, 0.8 s of a tone, 0.2 s of silence."""
    quiet, loud = np.zeros(25 * GRID_SAMPLES, np.float32), tone(100)
    clip = np.rint(np.concatenate([quiet, loud, quiet]) * 32767).astype(np.int16)
    active = np.concatenate([np.zeros(25), np.ones(100), np.zeros(25)])
    grid = np.stack([active, 0.5 * active]).astype(np.float32)
    utterances = tuple(
        Utterance(Path(f"{k}.wav"), "made", "ab"[k // 2], "neutral", "none") for k in range(4)
    )
    clips = Clips(
        utterances,
        np.tile(clip, 4),
        np.arange(5) * len(clip),
        np.tile(np.array([0, len(clip)]), (4, 1)),
    )
    by_speaker = {"made/a": np.array([0, 1]), "made/b": np.array([2, 3])}
    return Voices(clips, np.tile(grid, 4), np.arange(5) * 150, by_speaker)


@pytest.fixture(scope="module")
def material() -> Sounds:
    rng = np.random.default_rng(0)
    return Sounds(
        (rng.standard_normal(16_000).astype(np.float32),),
        (tone(200, 500.0) * 5,),
        (np.array([1.0, 0.5, 0.1], np.float32),),
    )


@pytest.mark.parametrize("make", [sounds.coloured_noise, sounds.knocks, sounds.tones, sounds.music])
def test_sounds_are_loud_finite_and_repeatable(
    make: Callable[[int, sounds.Rng], Float32],
) -> None:
    for seed in range(4):
        one, two = (make(20_000, np.random.default_rng(seed)) for _ in range(2))
        assert one.shape == (20_000,)
        assert one.dtype == np.float32
        assert np.array_equal(one, two)
        assert np.sqrt(np.mean(one**2)) == pytest.approx(1, rel=1e-3)


def test_a_room_begins_with_the_direct_sound_and_fades() -> None:
    for seed in range(5):
        response = sounds.room_response(np.random.default_rng(seed))
        assert response[0] == 1
        energy = response[1:] ** 2
        assert energy[-len(energy) // 4 :].sum() < 0.05 * energy.sum()


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 10))
def test_bridging_fills_short_gaps_inside_and_nothing_else(active: list[bool], gap: int) -> None:
    given_points: npt.NDArray[np.bool_] = np.array(active, np.bool_)
    filled = bridge(given_points, gap)
    assert np.all(filled >= given_points)
    spoken = np.flatnonzero(given_points)
    for before, after in pairwise(spoken):
        assert bool(filled[before : after + 1].all()) == (after - before - 1 <= gap)
    outside = np.ones(len(given_points), np.bool_)
    if len(spoken):
        outside[spoken[0] : spoken[-1] + 1] = False
    assert not filled[outside].any()


def test_activity_is_where_a_clean_recording_is_loud_and_the_teacher_agrees() -> None:
    faint = np.random.default_rng(1).normal(0, 1e-4, 50 * GRID_SAMPLES).astype(np.float32)
    parts = [faint, tone(40), faint, tone(30), faint]
    samples = np.rint(np.concatenate(parts) * 32767).astype(np.int16)
    teacher = np.zeros(220, np.float32)
    teacher[50:90] = 0.9
    got = np.flatnonzero(activity(samples, teacher))
    assert abs(int(got[0]) - 50) <= 1
    assert abs(int(got[-1]) - 89) <= 1
    assert len(got) == got[-1] - got[0] + 1


def test_activity_of_silence_is_none() -> None:
    assert not activity(np.zeros(5000, np.int16), np.ones(40, np.float32)).any()


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
def test_lost_packets_are_silence_and_the_rest_stays(rate_hz: int) -> None:
    pcm = np.full(rate_hz * 2, 1000, np.int16)
    got = lose_packets(pcm, rate_hz, 0.2, np.random.default_rng(3), repeat=False)
    packets = got.reshape(-1, rate_hz // 50)
    lost = (packets == 0).all(axis=1)
    assert 5 < lost.sum() < 40
    assert (packets[~lost] == 1000).all()
    assert (pcm == 1000).all()
    again = lose_packets(pcm, rate_hz, 0.2, np.random.default_rng(3), repeat=True)
    assert (again.reshape(-1, rate_hz // 50)[lost] < 1000).all()
    assert again.any(axis=0)


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
def test_a_plain_line_changes_the_rate_alone(rate_hz: int) -> None:
    audio = tone(250)
    active = np.ones(250, np.bool_)
    pcm, muted = through_line(audio, active, rate_hz, Line.none(), np.random.default_rng(0))
    assert len(pcm) == 250 * 8 * rate_hz // 1000
    assert not muted.any()
    expected = 0.2 * 32767 / np.sqrt(2)
    assert np.std(pcm[800:-800]) == pytest.approx(expected, rel=0.02)


def test_a_muted_line_is_digital_silence_and_says_where() -> None:
    rng = np.random.default_rng(2)
    line = replace(Line.none(), mute=1.0)
    pcm, muted = through_line(tone(250), np.ones(250, np.bool_), 8000, line, rng)
    assert muted.any()
    assert not pcm.reshape(250, 64)[muted].any()
    assert pcm.reshape(250, 64)[~muted].any(axis=1).all()


def test_comfort_noise_leaves_speech_alone() -> None:
    active = np.zeros(250, np.bool_)
    active[50:100] = True
    line = replace(Line.none(), comfort=1.0)
    plain, _ = through_line(tone(250), active, 8000, Line.none(), np.random.default_rng(0))
    pcm, _ = through_line(tone(250), active, 8000, line, np.random.default_rng(0))
    assert np.array_equal(pcm[50 * 64 : 100 * 64], plain[50 * 64 : 100 * 64])
    assert not np.array_equal(pcm[200 * 64 :], plain[200 * 64 :])


@pytest.mark.parametrize("style", [Style(), HARD, *CONDITIONS.values()])
def test_mixtures_have_the_shape_asked_for_and_repeat(
    voices: Voices, material: Sounds, style: Style
) -> None:
    mixer = Mixer(voices, material, 2.0)
    for seed in range(3):
        one, two = (mixer.draw(style, np.random.default_rng(seed)) for _ in range(2))
        assert len(one.label) == len(one.clean) == round(2.0 / 0.032)
        assert len(one.samples) == len(one.label) * 32 * one.rate_hz // 1000
        assert style.rate_hz in (None, one.rate_hz)
        assert np.array_equal(one.samples, two.samples)
        assert np.array_equal(one.label, two.label)
        assert ((one.label >= 0) & (one.label <= 1)).all()


def test_labels_are_where_the_voices_are(voices: Voices, material: Sounds) -> None:
    style = replace(CONDITIONS["near-16k"], snr_db=(60.0, 60.0))
    mixture = Mixer(voices, material, 8.0).draw(style, np.random.default_rng(1))
    frames = mixture.samples.reshape(-1, 512).astype(np.float64)
    loud = np.sqrt(np.mean(frames**2, axis=1))
    # Labels are on a grid of 8 ms, a quarter of a frame.
    sounding = loud > 0.6 * loud.max()
    # Bridged pauses are labelled though nobody sounds.
    assert not (sounding & (mixture.label == 0)).any()
    assert sounding[mixture.clean > 0.4].mean() > 0.95
    assert mixture.label.mean() > 0.2


def test_without_speech_nothing_is_labelled(voices: Voices, material: Sounds) -> None:
    mixer = Mixer(voices, material, 2.0)
    mixture = mixer.draw(replace(HARD, speechless=1.0), np.random.default_rng(0))
    assert not mixture.label.any()
    assert not mixture.clean.any()
    assert FRAME_POINTS * GRID_SAMPLES == 512
