"""From what a run left behind to figures, and to whether it held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from serd.bench import process
from serd.bench.expected import Expected
from serd.bench.figures import (
    Cpu,
    Distribution,
    Events,
    FloatArray,
    Memory,
    Messages,
    Report,
    Second,
    Surge,
)
from serd.bench.matching import GapsOfReason, Matched, SendTimes, gaps_by_reason, match
from serd.bench.material import Material
from serd.bench.run import Observed, Settings
from serd.bench.tape import TICK_MS
from serd.types import BoolArray, Int64Array

# A generator that is a whole message late, more often than one time in a hundred, is too slow.
_LATE_MS = float(TICK_MS)
_SHED = "overload"
_SECOND_NS = 1_000_000_000


class _Run:
    """The segments of a run, and what is known of each."""

    def __init__(self, settings: Settings, material: Material, observed: Observed) -> None:
        silent = material.conversations.silent if settings.line.suppress_silence else None
        block = material.sample_rate_hz * TICK_MS // 1000
        self.times = SendTimes(
            observed.streams, list(observed.played), observed.due_ns, block, silent
        )
        self.expected: Expected = material.expect(observed.streams)
        self.matched: Matched = match(self.expected, observed.receiver)
        self.gaps: dict[str, GapsOfReason] = gaps_by_reason(observed.receiver)
        self.shed = (
            set(self.gaps[_SHED].last_ns) if settings.surge and _SHED in self.gaps else set[int]()
        )
        self.kept: BoolArray = ~np.isin(self.expected.stream, list(self.shed))
        self.decided_ns: Int64Array = self.times.sent_ns(
            self.expected.stream, self.expected.decided
        )
        self.latency_ms: FloatArray = (self.matched.at_ns - self.decided_ns) / 1e6
        begin_ns = self.times.tick_ns(settings.warm_ticks)
        end_ns = self.times.tick_ns(settings.ticks)
        measured = (begin_ns <= self.decided_ns) & (self.decided_ns < end_ns)
        self.told: BoolArray = self.matched.found & measured


def report(settings: Settings, material: Material, observed: Observed, bound_ms: float) -> Report:
    """The figures of a run; `bound_ms` is for the 99th percentile of the latency."""
    run = _Run(settings, material, observed)
    counters = observed.receiver.counters()
    final = counters[-1][1] if counters else {}
    messages = _messages(observed, final)
    events = _events(settings, run, observed)
    latency = Distribution.of(run.latency_ms[run.told])
    lateness = Distribution.of(np.concatenate([p.late_ns for p in observed.played]) / 1e6)
    surge = _surge(settings, run, final, bound_ms) if settings.surge else None
    problems = [
        *_losses(settings, observed, run, messages, events),
        *_delays(latency, surge, bound_ms),
    ]
    spoken = run.told & ~run.expected.closing
    ended_ns = run.times.sent_ns(run.expected.stream, run.expected.end)
    return Report(
        held=not problems,
        valid=bool(messages.waited_ms) or (lateness.p99 or 0.0) <= _LATE_MS,
        problems=tuple(problems),
        streams=settings.streams,
        seconds=settings.seconds,
        encoding=settings.encoding.name.lower(),
        socket=settings.socket,
        jitter_ms=settings.line.jitter_ms,
        loss=settings.line.loss,
        suppress_silence=settings.line.suppress_silence,
        speech_share=round(material.conversations.speech_share, 4),
        messages=messages,
        gaps={reason: gap.figures() for reason, gap in run.gaps.items()},
        events=events,
        bound_ms=bound_ms,
        latency_ms=latency,
        while_speaking_ms=Distribution.of((run.matched.at_ns - ended_ns)[spoken] / 1e6),
        cpu=_cpu(settings, observed, counters),
        memory=_memory(settings, observed),
        lateness_ms=lateness,
        queue_peaks={name: n for name, n in sorted(final.items()) if "peak" in name},
        surge=surge,
        daemon={name: str(observed.ready.get(name, "")) for name in ("model", "provider", "vad")},
        machine=process.machine(),
        counts=dict(sorted(final.items())),
        by_second=tuple(
            _by_second(observed, run.matched.at_ns[run.told], run.latency_ms[run.told])
        ),
    )


def _messages(observed: Observed, counts: dict[str, int]) -> Messages:
    total: Counter[str] = Counter()
    for played in observed.played:
        for name in ("messages", "withheld", "suppressed", "dropped", "waited_ns"):
            total[name] += getattr(played, name)
    received = counts.get("intake.messages", 0)
    sent = total["messages"]
    return Messages(
        sent=sent,
        received=received,
        lost=sent - received,
        dropped_by_taps=total["dropped"],
        withheld=total["withheld"],
        suppressed=total["suppressed"],
        waited_ms=round(total["waited_ns"] / 1e6, 1),
    )


def _events(settings: Settings, run: _Run, observed: Observed) -> Events:
    exact = settings.line.exact
    unexpected = ~np.isin(run.matched.unexpected, list(run.shed))
    return Events(
        exact=exact,
        expected=len(run.expected.stream),
        received=run.matched.received,
        missing=int((~run.matched.found & run.kept).sum()) if exact else None,
        unexpected=int(unexpected.sum()) if exact else None,
        utterances_expected=run.expected.utterances,
        by_type=observed.receiver.types(),
    )


def _losses(
    settings: Settings, observed: Observed, run: _Run, messages: Messages, events: Events
) -> Iterator[str]:
    """What was lost that should not have been, in words."""
    if not observed.closed:
        yield "some streams never ended"
    if not observed.stopped or observed.exit_status:
        yield f"the daemon did not stop in order (exit status {observed.exit_status})"
    if messages.lost:
        yield (
            f"{messages.lost} of {messages.sent} messages lost"
            + (f", {messages.dropped_by_taps} not taken" if messages.dropped_by_taps else "")
        )
    if messages.waited_ms:
        yield f"the taps had to wait for {messages.waited_ms:.0f} ms"
    if events.missing or events.unexpected:
        yield (
            f"{events.missing} of {events.expected} emotion events missing,"
            f" {events.unexpected} unexpected"
        )
    for reason, gap in sorted(run.gaps.items()):
        if reason == "lost" and gap.messages <= messages.withheld:
            continue
        if reason == _SHED and settings.surge:
            continue
        yield f"{gap.events} gaps ({reason}), {gap.lost_ms:.0f} ms on {len(gap.last_ns)} streams"


def _delays(latency: Distribution, surge: Surge | None, bound_ms: float) -> Iterator[str]:
    """What came too late, in words."""
    if latency.p99 is None:
        yield "no event came in the measured time: measure longer"
    elif latency.p99 > bound_ms:
        yield f"99th percentile of the latency {latency.p99:g} ms, over {bound_ms:g} ms"
    if surge is not None and (during := surge.during_ms.p99) is not None and during > bound_ms:
        yield f"99th percentile during the surge {during:g} ms, over {bound_ms:g} ms"
    if surge is not None and surge.recovered_s is None:
        yield "not recovered from the surge by the end"


def _surge(settings: Settings, run: _Run, counts: dict[str, int], bound_ms: float) -> Surge:
    times = run.times
    comes_ns, goes_ns = (times.tick_ns(tick) for tick in settings.surge_ticks)
    before = run.told & (run.decided_ns < comes_ns)
    after = run.told & (run.decided_ns >= goes_ns)
    shed = run.gaps.get(_SHED, GapsOfReason())
    # A stream that is taken back says so; one that is still shed when it ends says so then.
    taken_back = [at_ns for number, at_ns in shed.last_ns.items() if number < settings.streams]
    ordinary_ms = sum(ms for number, ms in shed.stream_ms.items() if number < settings.streams)
    late_ns = run.matched.at_ns[run.told & (run.latency_ms > bound_ms)].tolist()
    last_ns = max([goes_ns, *taken_back, *late_ns])
    return Surge(
        streams=settings.surge,
        streams_shed=len(shed.last_ns),
        ordinary_streams_shed=len(taken_back),
        shed_ms=round(shed.lost_ms, 1),
        ordinary_shed_ms=round(ordinary_ms, 1),
        counts={name: n for name, n in sorted(counts.items()) if name.startswith("overload.")},
        before_ms=Distribution.of(run.latency_ms[before]),
        during_ms=Distribution.of(run.latency_ms[run.told & ~before & ~after]),
        worst_second_ms=_worst_second(run, comes_ns, goes_ns + _SECOND_NS),
        after_ms=Distribution.of(run.latency_ms[after]),
        recovered_s=(
            round((last_ns - goes_ns) / 1e9, 2) if last_ns < times.tick_ns(settings.ticks) else None
        ),
    )


def _worst_second(run: _Run, begin_ns: int, end_ns: int) -> float | None:
    """The highest 99th percentile of a second between two moments."""
    found = (
        Distribution.of(
            run.latency_ms[
                run.told & (run.decided_ns >= at_ns) & (run.decided_ns < at_ns + _SECOND_NS)
            ]
        ).p99
        for at_ns in range(begin_ns, end_ns, _SECOND_NS)
    )
    return max((p99 for p99 in found if p99 is not None), default=None)


def _cpu(
    settings: Settings, observed: Observed, counters: Sequence[tuple[int, dict[str, int]]]
) -> Cpu:
    first, last = observed.samples[0], observed.samples[-1]
    wall_s = (last.at_ns - first.at_ns) / 1e9
    threads = {
        name: round((used - first.threads_s.get(name, 0.0)) / wall_s, 4)
        for name, used in sorted(last.threads_s.items())
    }
    daemon = (last.cpu_s - first.cpu_s) / wall_s
    # The generators' time is that of the whole run, in which they played so many messages.
    generator_ns = sum(played.cpu_ns for played in observed.played)
    messages = max(1, sum(played.messages for played in observed.played))
    a_message_us = generator_ns / messages / 1000
    subscriber = observed.own_cpu_s / wall_s
    generator = generator_ns / 1e9 / settings.longest_s
    vad, inference = (
        _compute_share(name, observed.samples, counters)
        for name in ("vad.compute_ns", "inference.compute_ns")
    )
    busy = (last.busy_s - first.busy_s) / wall_s
    return Cpu(
        daemon=round(daemon, 4),
        threads=threads,
        compute_share=None if vad is None or inference is None else round(vad + inference, 4),
        vad_share=vad,
        inference_share=inference,
        generator=round(generator, 4),
        generator_us_per_message=round(a_message_us, 3),
        subscriber=round(subscriber, 4),
        others=round(max(0.0, busy - daemon - generator - subscriber), 3),
    )


def _compute_share(
    name: str,
    samples: Sequence[process.Sample],
    counters: Sequence[tuple[int, dict[str, int]]],
) -> float | None:
    """Share of a counter of processor time in all that the daemon used.

    Between the first and the last time that the daemon told it while it was sampled.
    """
    told = [
        (at_ns, counts[name])
        for at_ns, counts in counters
        if name in counts and samples[0].at_ns <= at_ns <= samples[-1].at_ns
    ]
    if len(told) < 2:
        return None
    (begin_ns, before), (end_ns, after) = told[0], told[-1]
    at = [sample.at_ns for sample in samples]
    begin_s, end_s = np.interp([begin_ns, end_ns], at, [sample.cpu_s for sample in samples])
    return round((after - before) / 1e9 / max(end_s - begin_s, 1e-3), 4)


def _memory(settings: Settings, observed: Observed) -> Memory:
    grown = observed.full_kib - observed.alone_kib
    others = settings.streams - 1
    return Memory(
        observed.alone_kib,
        observed.full_kib,
        # A surge leaves memory behind that belongs to no stream.
        round(grown / others, 1) if others and not settings.surge else None,
        observed.samples[-1].rss_kib,
    )


def _by_second(observed: Observed, at_ns: Int64Array, latency_ms: FloatArray) -> Iterator[Second]:
    samples = observed.samples
    for before, after in pairwise(samples):
        within = latency_ms[(at_ns >= before.at_ns) & (at_ns < after.at_ns)]
        found = Distribution.of(within)
        yield Second(
            round((after.at_ns - samples[0].at_ns) / 1e9, 2),
            round((after.cpu_s - before.cpu_s) / ((after.at_ns - before.at_ns) / 1e9), 3),
            round(after.rss_kib / 1024, 1),
            found.p50,
            found.p99,
        )
