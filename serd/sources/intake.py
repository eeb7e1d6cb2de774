"""The intake: every source's audio, brought into rows of one native rate or the other.

It keeps the table of open streams, undoes what the transport did to a tap's messages (order,
doubles, loss, restarts), applies who may be analysed and how many, and turns samples of any
encoding and rate into int16 rows. One thread calls it, the ingest thread.

What happens when a row is full: a lossless source is told to wait (`StreamTable.message` returns
False and is called again with the same message), of any other the message is dropped and
counted, and the gap that it leaves is told with the reason ``overload``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from serd.clock import Clock
from serd.errors import MessageError
from serd.protocol.sequencer import Deliver, Restart, Sequencer, Step
from serd.protocol.tap import (
    Buffer,
    Flag,
    Header,
    decode_frame,
    decode_stream_id,
    pause_in_vain,
    read_metadata,
)
from serd.rows import Gap, RowPool, StreamInfo
from serd.sources.admission import Admission
from serd.sources.base import Source, Tap
from serd.sources.burst import Burst
from serd.sources.delivery import Delivery
from serd.sources.follower import Follower
from serd.sources.lanes import Lanes
from serd.sources.policy import Policy
from serd.sources.reception import Reception
from serd.sources.stream import NO_LANE, TapStream
from serd.types import Encoding, Int16Array, Role

_log = structlog.get_logger(__name__)

_NS = 1_000_000_000
_TAPS_PER_STREAM = 4


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """Limits and policy of the intake.

    Attributes
    ----------
    max_streams
        Most streams (channels) at once; more are refused.
    idle_timeout_s
        A tap that sends nothing for so long is closed.
    reorder_messages
        How far ahead of a missing message others are held back for it.
    policy
        Who may be heard.
    max_fill_ms
        Loss up to this is replaced by silence, in place; more ends the utterance.
    silence_ms
        How much of a suppressed silence is put into the row before the stream jumps: enough to
        end any utterance by itself.
    """

    max_streams: int = 1000
    idle_timeout_s: float = 30.0
    reorder_messages: int = 8
    policy: Policy = field(default_factory=Policy)
    max_fill_ms: int = 500
    silence_ms: int = 1000


class StreamTable:
    """All open streams of a daemon; implements `serd.sources.base.Intake`.

    Parameters
    ----------
    pools
        A row pool for each native rate.
    options
        Limits and policy.
    clock
        For time-outs and for taps that do not tell when they captured.
    on_refused
        Called with the info of a stream, the source index and the reason, when one is refused.
    """

    def __init__(
        self,
        pools: Mapping[int, RowPool],
        options: IntakeOptions,
        clock: Clock,
        on_refused: Callable[[StreamInfo, int, str], None],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._options = options
        self._clock = clock
        self._admission = Admission(pools, options.max_streams, on_refused, self.counts)
        self._taps: dict[tuple[str, str], TapStream] = {}
        self._delivery = Delivery(options.max_fill_ms, options.silence_ms, clock, self.counts)
        self._reception = Reception(options.policy, self._admission, self._delivery, clock)
        self._follower = Follower(self._reception, self._delivery, self._close, clock, self.counts)
        self._rejudge = False
        # What taps said that fell silent, by the same key as theirs; the oldest is forgotten.
        self._silent: dict[tuple[str, str], TapStream] = {}
        self._lanes = Lanes(pools.values())
        # When each source last had to wait: what it brings is then behind, not silent.
        self._held_ns: dict[str, int] = {}

    @property
    def streams(self) -> int:
        """Streams (channels) that are open."""
        return len(self._admission)

    # taps

    def message(
        self, source: Source, parts: Sequence[bytes], roles: Sequence[Role], now_ns: int
    ) -> bool:
        """See `serd.sources.base.Intake.message`."""
        try:
            message = decode_frame(parts)
        except MessageError as error:
            self.counts[f"malformed.{error.code}"] += 1
            self._pause_in_vain(source, parts, now_ns)
            return True
        key = source.name, message.stream
        tap = self._taps.get(key)
        if tap is not None and tap.lane != NO_LANE:
            self._lanes.settle(tap)
        if source.lossless and tap is not None and tap.waiting and not tap.flush_pending(now_ns):
            self._held_ns[source.name] = now_ns
            return False
        self.counts["messages"] += 1
        if message.header.flags & Flag.METADATA:
            self._check_metadata(message.header, message.payload)
        if tap is None:
            if message.header.flags & Flag.END and not message.samples:
                self.counts["end_of_unknown"] += 1
                return True
            if len(self._taps) >= _TAPS_PER_STREAM * self._options.max_streams:
                # Refused streams are remembered so that each is told once. A publisher that
                # invents ids without end must not make that memory grow.
                self.counts["refused.table_full"] += 1
                return True
            sequencer: Sequencer[Buffer] = Sequencer(self._options.reorder_messages)
        else:
            tap.last_ns = now_ns
            assert tap.sequencer is not None, "streams of taps have a sequencer"
            sequencer = tap.sequencer
        steps = sequencer.push(message.header, message.samples, message.payload)
        try:
            self._follow(tap, steps, source, message.stream, roles, sequencer, now_ns)
        except Exception:
            # A mistake of ours in one stream must not become the end of all the others.
            _log.exception("stream.failed", source=source.name)
            self.counts["internal_errors"] += 1
            broken = self._taps.get(key)
            if broken is not None:
                self._close(broken, "internal_error", now_ns)
        return True

    def messages(self, source: Source, burst: Burst, roles: Sequence[Role], now_ns: int) -> int:
        """See `serd.sources.base.Intake.messages`."""
        taken, plain = self._lanes.take(
            source.name,
            burst,
            partial(self._known, source),
            lambda parts: self.message(source, parts, roles, now_ns),
            now_ns,
        )
        self.counts["messages"] += plain
        return taken

    def refuse(
        self, source: Source, parts: Sequence[bytes], roles: Sequence[Role], reason: str
    ) -> None:
        """See `serd.sources.base.Intake.refuse`."""
        try:
            message = decode_frame(parts)
        except MessageError as error:
            self.counts[f"malformed.{error.code}"] += 1
            return
        header, several = message.header, message.header.channels > 1
        for number in range(header.channels):
            info = StreamInfo(
                stream=f"{message.stream}/{number}" if several else message.stream,
                source=source.name,
                channel=number,
                channels=header.channels,
                sample_rate_hz=header.sample_rate_hz,
                encoding=header.encoding.name.lower(),
                role=roles[number] if number < len(roles) else Role.UNKNOWN,
            )
            self._admission.refuse(info, header.first_sample, reason)

    def _known(self, source: Source, raw_id: bytes) -> TapStream | None:
        """The open tap of an id as it is in a message."""
        try:
            return self._taps.get((source.name, decode_stream_id(raw_id)))
        except MessageError:
            return None

    def _pause_in_vain(self, source: Source, parts: Sequence[bytes], now_ns: int) -> None:
        sequence = pause_in_vain(parts)
        tap = None if sequence is None else self._known(source, parts[0])
        if tap is not None and sequence is not None:
            if tap.lane != NO_LANE:
                self._lanes.settle(tap)
            self._follower.pause(tap, sequence, now_ns)

    def _check_metadata(self, header: Header, payload: Buffer) -> None:
        """Count what cannot be read. The message keeps its place: what it means is not to hear."""
        try:
            read_metadata(header, payload)
        except MessageError as error:
            self.counts[f"malformed.{error.code}"] += 1

    def _follow(
        self,
        tap: TapStream | None,
        steps: Sequence[Step[Buffer]],
        source: Source,
        stream: str,
        roles: Sequence[Role],
        sequencer: Sequencer[Buffer],
        now_ns: int,
    ) -> TapStream | None:
        before: TapStream | None = None
        for step in steps:
            if isinstance(step, Restart):
                if tap is not None:
                    self._close(tap, "restarted", now_ns)
                self.counts[f"restarts.{step.reason}"] += 1
                before, tap = tap, None
            elif isinstance(step, Deliver) and tap is None:
                tap = self._announce(source, stream, step.header, roles, sequencer, before, now_ns)
                self._follower.deliver(tap, step, now_ns)
            elif tap is not None:
                self._follower.apply(tap, step, now_ns)
        return tap

    def _announce(
        self,
        source: Source,
        stream: str,
        first: Header,
        roles: Sequence[Role],
        sequencer: Sequencer[Buffer],
        before: TapStream | None,
        now_ns: int,
    ) -> TapStream:
        key = source.name, stream
        tap = self._reception.announce(
            source,
            stream,
            first.sample_rate_hz,
            first.channels,
            roles,
            first_sample=first.first_sample,
            sequencer=sequencer,
        )
        before = self._silent.pop(key, before)
        if before is not None and not first.flags & Flag.START:
            # The tap did not say that it begins anew, so what it said before still holds.
            self._reception.inherit(tap, before, first.sequence)
        if not first.flags & Flag.METADATA:
            self._reception.review(tap, now_ns)
        self._taps[key] = tap
        return tap

    # any source

    def open_stream(
        self,
        source: Source,
        stream: str,
        sample_rate_hz: int,
        channels: int,
        roles: Sequence[Role],
        encoding: Encoding,
        captured_at_ns: int,
        call_id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> TapStream:
        """See `serd.sources.base.Intake.open_stream`."""
        tap = self._reception.announce(
            source, stream, sample_rate_hz, channels, roles, call_id, labels
        )
        now_ns = self._clock.monotonic_ns()
        self._reception.review(tap, now_ns)
        self._reception.begin(tap, encoding, captured_at_ns, now_ns)
        self._taps[source.name, stream] = tap
        return tap

    def room(self, tap: Tap) -> int:
        """See `serd.sources.base.Intake.room`."""
        return _own(tap).room()

    def push(self, tap: Tap, samples: Int16Array, captured_at_ns: int) -> None:
        """See `serd.sources.base.Intake.push`."""
        stream = _own(tap)
        now_ns = self._clock.monotonic_ns()
        stream.last_ns = now_ns
        fits = min(len(samples), stream.room())
        if fits:
            self._delivery.append(stream, samples[:fits], captured_at_ns, now_ns)
        if fits < len(samples):
            self._delivery.shed(stream, len(samples) - fits)

    def lose(self, tap: Tap, samples: int, reason: str) -> None:
        """See `serd.sources.base.Intake.lose`."""
        stream = _own(tap)
        self.counts[f"{reason}.samples"] += samples
        gap = Gap(reason, stream.next_index, stream.next_index + samples, 0)
        self._delivery.skip(stream, gap.end, gap, self._clock.monotonic_ns())

    def close_stream(self, tap: Tap, reason: str) -> None:
        """See `serd.sources.base.Intake.close_stream`."""
        self._close(_own(tap), reason, self._clock.monotonic_ns())

    # the ingest thread's own

    def _close(self, tap: TapStream, reason: str, now_ns: int) -> None:
        if not tap.begun:
            # Nobody hears of a stream but by its opening.
            self._reception.begin(tap, Encoding.NONE, 0, now_ns)
        self._delivery.settle(tap, now_ns)
        for number in range(len(tap.channels)):
            self._reception.close_channel(tap, number, reason, now_ns)
        key = tap.source.name, tap.stream
        if self._taps.get(key) is tap:
            del self._taps[key]
        self._delivery.forget(tap)

    def flush_pending(self, now_ns: int) -> bool:
        """Write what waits for room, of every stream; return whether nothing waits any more."""
        return self._delivery.flush_pending(now_ns)

    def adopt(self, policy: Policy) -> None:
        """Judge by other rules: new streams at once, open ones at the next `sweep`. Any thread."""
        self._reception.policy = policy
        self._rejudge = True

    def _judge_anew(self, now_ns: int) -> None:
        self._rejudge = False
        for tap in list(self._taps.values()):
            if tap.lane != NO_LANE:
                self._lanes.settle(tap)
            self._delivery.settle(tap, now_ns)
            self._reception.review(tap, now_ns)

    def sweep(self, now_ns: int) -> None:
        """Close the taps that have been silent for longer than the time-out."""
        if self._rejudge:
            self._judge_anew(now_ns)
        timeout_ns = int(self._options.idle_timeout_s * _NS)
        for tap in list(self._taps.values()):
            heard_ns = max(self._lanes.heard_ns(tap), self._held_ns.get(tap.source.name, 0))
            if tap.sequencer is not None and now_ns - heard_ns > timeout_ns:
                self._finish(tap, "timeout", now_ns)
                self._silent[tap.source.name, tap.stream] = tap
        while len(self._silent) > _TAPS_PER_STREAM * self._options.max_streams:
            del self._silent[next(iter(self._silent))]

    def close_source(self, source: Source, reason: str) -> None:
        """Close every stream of a source."""
        now_ns = self._clock.monotonic_ns()
        for tap in list(self._taps.values()):
            if tap.source.name == source.name:
                self._finish(tap, reason, now_ns)

    def _finish(self, tap: TapStream, reason: str, now_ns: int) -> None:
        last: TapStream | None = tap
        if tap.lane != NO_LANE:
            self._lanes.settle(tap)
        if tap.sequencer is not None:
            # What the sequencer still holds back came before the end.
            steps = tap.sequencer.flush()
            last = self._follow(
                tap, steps, tap.source, tap.stream, tap.roles, tap.sequencer, now_ns
            )
        if last is not None:
            self._close(last, reason, now_ns)


def _own(tap: Tap) -> TapStream:
    assert isinstance(tap, TapStream), "a handle that this intake did not give out"
    return tap
