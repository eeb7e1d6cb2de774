"""Decoding, the clip cache and the windows."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
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
    Clips,
    decode,
    load_clips,
    speech_bounds,
    to_float,
    to_int16,
    windows,
)
from trainer.corpora import Utterance, load
from trainer.errors import TrainerError
from trainer.preparation import PrepareSettings


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


def _same(one: Clips, other: Clips) -> bool:
    return one.utterances == other.utterances and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("samples", "offsets", "bounds")
    )


def _kept(cache: Path) -> list[Path]:
    return sorted((cache / "clips").iterdir())


@pytest.fixture
def recordings(made_up: Path) -> tuple[Utterance, ...]:
    return tuple(load("emodb", made_up / "corpora").utterances[:3])


def test_clips_are_the_decoded_files_and_their_speech(recordings: tuple[Utterance, ...]) -> None:
    clips = load_clips(recordings)
    for i, utterance in enumerate(recordings):
        samples = decode(utterance.path)
        assert np.array_equal(clips.clip(i), samples)
        assert tuple(clips.bounds[i]) == speech_bounds(samples)


def test_every_recording_is_kept_once(recordings: tuple[Utterance, ...], tmp_path: Path) -> None:
    first = load_clips(recordings, tmp_path)
    files = _kept(tmp_path)
    assert len(files) == 3
    written = [path.stat().st_mtime_ns for path in files]
    assert _same(load_clips(recordings, tmp_path), first)
    assert _same(load_clips(recordings[1:], tmp_path), load_clips(recordings[1:]))
    assert [path.stat().st_mtime_ns for path in _kept(tmp_path)] == written


def test_a_changed_file_is_decoded_again_in_the_same_place(
    recordings: tuple[Utterance, ...], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.wav"
    for samples in (np.zeros(4_000), np.full(4_000, 0.5), np.zeros(5_000)):
        sf.write(copy, samples, 16_000)
        # The clock of a file system may stand still between two writes.
        os.utime(copy, ns=(1, int(samples[0] * 10) + 1))
        clips = load_clips([Utterance(copy, "emodb", "03", "angry", "de")], tmp_path / "kept")
        assert np.array_equal(clips.samples, to_int16(samples))
    assert len(_kept(tmp_path / "kept")) == 1


def test_settings_do_not_share_what_is_kept(
    recordings: tuple[Utterance, ...], tmp_path: Path
) -> None:
    every = PrepareSettings(trim="none")
    for _ in range(2):
        whole = load_clips(recordings, tmp_path, prepare=every)
        assert whole.bounds.tolist() == [[0, len(whole.clip(i))] for i in range(3)]
        assert _same(load_clips(recordings, tmp_path), load_clips(recordings))
    assert len(_kept(tmp_path)) == 6


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1_000])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other(path: Path) -> None:
    np.savez(path, samples=np.zeros(3))


@pytest.mark.parametrize("damage", [_truncate, _flip, _empty, _other])
def test_what_is_damaged_is_made_anew_and_told(
    recordings: tuple[Utterance, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    first = load_clips(recordings, tmp_path)
    path = _kept(tmp_path)[1]
    damage(path)
    assert _same(load_clips(recordings, tmp_path), first)
    told = capsys.readouterr().err
    assert told.count("made anew") == 1
    assert str(path) in told
    assert _same(load_clips(recordings, tmp_path), first)
    assert not capsys.readouterr().err


def test_a_full_disk_is_told_and_what_was_kept_stays(
    recordings: tuple[Utterance, ...], tmp_path: Path
) -> None:
    load_clips(recordings[:1], tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, limits[1]))
    try:
        with pytest.raises(TrainerError, match=r"clips/.*cannot be written"):
            load_clips(recordings, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(_kept(tmp_path)) == 1
    assert len(load_clips(recordings, tmp_path)) == 3


def test_a_cache_that_is_no_folder_is_told(
    recordings: tuple[Utterance, ...], tmp_path: Path
) -> None:
    (tmp_path / "clips").write_text("a file")
    with pytest.raises(TrainerError, match=r"clips/.* (written|damaged)"):
        load_clips(recordings, tmp_path)


def test_processes_decode_the_same(recordings: tuple[Utterance, ...], tmp_path: Path) -> None:
    gone = Utterance(tmp_path / "gone.wav", "emodb", "03", "angry", "de")
    alone = load_clips([gone, *recordings])
    assert _same(load_clips([gone, *recordings], processes=2), alone)
    assert _same(load_clips([gone, *recordings], tmp_path, processes=2), alone)


@pytest.mark.parametrize("cached", [False, True])
def test_an_unusable_file_is_left_out_and_told(
    recordings: tuple[Utterance, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cached: bool,
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFFxxxx")
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    sf.write(tmp_path / "nan.wav", np.full(900, np.nan), 16_000, subtype="FLOAT")
    names = ("broken", "empty", "nan", "missing")
    bad = [Utterance(tmp_path / f"{n}.wav", "emodb", "03", "angry", "de") for n in names]
    cache = tmp_path / "cache" if cached else None
    assert load_clips([*bad, recordings[0]], cache).utterances == (recordings[0],)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(names)
    for name in names:
        assert any(f"{name}.wav" in line and line.startswith("left out") for line in told)
    with pytest.raises(TrainerError, match="Not one"):
        load_clips(bad, cache)
