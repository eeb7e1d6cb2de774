"""What a bench tells: the figures of one run.

Latency of a segment
--------------------
The moment at which the subscriber had the segment's event, minus the moment at which the tap sent
the message with the sample that decided the segment. While speech goes on that is the frame with
the segment's last sample; at the end of an utterance it is the one that completes the hangover,
before which nobody can know that the utterance is over. So it counts the network, every queue,
detector, model and publishing, but not the silence that an end of speech takes by definition.

For the segments that are cut while speech goes on `Report.while_speaking_ms` counts from the
segment's very last sample instead: what a listener to the call has to wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """Milliseconds; None of nothing."""

    count: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, values_ms: FloatArray) -> Distribution:
        """The distribution of some values."""
        if not len(values_ms):
            return cls(0)
        p50, p95, p99, most = np.percentile(values_ms, [50, 95, 99, 100]).tolist()
        return cls(len(values_ms), round(p50, 2), round(p95, 2), round(p99, 2), round(most, 2))


@dataclass(frozen=True)
class Messages:
    """Tap messages: what the taps sent, what the daemon had, and what became of the rest.

    `lost` is `sent` less `received`; `dropped_by_taps` of them never left, because the daemon did
    not take them; where they wait instead (PULL), `waited_ms` is for how long they had to.
    `withheld` were lost on purpose (``--loss``), `suppressed` left out as silence; neither counts
    as sent.
    """

    sent: int
    received: int
    lost: int
    dropped_by_taps: int
    withheld: int
    suppressed: int
    waited_ms: float


@dataclass(frozen=True)
class Gaps:
    """Gap events of one reason."""

    events: int
    messages: int
    streams: int
    lost_ms: float


@dataclass(frozen=True)
class Events:
    """Emotion events against those that must come, and all events by type.

    `exact` tells whether positions can be held against each other: not where messages are lost on
    purpose or silence is suppressed. `missing` and `unexpected` are then None.
    """

    exact: bool
    expected: int
    received: int
    missing: int | None
    unexpected: int | None
    utterances_expected: int
    by_type: dict[str, int]


@dataclass(frozen=True)
class Cpu:
    """Cores in use while measuring.

    `threads` are the daemon's by name. `compute_share` is the part of the daemon's time that was
    spent inside onnxruntime, None where the daemon does not tell. `others` is what the rest of the
    machine used, which a measurement wants at zero.
    """

    daemon: float
    threads: dict[str, float]
    compute_share: float | None
    vad_share: float | None
    inference_share: float | None
    generator: float
    generator_us_per_message: float
    subscriber: float
    others: float


@dataclass(frozen=True)
class Memory:
    """Of the daemon, in KiB: with one stream, with all, and each stream beyond the first."""

    one_stream_kib: int
    all_streams_kib: int
    per_stream_kib: float | None
    resident_kib: int


@dataclass(frozen=True)
class Surge:
    """What became of a surge.

    Latencies are those of the segments that are where they would be without the surge: all of the
    streams that were never shed, and of the others at least those before it. `worst_second_ms` is
    the highest 99th percentile of any second that the surge was there, with the second after it.
    `shed_ms` is the audio that was not analysed, `ordinary_shed_ms` the part of it that belongs to
    streams which were there before. `recovered_s` counts
    from the moment at which the surge left to the last ordinary stream that was taken back or the
    last event over the bound, whichever is later; None if that did not come to pass.
    """

    streams: int
    streams_shed: int
    ordinary_streams_shed: int
    shed_ms: float
    ordinary_shed_ms: float
    counts: dict[str, int]
    before_ms: Distribution
    during_ms: Distribution
    worst_second_ms: float | None
    after_ms: Distribution
    recovered_s: float | None


@dataclass(frozen=True)
class Second:
    """One second of the run, for the plot."""

    at_s: float
    daemon_cores: float
    resident_mib: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Report:
    """Figures of one run.

    `held`: nothing was lost and the bound was kept. `valid`: the generator was in time, or
    kept waiting by the daemon; where it was not, nothing else means anything.
    """

    held: bool
    valid: bool
    problems: tuple[str, ...]
    streams: int
    seconds: float
    encoding: str
    socket: str
    jitter_ms: float
    loss: float
    suppress_silence: bool
    speech_share: float
    messages: Messages
    gaps: dict[str, Gaps]
    events: Events
    bound_ms: float
    latency_ms: Distribution
    while_speaking_ms: Distribution
    cpu: Cpu
    memory: Memory
    lateness_ms: Distribution
    queue_peaks: dict[str, int]
    surge: Surge | None
    daemon: dict[str, str]
    machine: dict[str, str | int]
    counts: dict[str, int] = field(repr=False)
    by_second: tuple[Second, ...] = field(repr=False)
