"""What is missing of a stream is told once, to the sample, whichever stage left it out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serd.inference.worker import DropReason
from serd.protocol.events import GapEvent, StreamEvent
from serd.protocol.tap import Flag
from serd.types import BoolArray, Encoding, Int16Array, native_rate_hz
from tests.runtime.shedding_bench import Bench
from tests.sources.intake_bench import Tap

Doing = tuple[str, int]

# Every sample of a stream has a value of its own, and none is silence.
_VALUES = 65_535
_NOTHING: Int16Array = np.empty(0, np.int16)


def _audio(start: int, samples: int) -> Int16Array:
    return (np.arange(start, start + samples) % _VALUES + 1).astype(np.uint16).view(np.int16)


class Scene:
    """One stream of a tap that does all that may go wrong, and what is true of its samples."""

    def __init__(self, rate_hz: int) -> None:
        # Little room, so that it fills up where nobody reads.
        self.bench = Bench(lossless=False, rate_hz=native_rate_hz(rate_hz), room_s=2)
        self.bench.given_up_as = DropReason.STOPPED
        self.tap = Tap(rate=rate_hz)
        self.kept_back: list[tuple[bytes, bytes, bytes]] = []
        self.shed = False
        self.paused = False
        self.breaks = 1
        self.in_pauses: list[tuple[int, int]] = []
        self.silent: list[tuple[int, int]] = []
        self._send(self.tap.plain(Flag.START))
        self.bench.step()

    def _send(self, parts: Sequence[bytes]) -> None:
        self.bench.table.message(self.bench.source, parts, (), self.bench.clock.monotonic_ns())

    def do(self, what: str, samples: int) -> None:
        bench, tap = self.bench, self.tap
        start = tap.index
        audio = _audio(start, samples)
        match what:
            case "audio":
                self._send(tap.audio(audio))
            case "lost":
                tap.audio(audio)
            case "silence":
                tap.index += samples
                self.silent.append((start, tap.index))
                self.breaks += 1
            case "late":
                self.kept_back.append(tap.audio(audio))
            case "comes":
                for parts in self.kept_back:
                    self._send(parts)
            case "swapped":
                two = tap.audio(audio), tap.audio(_audio(start + samples, samples))
                for parts in two[::-1]:
                    self._send(parts)
            case "broken":
                stream, header, _ = tap.audio(audio, 0, Encoding.F32LE)
                self._send((stream, header, np.full(samples, np.nan, np.float32).tobytes()))
            case "pause" | "resume":
                self.paused = what == "pause"
                self.breaks += 1
                self._send(tap.plain(Flag[what.upper()]))
            case "shed" if not self.shed:
                bench.speech.shed([0])
                self.shed = True
            case "back" if self.shed:
                bench.speech.take_back([0])
                self.shed = False
            case "hush":
                bench.detector.probability = 1.0 - bench.detector.probability
            case "step":
                bench.step()
        if self.paused:
            self.in_pauses.append((start, tap.index))

    def end(self) -> None:
        self._send(self.tap.plain(Flag.END))
        # Only a message behind the missing ones makes them lost, and only room lets an end come.
        self.bench.table.close_source(self.bench.source, "draining")
        waits = True
        while waits:
            waits = not self.bench.table.flush_pending(self.bench.clock.monotonic_ns())
            self.bench.step()

    def spans(self, *, of_segments: bool) -> list[tuple[int, int]]:
        """What is told as missing, of segments or of audio.

        Not of what came late: where it belongs has been told as lost.
        """
        reasons = {"model_error", "stopped"}
        return sorted(
            (event.start_sample, event.end_sample)
            for event in self.bench.events
            if isinstance(event, GapEvent)
            and (event.reason in reasons) is of_segments
            and event.reason != "late"
            and event.end_sample > event.start_sample
        )


def _played(rate_hz: int, doings: Sequence[Doing]) -> Scene:
    scene = Scene(rate_hz)
    for what, samples in doings:
        if scene.tap.index + 2 * samples < _VALUES:
            scene.do(what, samples)
    scene.end()
    return scene


def _marked(spans: Sequence[tuple[int, int]], length: int) -> BoolArray:
    marked = np.zeros(length, np.bool_)
    for start, end in spans:
        marked[start:end] = True
    return marked


_DOINGS = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(1, 2500) | st.just(9000)),
        st.tuples(
            st.sampled_from(["lost", "silence", "late", "swapped", "broken"]),
            st.sampled_from([1, 100, 2000, 7000]),
        ),
        st.sampled_from(
            [
                (what, 0)
                for what in (
                    *("step", "step", "step", "shed", "back"),
                    *("pause", "resume", "hush", "comes"),
                )
            ]
        ),
    ),
    max_size=50,
)
_OVERFLOWS: list[Doing] = [("audio", 9000)] * 3
_SPEAKS: list[Doing] = [("audio", 2500), ("step", 0), ("audio", 2500), ("step", 0)]
# More than can be put in order are behind it, so that it is lost.
_FOLLOWS: list[Doing] = [("audio", 100)] * 10


@given(rate_hz=st.sampled_from([8000, 16_000, 11_025, 44_100]), doings=_DOINGS)
@example(8000, [*_SPEAKS, ("lost", 2000), *_FOLLOWS, ("step", 0), ("shed", 0)])
@example(8000, [*_SPEAKS, *_SPEAKS, *_SPEAKS])
@example(8000, [*_SPEAKS, ("late", 100), *_FOLLOWS, ("comes", 0)])
@settings(max_examples=300, deadline=None)
def test_no_sample_is_told_twice(rate_hz: int, doings: Sequence[Doing]) -> None:
    scene = _played(rate_hz, doings)
    told = sorted(scene.spans(of_segments=False) + scene.spans(of_segments=True))
    for (_, end), (start, _) in pairwise(told):
        assert end <= start
    closed = scene.bench.events[-1]
    assert isinstance(closed, StreamEvent)
    assert closed.state == "closed"
    assert all(end <= scene.tap.index for _, end in told)
    if not scene.paused:
        assert closed.at_sample == scene.tap.index


@given(rate_hz=st.sampled_from([8000, 16_000]), doings=_DOINGS)
@example(8000, [*_SPEAKS, ("lost", 2000), *_FOLLOWS, ("step", 0), ("shed", 0)])
@example(8000, [*_OVERFLOWS, ("step", 0), ("audio", 100), ("lost", 100), *_FOLLOWS])
@example(8000, [*_OVERFLOWS, ("pause", 0), ("audio", 100), ("resume", 0), ("step", 0), *_SPEAKS])
@settings(max_examples=300, deadline=None)
def test_what_was_not_heard_is_told(rate_hz: int, doings: Sequence[Doing]) -> None:
    scene = _played(rate_hz, doings)
    length = scene.tap.index
    frames = np.concatenate([_NOTHING, *scene.bench.detector.heard.get(0, [])])
    places = frames[frames != 0].view(np.uint16).astype(np.int64) - 1
    assert (np.diff(places) > 0).all()
    heard = np.zeros(length, np.bool_)
    heard[places] = True
    told = _marked(scene.spans(of_segments=False), length)
    assert not (heard & told).any()
    in_pauses, silent = _marked(scene.in_pauses, length), _marked(scene.silent, length)
    assert not ((heard | told) & in_pauses).any()
    missing = ~heard & ~told & ~in_pauses & ~silent
    opened = scene.bench.events[0]
    assert isinstance(opened, StreamEvent)
    missing[: opened.at_sample] = False
    # Less than a frame is left before every end of a run of audio.
    breaks = scene.breaks + sum(
        end - start > rate_hz // 2 for start, end in scene.spans(of_segments=False)
    )
    assert np.count_nonzero(missing) < breaks * scene.bench.pool.frame
