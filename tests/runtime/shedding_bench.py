"""An intake and a speech stage over the rows of one rate, step by step, and what they told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from serd.inference.worker import DropReason, SegmentJob
from serd.protocol.events import EmotionEvent, Event, GapEvent, SpeechEvent, StreamEvent
from serd.rows import RowPool
from serd.runtime.assembler import Assembler
from serd.runtime.forecast import Forecast, Usage
from serd.runtime.judge import Judge
from serd.runtime.line import ModelFacts
from serd.runtime.overload import Governor
from serd.runtime.speech import SpeechPool
from serd.runtime.stage import SpeechStage
from serd.segmenter import Segmenter, SegmenterOptions
from serd.sources.base import Tap
from serd.sources.intake import IntakeOptions, StreamTable
from serd.types import Encoding, Float32Array, Int16Array, Int64Array
from tests.fakes import FakeClock
from tests.sources.intake_bench import FakeSource

RATE_HZ = 8000
FRAME = 256
# Samples tell their own index, so that the detector can be asked what it has heard.
CYCLE = 30_000


@dataclass
class SlowDetector:
    """Calls everything speech, or nothing, takes its time, and remembers what it has heard."""

    clock: FakeClock
    row_ms: float = 0.0
    probability: float = 1.0
    name: str = "fake"
    sample_rate_hz: int = RATE_HZ
    frame_samples: int = FRAME
    compute_ns: int = 0
    gated: int = 0
    heard: dict[int, list[Int16Array]] = field(default_factory=dict)
    meanwhile: Callable[[], None] = lambda: None

    def step(self, rows: Int64Array, frames: Int16Array) -> Float32Array:
        self.clock.advance(len(rows) * self.row_ms / 1000)
        self.meanwhile()
        for row, frame in zip(rows.tolist(), frames, strict=True):
            self.heard.setdefault(row, []).append(frame.copy())
        return np.full(len(rows), self.probability, np.float32)

    def reset(self, rows: Int64Array) -> None: ...


class Bench:
    """An intake and a speech stage over the rows of one rate, with a clock that is told to move."""

    def __init__(
        self,
        rows: int = 4,
        max_lag_ms: int = 150,
        *,
        lossless: bool = False,
        rate_hz: int = RATE_HZ,
        room_s: int = 4,
    ) -> None:
        self.clock = FakeClock(monotonic_ns=10**9)
        self.events: list[Event] = []
        self.jobs: list[SegmentJob] = []
        self.source = FakeSource(lossless=lossless)
        self.given_up_as = DropReason.OVERLOAD
        pools = {rate: RowPool(rate, rows, room_s * rate) for rate in (RATE_HZ, 2 * RATE_HZ)}
        pool = pools[rate_hz]
        options = SegmenterOptions(rate_hz, pool.frame, window_s=1.0, hop_s=0.5)
        self.pool = pool
        self.table = StreamTable(
            pools,
            IntakeOptions(max_streams=rows),
            self.clock,
            lambda info, at, reason: None,
        )
        self.detector = SlowDetector(self.clock, sample_rate_hz=rate_hz, frame_samples=pool.frame)
        self.governor = Governor(max_lag_ms)
        assembler = Assembler(self.events.append)
        facts = ModelFacts("fake-1", ("neutral", "angry"), 0.3)
        self.judge = Judge(assembler, self.clock, lambda: None)
        self.speech = SpeechPool(
            pool,
            self.detector,
            Segmenter(rows, options),
            options.samples(1.0),
            assembler,
            self._judge_at_once,
            lambda job: self.judge.dropped(job, self.given_up_as),
            lambda: facts,
            self.clock,
            itertools.count(),
            lambda: False,
            self.governor,
        )
        self.forecast = Forecast(2.0, 2)
        self.usage = Usage(0, 0, 0, 0, 0)
        self.withdrawn: list[int] = []
        self.stage = SpeechStage(
            [self.speech],
            [pool],
            self.governor,
            lambda: 0,
            self.clock,
            self.forecast,
            lambda: self.usage,
            lambda keys: self.withdrawn.extend(sorted(keys)),
        )

    def _judge_at_once(self, job: SegmentJob) -> None:
        self.jobs.append(job)
        self.judge.dropped(job, DropReason.MODEL_ERROR)

    def open(self, stream: str) -> Tap:
        return self.table.open_stream(self.source, stream, RATE_HZ, 1, [], Encoding.S16LE, 0)

    def push(self, tap: Tap, start: int, samples: int) -> None:
        audio = (np.arange(start, start + samples) % CYCLE + 1).astype(np.int16)
        self.table.push(tap, audio.reshape(-1, 1), 0)

    def step(self) -> None:
        while self.speech.step():
            pass

    def gaps(self, stream: str, reason: str = "overload") -> list[tuple[int, int]]:
        return [
            (event.start_sample, event.end_sample)
            for event in self.events
            if isinstance(event, GapEvent) and event.stream == stream and event.reason == reason
        ]

    def said(self, stream: str) -> list[str]:
        said = []
        for event in self.events:
            assert not isinstance(event, EmotionEvent), "nothing is scored here"
            if event.stream == stream:  # type: ignore[union-attr]  # none is the daemon's
                words = [type(event).__name__.removesuffix("Event").lower()]
                if isinstance(event, SpeechEvent | StreamEvent):
                    words.append(event.state)
                if isinstance(event, GapEvent):
                    words.append(event.reason)
                said.append(".".join(words))
        return said
