"""Figures and verdict, from runs that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from serd.bench.conversations import Conversations
from serd.bench.expected import Expected
from serd.bench.figures import Report
from serd.bench.generator import Played
from serd.bench.material import POOL, Material
from serd.bench.process import Sample
from serd.bench.receiver import Arrival, Receiver
from serd.bench.report import report
from serd.bench.run import Observed, Settings, plan_streams
from serd.bench.tape import SLOT_NS, SLOTS, Line, stream_id
from serd.protocol.events import (
    DaemonEvent,
    EmotionEvent,
    Event,
    GapEvent,
    SegmentLatency,
    encode,
    topic,
    utc,
)
from serd.segmenter import SegmenterOptions
from serd.types import Encoding

DUE_NS = 1_000_000_000_000
MS = 1_000_000
SETTINGS = Settings(streams=6, seconds=12.0, warm_up_s=2.0)


def material(seconds: float = 14.0) -> Material:
    rng = np.random.default_rng(5)
    frames = round(seconds * 8000 / 256) + 1
    blocks = round(seconds * 50)
    # Speech for 4.8 s, silence for 1.6 s, from anywhere.
    wave = (np.arange(frames)[:, None] + rng.integers(0, 200, POOL)) // 50 % 4 > 0
    silent = np.zeros((POOL, blocks), np.bool_)
    silent[:, ::7] = True
    conversations = Conversations(np.zeros((POOL, 1), np.int16), silent, 8000, 0.43)
    audio = np.zeros((POOL, blocks, 160), np.uint8)
    options = SegmenterOptions(sample_rate_hz=8000, frame_samples=256)
    return Material(conversations, Encoding.MULAW, audio, wave.astype(np.float32), options)


MATERIAL = material()


class Scene:
    """A run in which everything went well: every event came 30 ms after what decided it."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.settings = settings
        self.streams = plan_streams(settings)
        self.expected: Expected = MATERIAL.expect(self.streams)
        slots = np.arange((self.streams.ticks + 10) * SLOTS)
        self.played = Played(
            sent_ns=DUE_NS + slots * SLOT_NS + MS,
            due_ns=DUE_NS,
            delay=np.zeros((0, 0), np.uint8),
            numbers=self.streams.number,
            messages=int(self.streams.blocks.sum()),
            withheld=0,
            suppressed=0,
            dropped=0,
            waited_ns=0,
            cpu_ns=152 * MS,
        )
        self.received = self.played.messages
        self.events: list[tuple[int, Event]] = []
        self.closed = True
        self.latency_ms: Callable[[int], float] = lambda _at_ns: 30.0

    def sent_ns(self, segment: int) -> int:
        stream = self.expected.stream[segment]
        tick = self.streams.join[stream] + (self.expected.decided[segment] - 1) // 160
        return int(self.played.sent_ns[tick * SLOTS + self.streams.slot[stream]])

    def emotion(self, segment: int) -> EmotionEvent:
        start, end = int(self.expected.start[segment]), int(self.expected.end[segment])
        return EmotionEvent(
            stream=stream_id(int(self.expected.stream[segment])),
            utterance=0,
            index=0,
            last=False,
            padded=False,
            start_s=start / 8000,
            end_s=end / 8000,
            start_sample=start,
            end_sample=end,
            sample_rate_hz=8000,
            captured_at=utc(0),
            label="calm",
            confidence=1.0,
            scores={"calm": 1.0},
            abstained=False,
            speech_ratio=1.0,
            level_dbfs=-20.0,
            clipped_ratio=0.0,
            lost_ms=0.0,
            model="m",
            latency_ms=SegmentLatency(wait=0.0, inference=0.0, total=0.0),
        )

    def report(self, bound_ms: float = 250.0, without: Sequence[int] = ()) -> Report:
        events = list(self.events)
        for segment in range(len(self.expected.start)):
            if segment not in without:
                sent_ns = self.sent_ns(segment)
                at_ns = sent_ns + round(self.latency_ms(sent_ns) * MS)
                events.append((at_ns, self.emotion(segment)))
        warm_ns = DUE_NS + self.settings.warm_ticks * SLOTS * SLOT_NS
        end_ns = DUE_NS + self.settings.ticks * SLOTS * SLOT_NS
        for at_ns in range(warm_ns, end_ns + 1, 1000 * MS):
            # Half of the daemon's time is the detector's, a quarter the model's.
            used = (at_ns - warm_ns) // 2
            events.append(
                (
                    at_ns,
                    daemon(
                        {
                            "vad.compute_ns": used // 2,
                            "inference.compute_ns": used // 4,
                            "a.peak": 3,
                            "intake.messages": self.received,
                            "overload.sheds": 2,
                        }
                    ),
                )
            )
        receiver = Receiver("tcp://127.0.0.1:1")
        receiver.arrivals = [
            Arrival(at_ns, topic(event), encode(event))
            for at_ns, event in sorted(events, key=lambda item: item[0])
        ]
        samples = [
            Sample(at_ns, {"serd-speech": 7 + (at_ns - warm_ns) / 2e9}, 2048, at_ns / 1e9)
            for at_ns in range(warm_ns, end_ns + 1, 1000 * MS)
        ]
        observed = Observed(
            DUE_NS,
            self.streams,
            [self.played],
            receiver,
            samples,
            1000,
            1500,
            self.closed,
            True,
            0,
            0.12,
            {"model": "m", "provider": "p", "vad": "v"},
        )
        return report(self.settings, MATERIAL, observed, bound_ms)


