"""How many streams the machine can take, from what those that are there cost it.

A lag tells of too much when it is there; a rush of calls is known before. A stream that opens costs
the detector's time at once, but nothing of the model's until its first utterance ends, seconds
later. So what counts is not what streams use now, but what they will: each the mean of all, its
segments as well.

The model's part, streams times segments a second a stream times processor time a segment, is all
expectation. Segments a second of a stream are learnt slowly, and against the number of streams that
have been there for as long as segments take to come. The speech thread's part is measured. The
ingest thread's is taken as it is: it hears those too that are left out.

How much is too much follows from the number of processors. Some of their time must be left, or
whatever becomes ready waits for a processor and for the interpreter lock: of `n` processors a part
of the root of `n`, which is how many servers a queue needs beyond its load for the same share of
customers to wait, whatever the load (S. Halfin and W. Whitt, "Heavy-traffic limits for queues with
many exponential servers", Operations Research 29(3), 1981). The speech thread, which there is one
of, and the model's have bounds of their own.

What the processors give may be less, when others use them too: while work waits, it is what was
used just now.

No clock, no threads, no input or output.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# Two cores hold 750 to 800 calls with 1.5 of them in use, and are at their end with 1.75.
_SPARE = 0.35
# The same for a thread by itself.
_MOST_OF_A_THREAD = 0.9
# The speech thread's fixed cost, which no stream can be charged with: rounds of some 150 µs.
_FIXED = 0.03

_NOW_S = 0.3
_SOON_S = 0.5
# A mean over fewer segments than come in such a time is worth little.
_LATE_S = 10.0
# The very first take many times what others do.
_COLD_SEGMENTS = 20
_LEAST_SEGMENTS = 60.0
# From a stream's opening to its first segments.
_FIRST_SEGMENT_S = 3.0
# What is taken for known before anything is heard: so many streams, each with segments so often.
_PRIOR_STREAMS = 10.0
_PRIOR_SEGMENTS_S = 0.35


class Usage(NamedTuple):
    """What was used since the start: processor time of threads in ns, and segments.

    `ingest_ns`, `speech_ns`, `model_ns`: of the ingest thread, of the speech thread, and of those
    that run the model together; `segments`: handed to the model; `scored`: that it has answered.
    """

    ingest_ns: int
    speech_ns: int
    model_ns: int
    segments: int
    scored: int


class Forecast:
    """Learns what a stream costs and tells how many can be analysed.

    Parameters
    ----------
    processors
        That the process may use; parts of one count.
    workers
        Threads that compute the model on these processors; None if it runs elsewhere.

    Attributes
    ----------
    fits
        How many can be analysed; infinite while nothing is known.
    bearable
        How many could be analysed with what has been used just now: with all there is, if anything
        waits. 0 while nothing is known.
    """

    def __init__(self, processors: float, workers: int | None) -> None:
        self._processors = max(processors - _SPARE * math.sqrt(processors), processors / 2)
        self._workers = None if workers is None else min(workers, processors) * _MOST_OF_A_THREAD
        self.fits = math.inf
        self.bearable = 0.0
        self._before: tuple[int, Usage] | None = None
        # Smoothed over a short time, seconds a second and streams.
        self._used = self._ingest = self._speech = self._analysed = 0.0
        # Streams that have been there for long enough to have segments.
        self._speaking = 0.0
        self._segments_s, self._speakers = _PRIOR_STREAMS * _PRIOR_SEGMENTS_S, _PRIOR_STREAMS
        self._scoring, self._scored_s = 0.0, 0.0

    def forget_time(self) -> None:
        """What is used from here to the next `observe` is not the streams' doing."""
        self._before = None
        self.fits, self.bearable = math.inf, 0.0

    def observe(self, now_ns: int, usage: Usage, streams: int) -> None:
        """Learn from what was used since the last time.

        Parameters
        ----------
        now_ns
            Monotonic time.
        streams
            Streams that are analysed now.
        """
        before, self._before = self._before, (now_ns, usage)
        if before is None or now_ns <= before[0]:
            return
        elapsed_s = (now_ns - before[0]) / 1e9
        ingest_ns, speech_ns, model_ns, segments, scored = (
            now - then for now, then in zip(usage, before[1], strict=True)
        )
        soon = _weight(elapsed_s, _SOON_S)
        ingest = ingest_ns / 1e9 / elapsed_s
        self._ingest += soon * (ingest - self._ingest)
        speech = speech_ns / 1e9 / elapsed_s
        self._speech += soon * (speech - self._speech)
        self._analysed += soon * (streams - self._analysed)

        rising = _weight(elapsed_s, _FIRST_SEGMENT_S) * (streams - self._speaking)
        self._speaking = min(self._speaking + rising, streams)
        late = _weight(elapsed_s, _LATE_S)
        self._segments_s += late * (segments / elapsed_s - self._segments_s)
        self._speakers += late * (self._speaking - self._speakers)

        model = model_ns / 1e9 / elapsed_s
        if before[1].scored >= _COLD_SEGMENTS:
            self._scoring += late * (model - self._scoring)
            self._scored_s += late * (scored / elapsed_s - self._scored_s)
        now = _weight(elapsed_s, _NOW_S)
        self._used += now * (ingest + speech + model - self._used)
        # A crowd that opens costs more than it will: what it leaves may be given away later.
        self._tell(max(ingest, self._ingest))

    def _tell(self, ingest: float) -> None:
        if self._analysed < 1 or self._scored_s * _LATE_S < _LEAST_SEGMENTS:
            self.fits, self.bearable = math.inf, 0.0
            return
        speech = max(self._speech - _FIXED, 0.0) / self._analysed
        model = self._segments_s / self._speakers * self._scoring / self._scored_s
        self.fits = min(
            _fit(self._processors - ingest, speech + model),
            _fit(_MOST_OF_A_THREAD, speech),
        )
        if self._workers is not None:
            self.fits = min(self.fits, _fit(self._workers, model))
            self.bearable = _fit(self._used - ingest, speech + model)


def _weight(elapsed_s: float, time_constant_s: float) -> float:
    """Of the newest value in a mean that forgets with a time constant."""
    return 1 - math.exp(-elapsed_s / time_constant_s)


def _fit(there_is: float, each_takes: float) -> float:
    return max(there_is, 0.0) / each_takes if each_takes > 0 else math.inf
