"""Decoding, the clip cache and the windows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from trainer.audio import (
    HOP_SAMPLES,
    WINDOW_SAMPLES,
    decode,
    load_clips,
    speech_bounds,
    to_float,
    to_int16,
    windows,
)
from trainer.corpora import Utterance, load
from trainer.errors import TrainerError


@given(st.integers(1, 400_000))
def test_windows_cover_the_utterance(samples: int) -> None:
    cut = windows(samples)
    assert cut[0][0] == 0
    assert cut[-1][1] == samples
    for start, end in cut:
        assert end - start == min(samples, WINDOW_SAMPLES)
    starts = [start for start, _ in cut]
    assert all(0 < b - a <= HOP_SAMPLES for a, b in pairwise(starts))


def test_int16_survives_the_round_trip() -> None:
    samples = np.arange(-32768, 32768, dtype=np.int16)
    assert np.array_equal(to_int16(to_float(samples)), samples)
    assert to_int16(np.array([1.5, -1.5])).tolist() == [32767, -32768]


def test_decode_mixes_channels_and_resamples(tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    left = 0.5 * np.sin(2 * np.pi * 440 * time)
    sf.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], axis=1), 44_100)
    samples = to_float(decode(tmp_path / "a.wav"))
    assert abs(len(samples) - 16_000) <= 1
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(samples[1000:15_000] - expected[1000:15_000]).max() < 1e-3


def test_speech_bounds_find_the_loud_part() -> None:
    samples = np.zeros(32_000, np.int16)
    samples[8_000:20_000] = (np.sin(np.arange(12_000) / 5.0) * 9_000).astype(np.int16)
    start, end = speech_bounds(samples)
    assert abs(start - 8_000) <= 512
    assert abs(end - 20_000) <= 512
    assert speech_bounds(np.zeros(100, np.int16)) == (0, 100)


def test_clips_are_kept_until_a_file_changes(made_up: Path, tmp_path: Path) -> None:
    utterances = load("emodb", made_up / "corpora").utterances[:3]
    first = load_clips(utterances, tmp_path)
    again = load_clips(utterances, tmp_path)
    assert np.array_equal(first.samples, again.samples)
    assert np.array_equal(first.bounds, again.bounds)
    assert len(list(tmp_path.iterdir())) == 1
    assert np.array_equal(first.clip(1), decode(utterances[1].path))
    copy = tmp_path / "03a01Wa.wav"
    copy.write_bytes(utterances[0].path.read_bytes())
    moved = [Utterance(copy, "emodb", "03", "angry", "de")]
    load_clips(moved, tmp_path / "other")
    sf.write(copy, np.zeros(4_000), 16_000)
    assert len(load_clips(moved, tmp_path / "other").samples) == 4_000


def test_an_unreadable_file_is_left_out_and_told(
    made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFFxxxx")
    good = load("emodb", made_up / "corpora").utterances[0]
    bad = Utterance(broken, "emodb", "03", "angry", "de")
    assert load_clips([bad, good]).utterances == (good,)
    assert str(broken) in capsys.readouterr().err
    with pytest.raises(TrainerError, match="Not one"):
        load_clips([bad])