def daemon(counts: dict[str, int]) -> DaemonEvent:
    return DaemonEvent(
        state="heartbeat",
        name="",
        version="",
        run_id="",
        uptime_s=1.0,
        streams=0,
        model="",
        provider="",
        vad="",
        counts=counts,
    )


def gap(number: int, reason: str, lost_ms: float = 20.0) -> GapEvent:
    return GapEvent(
        stream=stream_id(number),
        reason=reason,
        start_sample=0,
        end_sample=160,
        start_s=0.0,
        end_s=0.02,
        sample_rate_hz=8000,
        lost_ms=lost_ms,
        messages=1,
    )


class TestFigures:
    def test_a_run_without_fault(self) -> None:
        found = Scene().report()
        assert (found.held, found.valid, found.problems) == (True, True, ())
        assert found.events.expected == found.events.received > 10
        assert (found.events.missing, found.events.unexpected) == (0, 0)
        assert found.latency_ms.p50 == found.latency_ms.max == 30.0
        # Before the warm-up is over nothing is measured.
        assert 0 < found.latency_ms.count <= found.events.expected
        assert found.lateness_ms.max == 1.0
        assert found.messages.lost == 0
        assert found.queue_peaks == {"a.peak": 3}

    def test_while_speech_goes_on_a_segment_is_also_measured_from_its_end(self) -> None:
        found = Scene().report()
        waited = found.while_speaking_ms
        assert waited.p50 is not None
        assert waited.max is not None
        assert 0 < waited.count < found.latency_ms.count
        # At most the padding later, which the decision does not wait for.
        assert 30.0 <= waited.p50 <= waited.max <= 30.0 + 200 + 32 + 20

    def test_processor_and_memory(self) -> None:
        found = Scene().report()
        assert found.cpu.daemon == pytest.approx(0.5)
        assert found.cpu.threads == {"serd-speech": pytest.approx(0.5)}
        assert found.cpu.vad_share == pytest.approx(0.5, abs=0.01)
        assert found.cpu.compute_share == pytest.approx(0.75, abs=0.01)
        assert found.cpu.generator == pytest.approx(0.01)
        assert found.cpu.subscriber == pytest.approx(0.01)
        assert found.cpu.others == pytest.approx(1 - 0.5 - 0.01 - 0.01, abs=0.01)
        assert found.memory.per_stream_kib == 100.0
        assert len(found.by_second) == 12

    def test_jitter_is_the_taps_and_no_latency(self) -> None:
        scene = Scene(replace(SETTINGS, line=Line(jitter_ms=40.0)))
        delay = np.random.default_rng(1).integers(0, 20, (scene.streams.ticks, 6)).astype(np.uint8)
        # The generator has its streams in an order of its own.
        numbers = np.array([3, 1, 0, 5, 4, 2])
        scene.played = replace(scene.played, delay=delay, numbers=numbers)
        first = scene.report().latency_ms
        assert first.p50 is not None
        assert first.p50 < 30.0
        times = scene.sent_ns

        def delayed_ns(segment: int) -> int:
            stream = int(scene.expected.stream[segment])
            tick = scene.streams.join[stream] + (scene.expected.decided[segment] - 1) // 160
            return times(segment) + int(delay[tick, numbers.tolist().index(stream)]) * SLOT_NS

        scene.sent_ns = delayed_ns  # type: ignore[method-assign]  # the scene's own clock
        found = scene.report().latency_ms
        assert found.p50 == found.max == 30.0


