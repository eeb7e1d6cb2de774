"""Many recordings in few rows, with real files and an intake that keeps everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serd.channel import Waker
from serd.sources.archive import ArchiveSource, Played
from serd.sources.recordings import Recording, find_recordings
from serd.types import Int16Array
from tests.fakes import FakeClock
from tests.sources.fake_intake import FakeIntake, FakeTap

RATE_HZ = 8000


def noise(samples: int, channels: int = 1) -> Int16Array:
    generator = np.random.default_rng(samples)
    return generator.integers(-9000, 9000, (samples, channels)).astype(np.int16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve recordings of different lengths."""
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", noise(3000 + 500 * number), RATE_HZ)
    return tmp_path


class Setup:
    """An archive, and a pipeline that tells of a stream's end when the test says so."""

    def __init__(self, recordings: Sequence[Recording], window: int, limit: int = 1 << 30) -> None:
        self.clock = FakeClock(monotonic_ns=5_000_000_000)
        self.intake = FakeIntake(limit)
        self.played: list[Played] = []
        left = iter(recordings)
        self.source = ArchiveSource(
            lambda: next(left, None), window, self.played.append, clock=self.clock
        )
        self.source.open(Waker())
        self.told: set[str] = set()

    @property
    def open(self) -> list[FakeTap]:
        """Taps whose streams have not been told as ended."""
        return [tap for tap in self.intake.taps if tap.stream not in self.told]

    def service(self) -> int | None:
        return self.source.service(self.clock.now_ns, self.intake)

    def end(self, tap: FakeTap) -> None:
        """The last events of a tap's streams have left."""
        self.told.add(tap.stream)
        several = tap.channels > 1
        for number in range(tap.channels):
            self.source.stream_ended(f"{tap.stream}/{number}" if several else tap.stream)

    def play(self, check: Callable[[], None] = lambda: None) -> None:
        while not self.source.finished:
            due_ns = self.service()
            check()
            for tap in self.open:
                if tap.closed is not None:
                    self.end(tap)
            if due_ns is not None:
                self.clock.now_ns = max(self.clock.now_ns, due_ns)


def test_every_recording_is_played_sample_for_sample(folder: Path) -> None:
    setup = Setup(find_recordings([folder]).recordings, window=8)
    setup.play()
    for tap in setup.intake.taps:
        expected, _ = soundfile.read(folder / f"{tap.stream}.wav", dtype="int16", always_2d=True)
        np.testing.assert_array_equal(tap.samples, expected)
        assert (tap.closed, tap.source) == ("end", setup.source.name)
    assert sorted(played.recording.stream for played in setup.played) == sorted(map(str, range(12)))
    assert all(played.problem is None for played in setup.played)
    seconds = sum(3000 + 500 * number for number in range(12)) / RATE_HZ
    assert setup.source.played_s == pytest.approx(seconds)
    sizes = sum(path.stat().st_size for path in folder.iterdir())
    assert setup.source.played_bytes == pytest.approx(sizes)
    assert setup.source.counts() == {"recordings": 12}


def test_no_more_rows_are_used_than_the_window_has(folder: Path) -> None:
    for number in range(3):
        soundfile.write(folder / f"wide-{number}.wav", noise(4000, 5), RATE_HZ)
    setup = Setup(find_recordings([folder]).recordings, window=9)
    peak = 0

    def check() -> None:
        nonlocal peak
        rows = sum(tap.channels for tap in setup.open)
        assert rows <= 9
        peak = max(peak, rows)

    setup.play(check)
    assert peak == 9
    assert len(setup.played) == 15


def test_a_row_is_lent_again_only_when_its_events_have_left(folder: Path) -> None:
    setup = Setup(find_recordings([folder]).recordings, window=8)
    for _ in range(5):
        setup.service()
    assert [tap.closed for tap in setup.intake.taps] == ["end"] * 8
    assert setup.service() is None, "only the end of a stream goes on from here"
    assert not setup.played
    setup.end(setup.intake.taps[3])
    setup.service()
    assert len(setup.intake.taps) == 9
    assert [played.recording.stream for played in setup.played] == [setup.intake.taps[3].stream]


def test_of_several_channels_all_have_to_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "both.wav", noise(800, 2), RATE_HZ)
    setup = Setup(find_recordings([tmp_path]).recordings, window=8)
    setup.service()
    setup.source.stream_ended("both/1")
    setup.service()
    assert not setup.played
    # A refused stream may be told as closed too.
    setup.source.stream_ended("both/1")
    setup.source.stream_ended("both/0")
    setup.service()
    assert setup.source.finished
    assert [played.recording.stream for played in setup.played] == ["both"]


def test_what_cannot_be_read_is_told_and_stops_nothing(folder: Path) -> None:
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "slow.wav", noise(4000), 4000)
    flac = folder / "damaged.flac"
    soundfile.write(flac, noise(60_000), RATE_HZ)
    content = bytearray(flac.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    flac.write_bytes(content)
    setup = Setup(find_recordings([folder]).recordings, window=8)
    setup.play()
    problems = {
        played.recording.stream: played.problem for played in setup.played if played.problem
    }
    assert set(problems) == {"text", "slow", "damaged"}
    assert "4000 Hz" in problems["slow"]
    assert f"{flac}: damaged at" in problems["damaged"]
    assert len(setup.played) == 15


def test_two_streams_of_one_name_are_not_played_at_once(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(9000, 2), RATE_HZ)
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "1.wav", noise(100), RATE_HZ)
    setup = Setup(find_recordings([tmp_path]).recordings, window=8)
    setup.play()
    assert [tap.stream for tap in setup.intake.taps] == ["a"]
    assert "'a/1'" in str([played.problem for played in setup.played])


def test_a_row_without_room_is_asked_again_later_and_the_others_go_on(folder: Path) -> None:
    setup = Setup(find_recordings([folder]).recordings, window=8, limit=0)
    due_ns = setup.service()
    assert due_ns is not None
    assert due_ns > setup.clock.now_ns
    assert all(tap.log == [] for tap in setup.intake.taps)
    setup.intake.limit = RATE_HZ
    setup.play()
    assert len(setup.played) == 12


def test_nothing_to_play_is_finished_at_once() -> None:
    setup = Setup([], window=8)
    assert setup.service() is None
    assert setup.source.finished


def test_closing_it_leaves_nothing_open(folder: Path) -> None:
    setup = Setup(find_recordings([folder]).recordings, window=8, limit=0)
    setup.service()
    setup.source.close()
    assert setup.source.finished
    assert setup.service() is None
    assert len(setup.intake.taps) == 8


def test_a_window_too_small_for_a_recording_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        ArchiveSource(lambda: None, 7, lambda _: None)
