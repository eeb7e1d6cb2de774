"""Rows that are shed: what is skipped is told to the sample, and nothing else is lost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serd.protocol.events import SpeechEvent, StreamEvent
from serd.runtime.forecast import Usage
from serd.runtime.losses import Losses
from serd.types import Encoding
from tests.runtime.shedding_bench import CYCLE, FRAME, RATE_HZ, Bench
from tests.sources.intake_bench import FakeSource

# Up to half a second of loss is filled with silence, more makes a stream jump.
_FILLED = RATE_HZ // 2


def test_a_shed_stream_ends_its_utterance_and_tells_the_range_when_it_is_taken_back() -> None:
    bench = Bench()
    tap = bench.open("call")
    bench.push(tap, 0, 2 * RATE_HZ)
    bench.step()
    shed_at = 2 * RATE_HZ // FRAME * FRAME
    segments = len(bench.jobs)
    assert segments
    bench.speech.shed([0])
    assert bench.said("call")[-3:] == ["gap.overload", "speech.offset", "utterance"]
    offset = [event for event in bench.events if isinstance(event, SpeechEvent)][-1]
    assert (offset.reason, offset.at_sample) == ("overload", shed_at)
    # The last segment is told as lost and costs the model nothing.
    assert len(bench.jobs) == segments
    assert bench.speech.shed_segments == 1
    before = len(bench.events)

    # Many times what its row holds: the intake never has to wait or drop.
    for second in range(2, 22):
        bench.push(tap, second * RATE_HZ, RATE_HZ)
        bench.step()
    assert bench.table.counts["overload.samples"] == 0
    assert len(bench.events) == before
    heard = len(bench.detector.heard[0])

    bench.speech.take_back([0])
    back_at = 22 * RATE_HZ // FRAME * FRAME
    assert bench.gaps("call")[-1] == (shed_at, back_at)
    assert bench.speech.shed_samples == back_at - shed_at
    bench.push(tap, 22 * RATE_HZ, RATE_HZ)
    bench.step()
    assert bench.said("call")[-2:] == ["gap.overload", "speech.onset"]
    onset = [event for event in bench.events if isinstance(event, SpeechEvent)][-1]
    assert onset.at_sample == back_at
    assert onset.utterance == offset.utterance + 1
    assert bench.detector.heard[0][heard][0] == back_at % CYCLE + 1


def test_a_stream_that_ends_while_shed_tells_the_range_to_its_last_sample() -> None:
    bench = Bench()
    tap = bench.open("call")
    bench.push(tap, 0, 1000)
    bench.step()
    bench.speech.shed([0])
    bench.push(tap, 1000, 777)
    bench.step()
    bench.table.close_stream(tap, "end")
    bench.step()
    assert bench.gaps("call") == [(768, 1777)]
    assert bench.said("call")[-2:] == ["gap.overload", "stream.closed"]
    closed = bench.events[-1]
    assert isinstance(closed, StreamEvent)
    assert closed.at_sample == 1777
    assert not bench.governor.governs
    # The row is as good as new for the next.
    tap = bench.open("next")
    bench.push(tap, 0, 512)
    bench.step()
    assert len(bench.detector.heard[1]) == 2


def test_a_jump_ends_the_range_and_the_next_begins_behind_it() -> None:
    bench = Bench()
    tap = bench.open("call")
    bench.push(tap, 0, 512)
    bench.step()
    bench.speech.shed([0])
    bench.push(tap, 512, 1000)
    bench.table.lose(tap, 10 * RATE_HZ, "device_lost")
    after = 1512 + 10 * RATE_HZ
    bench.push(tap, after, 2560)
    bench.step()
    bench.speech.take_back([0])
    assert bench.gaps("call") == [(512, 1512), (after, after + 2560)]
    assert bench.gaps("call", "device_lost") == [(1512, after)]
    assert bench.said("call")[-3:] == ["gap.overload", "gap.device_lost", "gap.overload"]


def test_what_was_lost_within_a_range_is_told_once() -> None:
    bench = Bench()
    tap = bench.open("call")
    bench.push(tap, 0, 512)
    bench.step()
    bench.speech.shed([0])
    bench.push(tap, 512, 1000)
    bench.table.lose(tap, 800, "lost")
    bench.push(tap, 2312, 1000)
    bench.table.lose(tap, 300, "lost")
    bench.push(tap, 3612, 740)
    bench.step()
    bench.speech.take_back([0])
    told = sorted(bench.gaps("call") + bench.gaps("call", "lost"))
    assert bench.gaps("call", "lost") == [(1512, 2312), (3312, 3612)]
    assert told[0][0] == 512
    assert told[-1][1] == 4352
    for (_, end), (start, _) in itertools.pairwise(told):
        assert end == start
    assert bench.speech.shed_samples == 4352 - 512


def test_losses_are_not_remembered_while_nobody_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    class Watched(Losses):
        def note(self, start: int, end: int) -> None:
            nonlocal most
            super().note(start, end)
            most = max(most, len(self))

    monkeypatch.setattr("serd.runtime.line.Losses", Watched)
    bench = Bench()
    bench.detector.probability = 0.0
    tap = bench.open("call")
    for position in range(0, 200_000, 2000):
        bench.push(tap, position, 1500)
        bench.table.lose(tap, 500, "lost")
        bench.step()
    assert len(bench.gaps("call", "lost")) == 100
    assert most <= 3


def test_nothing_skipped_is_nothing_told() -> None:
    bench = Bench()
    tap = bench.open("call")
    bench.push(tap, 0, 512)
    bench.step()
    bench.speech.shed([0])
    bench.speech.take_back([0])
    bench.push(tap, 512, 256)
    bench.step()
    assert bench.said("call") == ["stream.opened"]
    assert len(bench.detector.heard[0]) == 3


def test_rows_of_sources_that_wait_are_never_shed() -> None:
    bench = Bench(lossless=True)
    bench.push(bench.open("call"), 0, 512)
    bench.clock.advance(10)
    bench.step()
    assert not bench.governor.governs
    assert bench.speech.lag_ns == 0
    bench.speech.shed([0])
    assert bench.said("call") == ["stream.opened"]


def test_the_lag_is_that_of_the_oldest_frame_that_waits() -> None:
    bench = Bench()
    early, late = bench.open("early"), bench.open("late")
    bench.push(early, 0, 512)
    bench.clock.advance(0.050)
    bench.push(late, 0, 256)
    bench.clock.advance(0.030)
    # The first step finds streams that it does not know yet.
    lags = []
    more = True
    while more:
        more = bench.speech.step()
        lags.append(bench.speech.lag_ns)
    # A row that is a single frame behind is not late.
    assert lags == [0, 80_000_000, 0]


def test_a_slow_machine_sheds_the_youngest_and_takes_them_back_when_it_can() -> None:
    streams = 12
    bench = Bench(streams)
    names = [f"call-{number:02}" for number in range(streams)]
    taps = [bench.open(name) for name in names]
    position = 0
    clock = bench.clock
    due_ns = clock.now_ns

    def arrive() -> None:
        """Push what has come by now, each block at its own time."""
        nonlocal position, due_ns
        now_ns = clock.now_ns
        while due_ns <= now_ns:
            clock.now_ns = due_ns
            for tap in taps:
                bench.push(tap, position, FRAME)
            position += FRAME
            due_ns += 32_000_000
        clock.now_ns = now_ns

    def play(seconds: float) -> None:
        until_ns = clock.now_ns + round(seconds * 1e9)
        while clock.now_ns < until_ns:
            arrive()
            bench.stage.work()
            clock.now_ns = max(clock.now_ns, due_ns)

    bench.detector.meanwhile = arrive
    play(1.0)
    assert not bench.stage.counts()["overload.rows"]
    # 12 rows of 4 ms are one and a half times what fits into the 32 ms of a frame.
    bench.detector.row_ms = 4.0
    play(6.0)
    counts = bench.stage.counts()
    shed = counts["overload.rows"]
    assert 4 <= shed <= 7
    assert counts["overload.cuts"] >= 1
    ended = {
        event.stream
        for event in bench.events
        if isinstance(event, SpeechEvent) and event.reason == "overload"
    }
    assert set(names[streams - shed :]) <= ended
    assert names[0] not in ended
    assert set(bench.withdrawn) >= set(range(streams - shed, streams))
    assert 0 not in bench.withdrawn

    bench.detector.row_ms = 0.0
    play(20.0)
    counts = bench.stage.counts()
    assert counts["overload.rows"] == 0
    # Nothing was dropped at the door, and what was skipped is what was not heard.
    assert bench.table.counts["overload.samples"] == 0
    heard = [FRAME * len(bench.detector.heard[number]) for number in range(streams)]
    assert streams * position - sum(heard) == counts["overload.samples"]
    assert heard[0] == position
    assert sorted(heard, reverse=True) == heard


def test_the_stage_lets_in_as_many_as_are_expected_to_fit() -> None:
    bench = Bench(8)

    def hear(seconds: float) -> None:
        for _ in range(round(seconds * 5)):
            bench.clock.advance(0.2)
            used = bench.usage
            # Each takes 0.3 of two processors, all told.
            streams = bench.governor.kept
            bench.usage = Usage(
                used.ingest_ns,
                used.speech_ns + streams * 30_000_000,
                used.model_ns + streams * 30_000_000,
                used.segments + streams,
                used.scored + streams,
            )
            bench.stage.work()

    for number in range(4):
        bench.open(f"early-{number}")
    hear(40)
    for number in range(4):
        bench.open(f"late-{number}")
    hear(0.2)
    assert bench.governor.kept + bench.governor.shed == 8
    assert 4 < bench.governor.kept <= 6
    assert bench.governor.cuts == 0


def test_beside_recordings_that_can_wait_nothing_is_forecast() -> None:
    bench = Bench(8)
    waiting = FakeSource(lossless=True)
    bench.open("live")
    bench.table.open_stream(waiting, "recording", RATE_HZ, 1, [], Encoding.S16LE, 0)
    for _ in range(50):
        bench.clock.advance(0.2)
        used = bench.usage
        ingest_ns, speech_ns, model_ns, segments, scored = used
        bench.usage = Usage(
            ingest_ns + 10**9, speech_ns + 10**9, model_ns + 10**9, segments + 9, scored + 9
        )
        bench.stage.work()
    assert bench.forecast.fits == math.inf
    for number in range(5):
        bench.open(f"more-{number}")
    bench.stage.work()
    assert not bench.governor.shed


_DOING = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 3000)),
    st.tuples(st.just("lose"), st.sampled_from([100, 3000, 20_000])),
    st.sampled_from([("shed", 0), ("back", 0), ("step", 0)]),
)


@pytest.mark.parametrize("close", [True, False])
@given(doings=st.lists(_DOING, max_size=40))
@settings(max_examples=100, deadline=None)
def test_every_sample_is_heard_or_told_whatever_happens(
    close: bool, doings: Sequence[tuple[str, int]]
) -> None:
    bench = Bench()
    tap = bench.open("call")
    bench.step()
    position, shed, jumped = 0, False, 0
    for what, samples in doings:
        match what:
            case "push":
                bench.push(tap, position, samples)
                position += samples
                if samples > 1500:
                    bench.step()
            case "lose":
                bench.step()
                jumped += samples > _FILLED
                bench.table.lose(tap, samples, "lost")
                position += samples
            case "shed" if not shed:
                bench.speech.shed([0])
                shed = True
            case "back" if shed:
                bench.speech.take_back([0])
                shed = False
            case _:
                bench.step()
    bench.step()
    if close:
        bench.table.close_stream(tap, "end")
        bench.step()
    elif shed:
        bench.speech.take_back([0])

    for frame in bench.detector.heard.get(0, []):
        # Zeros stand in for what was lost; all else is in its place.
        told = np.flatnonzero(frame)
        assert len(set(((frame[told] - 1 - told) % CYCLE).tolist())) <= 1
    assert len(bench.gaps("call")) >= bench.speech.shed_segments
    heard = FRAME * len(bench.detector.heard.get(0, []))
    jumps = sum(end - start for start, end in bench.gaps("call", "lost") if end - start > _FILLED)
    unheard = position - heard - bench.speech.shed_samples - jumps
    # Less than a frame is left before every jump and at the end.
    assert 0 <= unheard < FRAME * (jumped + 1)