class TestVerdict:
    def test_a_missing_event_is_found(self) -> None:
        found = Scene().report(without=[4])
        assert found.events.missing == 1
        assert not found.held
        assert "1 of" in found.problems[0]

    def test_an_event_that_nobody_expects_is_found(self) -> None:
        scene = Scene()
        event = scene.emotion(0)
        event.start_sample += 1
        scene.events.append((DUE_NS, event))
        found = scene.report()
        assert (found.events.missing, found.events.unexpected, found.held) == (0, 1, False)

    def test_the_bound_is_for_the_99th_percentile(self) -> None:
        found = Scene().report(bound_ms=29.0)
        assert not found.held
        assert found.problems == ("99th percentile of the latency 30 ms, over 29 ms",)

    def test_lost_messages_and_their_gaps_are_told(self) -> None:
        scene = Scene()
        scene.received -= 2
        scene.events += [(DUE_NS, gap(1, "lost")), (DUE_NS, gap(2, "lost"))]
        found = scene.report()
        assert found.messages.lost == 2
        assert found.gaps["lost"].events == found.gaps["lost"].streams == 2
        assert len(found.problems) == 2

    def test_what_was_lost_on_purpose_is_no_fault(self) -> None:
        scene = Scene(replace(SETTINGS, line=Line(loss=0.01)))
        scene.played = replace(scene.played, withheld=2)
        scene.events += [(DUE_NS, gap(1, "lost")), (DUE_NS, gap(2, "lost"))]
        found = scene.report(without=[1])
        assert found.held
        assert found.events.missing is None

    def test_suppressed_silence_is_no_fault_and_no_latency(self) -> None:
        scene = Scene(replace(SETTINGS, line=Line(suppress_silence=True)))
        found = scene.report()
        assert found.held
        # What a left out message would have brought is known with the next one.
        assert found.latency_ms.p50 == 30.0
        assert found.latency_ms.max == 30.0

    def test_streams_that_never_end_are_told(self) -> None:
        scene = Scene()
        scene.closed = False
        assert scene.report().problems == ("some streams never ended",)

    def test_a_late_generator_is_no_result_but_one_that_had_to_wait_is(self) -> None:
        scene = Scene()
        late = scene.played.sent_ns + 40 * MS
        scene.played = replace(scene.played, sent_ns=late)
        assert not scene.report().valid
        scene.played = replace(scene.played, waited_ns=5 * MS)
        found = scene.report()
        assert (found.valid, found.held) == (True, False)
        assert found.problems == ("the taps had to wait for 5 ms",)

    def test_a_run_too_short_for_any_event_does_not_hold(self) -> None:
        scene = Scene()
        found = scene.report(without=range(len(scene.expected.start)))
        assert not found.held
        assert found.latency_ms.p99 is None


class TestSurge:
    settings = replace(SETTINGS, surge=4)

    def goes_ns(self) -> int:
        return DUE_NS + self.settings.surge_ticks[1] * SLOTS * SLOT_NS

    def test_what_was_shed_is_excused_and_told(self) -> None:
        scene = Scene(self.settings)
        shed = {5, 8}
        without = np.flatnonzero(np.isin(scene.expected.stream, list(shed))).tolist()
        scene.events += [
            (self.goes_ns(), gap(8, "overload", 900.0)),
            (self.goes_ns() + 1500 * MS, gap(5, "overload", 3000.0)),
        ]
        found = scene.report(without=without)
        assert found.held
        assert found.surge is not None
        assert (found.surge.streams_shed, found.surge.ordinary_streams_shed) == (2, 1)
        assert found.surge.shed_ms == 3900.0
        assert found.surge.ordinary_shed_ms == 3000.0
        assert found.surge.worst_second_ms == 30.0
        assert found.surge.recovered_s == 1.5
        assert found.surge.counts == {"overload.sheds": 2}
        for phase in (found.surge.before_ms, found.surge.during_ms, found.surge.after_ms):
            assert phase.p50 == 30.0

    def test_the_bound_is_for_the_surge_too(self) -> None:
        scene = Scene(self.settings)
        comes_ns = DUE_NS + self.settings.surge_ticks[0] * SLOTS * SLOT_NS
        late_ns = comes_ns + 1000 * MS, comes_ns + 2000 * MS
        scene.latency_ms = lambda at_ns: 80.0 if late_ns[0] <= at_ns < late_ns[1] else 30.0
        found = scene.report(bound_ms=79.0)
        assert found.surge is not None
        assert found.surge.worst_second_ms == 80.0
        assert any("during the surge 80 ms, over 79 ms" in problem for problem in found.problems)
        assert scene.report(bound_ms=81.0).held

    def test_a_stream_still_shed_at_its_end_was_not_taken_back(self) -> None:
        scene = Scene(self.settings)
        end_ns = DUE_NS + self.settings.ticks * SLOTS * SLOT_NS
        scene.events.append((end_ns + MS, gap(5, "overload")))
        found = scene.report()
        assert found.surge is not None
        assert found.surge.recovered_s is None
        assert found.problems == ("not recovered from the surge by the end",)

    def test_recovery_waits_for_the_latency_too(self) -> None:
        scene = Scene(self.settings)
        until_ns = self.goes_ns() + 1000 * MS
        scene.latency_ms = lambda at_ns: 300.0 if self.goes_ns() <= at_ns < until_ns else 30.0
        found = scene.report(bound_ms=300.5)
        assert found.surge is not None
        assert found.surge.recovered_s == 0.0
        found = scene.report(bound_ms=250.0)
        assert found.surge is not None
        assert found.surge.recovered_s is not None
        assert 0.3 <= found.surge.recovered_s <= 1.3
