"""A folder replayed in bulk gives each stream the events that it has alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serd.clock import SystemClock
from serd.config.loading import load
from serd.errors import ModelError
from serd.protocol.events import Event, encode
from serd.runtime.replay import Progress, Summary, default_jobs, replay
from serd.sinks.stamper import Stamper, new_run_id
from serd.sources.recordings import find_recordings
from serd.types import Int16Array
from tests.speech import Json, demo_speech, essence, scores

RATES_HZ = (8000, 16_000, 44_100)
COUNT = 11


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of several rates, lengths, formats and depths of folder; two lie side by side."""
    folder = tmp_path_factory.mktemp("archive")
    endings = ("wav", "flac", "ogg")
    for number in range(COUNT):
        rate_hz = RATES_HZ[number % 3]
        speech = demo_speech(rate_hz)
        part = np.roll(speech, -number * rate_hz * 2)[: rate_hz * (3 + number)]
        path = folder / "/".join(["day"] * (number % 3)) / f"call-{number}.{endings[number % 2]}"
        path.parent.mkdir(exist_ok=True)
        channels: Int16Array = np.stack([part, np.roll(part, rate_hz)], axis=1)
        soundfile.write(path, channels if number == 4 else part, rate_hz)
    return folder


def played(
    paths: Sequence[Path], *, jobs: int = 1, window: int = 64
) -> tuple[list[Json], Summary, list[str]]:
    events: list[Json] = []
    problems: list[str] = []
    stamper = Stamper(new_run_id(), SystemClock())

    def keep(event: Event) -> None:
        stamper.stamp(event)
        events.append(json.loads(encode(event)))

    summary = replay(
        find_recordings(paths).recordings,
        load(),
        keep,
        jobs=jobs,
        window=window,
        on_problem=problems.append,
    )
    assert summary.events == len(events)
    return events, summary, problems


def streams(events: Sequence[Json]) -> list[str]:
    return sorted({event["stream"] for event in events})


def same(events: Sequence[Json], others: Sequence[Json], stream: str, other: str) -> None:
    assert essence(events, stream) == essence(others, other)
    ours, theirs = scores(events, stream), scores(others, other)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def bulk(archive: Path) -> list[Json]:
    events, summary, problems = played([archive])
    assert (summary.recordings, summary.failed, problems) == (COUNT, 0, [])
    seconds = sum(3 + number for number in range(COUNT))
    assert summary.audio_s == pytest.approx(seconds)
    assert len(streams(events)) == COUNT + 1
    assert {event["type"] for event in events} >= {"stream", "speech", "emotion", "utterance"}
    return events


def test_each_recording_alone_has_the_same_events(archive: Path, bulk: list[Json]) -> None:
    for path in sorted(archive.rglob("*.*")):
        alone, _, _ = played([path])
        folder = path.parent.relative_to(archive).as_posix()
        for stream in streams(alone):
            same(bulk, alone, f"{folder}/{stream}" if folder != "." else stream, stream)


def test_a_window_smaller_than_the_archive_changes_nothing(archive: Path, bulk: list[Json]) -> None:
    events, summary, _ = played([archive], window=8)
    assert summary.recordings == COUNT
    assert streams(events) == streams(bulk)
    for stream in streams(bulk):
        same(bulk, events, stream, stream)


def test_nor_do_several_processes(archive: Path, bulk: list[Json]) -> None:
    events, summary, _ = played([archive], jobs=2, window=8)
    assert (summary.recordings, summary.failed) == (COUNT, 0)
    assert summary.audio_s == pytest.approx(sum(3 + number for number in range(COUNT)))
    assert [event["cursor"] for event in events] == list(range(1, len(events) + 1))
    assert streams(events) == streams(bulk)
    for stream in streams(bulk):
        same(bulk, events, stream, stream)
        closed = [event for event in events if event["stream"] == stream][-1]
        assert (closed["type"], closed.get("state")) == ("stream", "closed")
    assert summary.counts["vad.frames"] > 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_recording_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, jobs: int
) -> None:
    speech = demo_speech(8000)
    for number in range(3):
        soundfile.write(tmp_path / f"good-{number}.wav", speech[: 8000 * (4 + number)], 8000)
    (tmp_path / "a-text.wav").write_text("no audio " * 100_000)
    (tmp_path / "z-empty.flac").write_bytes(b"")
    events, summary, problems = played([tmp_path], jobs=jobs)
    assert streams(events) == ["good-0", "good-1", "good-2"]
    assert (summary.recordings, summary.failed) == (3, 2)
    assert sorted(Path(problem.split(":")[0]).name for problem in problems) == [
        "a-text.wav",
        "z-empty.flac",
    ]


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_comes_to_the_end(archive: Path, jobs: int) -> None:
    told: list[Progress] = []
    recordings = find_recordings([archive]).recordings
    replay(recordings, load(), lambda _: None, jobs=jobs, on_progress=told.append)
    assert told == sorted(told, key=lambda progress: progress.audio_s)
    assert told[-1].recordings == COUNT
    assert told[-1].size == pytest.approx(sum(recording.size for recording in recordings))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_keeps_what_was_done(tmp_path: Path, jobs: int) -> None:
    speech = demo_speech(8000)
    for number in range(2):
        soundfile.write(tmp_path / f"long-{number}.wav", np.tile(speech, 100), 8000)
    events: list[Event] = []

    def interrupt(progress: Progress) -> None:
        if progress.audio_s > 0:
            raise KeyboardInterrupt

    summary = replay(
        find_recordings([tmp_path]).recordings,
        load(),
        events.append,
        jobs=jobs,
        on_progress=interrupt,
    )
    assert summary.interrupted
    assert summary.audio_s > 0
    assert summary.events == len(events) > 0


def test_a_model_that_cannot_be_used_is_told_from_a_process_too(archive: Path) -> None:
    config = load(None, ["inference.model=nothing"])
    with pytest.raises(ModelError):
        replay(find_recordings([archive]).recordings, config, lambda _: None, jobs=2)


def test_few_recordings_are_not_worth_a_process() -> None:
    counts = [default_jobs(count, cores=4) for count in (0, 1, 63, 64, 128, 100_000)]
    assert counts == [1, 1, 1, 2, 4, 4]
