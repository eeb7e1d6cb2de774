"""Taps that die, and taps that send too much."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.daemon import Json
from tests.fakes import wait_until
from tests.faults.processes import Service, child
from tests.speech import demo_speech, essence, scores
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000


def _of(collector: Collector, stream: str, kind: str) -> list[Json]:
    return [event for event in collector.of_type(kind) if event["stream"] == stream]


def _onsets(collector: Collector, since: int) -> set[str]:
    """Streams in which somebody has begun to speak."""
    events = collector.events[since:]
    return {e["stream"] for e in events if e["type"] == "speech" and e["state"] == "onset"}


def test_a_killed_tap_ends_its_calls_and_no_others(tmp_path: Path) -> None:
    overrides = ("streams.idle_timeout_s=1.0",)
    with Service(tmp_path, overrides) as service:
        collector = Collector(service.events)
        other = ("--streams", 5, "--seconds", 12, "--speed", 4)
        with (
            child("tap", service.pull, "--name", "dead", "--streams", 20) as dead,
            child("tap", service.pull, "--name", "well", *other) as well,
        ):
            calls = {f"dead-{number:03}" for number in range(20)}
            wait_until(lambda: calls <= _onsets(collector, 0), "every call to speak")
            dead.kill()
            collector.wait_closed([*calls, *(f"well-{number:03}" for number in range(5))])
            assert well.process.wait(30) == 0
        for event in collector.of_type("stream"):
            if event["state"] == "closed":
                expected = "timeout" if event["stream"] in calls else "end"
                assert event["reason"] == expected, event
        # What was said until then is judged: an utterance for every onset.
        for call in calls:
            onsets = [e for e in _of(collector, call, "speech") if e["state"] == "onset"]
            assert len(onsets) == len(_of(collector, call, "utterance"))
        assert not collector.of_type("gap")
        collector.close()
        assert service.daemon.stop() == 0


def test_a_tap_that_is_killed_and_starts_anew_begins_new_streams(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        collector = Collector(service.events)
        calls = {f"call-{number:03}" for number in range(10)}
        for _ in range(3):
            seen = len(collector.events)
            with child("tap", service.pull, "--streams", 10) as tap:
                wait_until(lambda seen=seen: calls <= _onsets(collector, seen), "every call")  # type: ignore[misc]  # bound at once
                tap.kill()
        closed = [e for e in collector.of_type("stream") if e["state"] == "closed"]
        assert {event["reason"] for event in closed} == {"restarted"}
        for call in calls:
            events = [event for event in collector.events if event.get("stream") == call]
            starts = [at for at, event in enumerate(events) if event["seq"] == 0]
            assert len(starts) == 3
            for start, end in zip(starts, [*starts[1:], len(events)], strict=True):
                life = events[start:end]
                assert [event["seq"] for event in life] == list(range(end - start))
                assert life[0]["state"] == "opened"
            for end in starts[1:]:
                assert events[end - 1]["state"] == "closed"
        collector.close()
        assert service.daemon.stop() == 0


@pytest.mark.parametrize("socket", ["PUSH", "PUB"])
def test_a_tap_ten_times_too_fast(tmp_path: Path, socket: str) -> None:
    # A machine that is busy with other things must not make this one about overload in general.
    overrides = ("streams.max_lag_ms=5000", "streams.backlog_s=6.0")
    speech = demo_speech(RATE_HZ)
    with Service(tmp_path, overrides) as service:
        collector = Collector(service.events)
        push = Push(service.pull)
        push.send(blocks("before", speech, RATE_HZ, 20))
        collector.wait_closed(["before"])
        to = service.pull if socket == "PUSH" else service.sub
        fast = ("--name", "fast", "--socket", socket, "--speed", 10, "--seconds", 60)
        with child("tap", to, *fast) as tap:
            wait_until(lambda: _of(collector, "fast-000", "speech"), "the fast tap")
            push.send(blocks("beside", speech, RATE_HZ, 20))
            collector.wait_closed(["beside", "fast-000"])
            assert tap.process.wait(30) == 0
        push.close()
        assert essence(collector.events, "beside") == essence(collector.events, "before")
        np.testing.assert_allclose(
            scores(collector.events, "beside"), scores(collector.events, "before"), atol=1e-3
        )
        # Nothing of it is lost, or what was is told; its place is kept to the sample.
        [closed] = [e for e in _of(collector, "fast-000", "stream") if e["state"] == "closed"]
        assert closed["at_sample"] == 60 * RATE_HZ
        for gap in _of(collector, "fast-000", "gap"):
            assert socket == "PUB", "PUSH waits"
            assert gap["reason"] == "overload"
        assert len(_of(collector, "fast-000", "utterance")) > 5
        collector.close()
        assert service.daemon.stop() == 0


def test_a_flood_beyond_what_can_be_analysed_is_told_to_the_sample(tmp_path: Path) -> None:
    # Half a second fits into a row, a minute comes at once: most of it must go.
    seconds = 600
    overrides = ("streams.backlog_s=0.5", "streams.max_lag_ms=100")
    with Service(tmp_path, overrides) as service:
        collector = Collector(service.events)
        flood = ("--name", "flood", "--socket", "PUB", "--speed", 1e9, "--seconds", seconds)
        with child("tap", service.sub, "--streams", 4, *flood) as tap:
            calls = [f"flood-{number:03}" for number in range(4)]
            collector.wait_closed(calls)
            assert tap.process.wait(30) == 0
        push = Push(service.pull)
        push.send(blocks("after", demo_speech(RATE_HZ)[: 3 * RATE_HZ], RATE_HZ, 100))
        collector.wait_closed(["after"])
        push.close()
        assert {gap["reason"] for gap in collector.of_type("gap")} <= {"overload", "lost"}
        for call in calls:
            [closed] = [e for e in _of(collector, call, "stream") if e["state"] == "closed"]
            assert closed["at_sample"] == seconds * RATE_HZ
            spans = sorted(
                (g["start_sample"], g["end_sample"], g["reason"], g["messages"])
                for g in _of(collector, call, "gap")
            )
            assert spans
            # No sample is told twice.
            for before, after in pairwise(spans):
                assert before[1] <= after[0], (call, before, after)
        collector.close()
        assert service.daemon.stop() == 0
