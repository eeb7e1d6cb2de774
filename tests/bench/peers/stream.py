"""One stream in the program that people write: its detector, its audio, its segments."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import soxr

from serd.config.schema import SegmentSection
from serd.types import Int16Array
from tests.bench.peers.boundaries import Detector
from tests.bench.peers.judge import Judge

_SEGMENT = SegmentSection()
_INT16 = np.float32(1 / 32768)


class Result(NamedTuple):
    """A judged segment of a stream: samples ``[start, end)`` at the source's rate.

    `decided` is the sample at which the block ended that made the segment due.
    """

    start: int
    end: int
    decided: int
    label: str


class Stream:
    """Takes a stream's samples block by block, judges its segments as they become due.

    The segments are the daemon's: 3 s every second of an utterance, and a last one at its end.
    Detectors that do not take the stream's rate are given it resampled as it comes.

    Parameters
    ----------
    detector
        Of this stream alone.
    judge
        Shared by all streams.
    rate_hz
        Of the samples.
    """

    def __init__(self, detector: Detector, judge: Judge, rate_hz: int) -> None:
        self._detector = detector
        self._judge = judge
        self._source_hz = rate_hz
        self._rate_hz = detector.rate_hz
        self._resampler: Any = None
        if rate_hz != self._rate_hz:
            self._resampler = soxr.ResampleStream(rate_hz, self._rate_hz, 1, dtype="int16")
        self._taken = 0  # samples at the source's rate
        self._audio: Int16Array = np.zeros(0, np.int16)
        self._first = 0  # position of the kept audio's first sample
        self._window = round(_SEGMENT.window_s * self._rate_hz)
        self._hop = round(_SEGMENT.hop_s * self._rate_hz)
        self._shortest = round(
            (_SEGMENT.min_speech_ms + 2 * _SEGMENT.padding_ms) * self._rate_hz / 1000
        )
        # What is kept in silence reaches back to where the slowest detector can put an onset.
        self._memory = 2 * self._rate_hz
        self._start: int | None = None
        self._next = 0

    def feed(self, samples: Int16Array, *, last: bool = False) -> list[Result]:
        """Take the next samples, int16 ``[n]``, or the end of the stream with the `last`."""
        self._taken += len(samples)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        results: list[Result] = []
        if len(samples):
            self._audio = np.concatenate([self._audio, samples])
            for begins, at in self._detector.feed(samples):
                if begins:
                    self._start = self._next = max(at, self._first)
                else:
                    self._close(at, results)
        end = self._first + len(self._audio)
        if last:
            self._close(end, results)
        elif self._start is not None:
            self._cut(end, results)
        self._forget()
        return results

    def _cut(self, until: int, results: list[Result]) -> None:
        while self._next + self._window <= until:
            self._segment(self._next, self._next + self._window, results)
            self._next += self._hop

    def _close(self, at: int, results: list[Result]) -> None:
        if self._start is None:
            return
        self._cut(at, results)
        covered = self._next - self._hop + self._window if self._next > self._start else self._start
        if covered < at and at - self._start >= self._shortest:
            self._segment(max(self._start, at - self._window), at, results)
        self._start = None

    def _segment(self, start: int, end: int, results: list[Result]) -> None:
        audio = self._audio[start - self._first : end - self._first] * _INT16
        scores = self._judge.scores(audio, self._rate_hz)
        ratio = self._source_hz / self._rate_hz
        label = self._judge.labels[int(scores.argmax())]
        results.append(Result(round(start * ratio), round(end * ratio), self._taken, label))

    def _forget(self) -> None:
        end = self._first + len(self._audio)
        # The last segment of an utterance begins a window before its end, which is known only a
        # hangover later.
        keep = (
            end - self._memory if self._start is None else min(self._next, end - 2 * self._window)
        )
        if keep - self._first > self._rate_hz:
            self._audio = self._audio[keep - self._first :]
            self._first = keep
