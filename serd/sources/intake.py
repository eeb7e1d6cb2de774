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
from dataclasses import dataclass
from functools import partial

import structlog

from serd.audio import pcm
from serd.clock import Clock
from serd.errors import MessageError
from serd.protocol.sequencer import (
    Deliver,
    Duplicate,
    Late,
    Lost,
    Restart,
    Sequencer,
    Silence,
    Step,
)
from serd.protocol.tap import (
    Buffer,
    Flag,
    Metadata,
    decode_message,
    decode_stream_id,
    parse_metadata,
)
from serd.rows import Gap, RowPool, StreamInfo
from serd.sources.admission import Admission
from serd.sources.base import Source, Tap
from serd.sources.burst import Burst
from serd.sources.delivery import Delivery
from serd.sources.lanes import Lanes
from serd.sources.stream import NO_LANE, ChannelRow, TapStream, changed_info
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
    refuse_roles
        Roles that no model may see.
    max_fill_ms
        Loss up to this is replaced by silence, in place; more ends the utterance.
    silence_ms
        How much of a suppressed silence is put into the row before the stream jumps: enough to
        end any utterance by itself.
    """

    max_streams: int = 1000
    idle_timeout_s: float = 30.0
    reorder_messages: int = 8
    refuse_roles: frozenset[Role] = frozenset({Role.AGENT})
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
        self._admission = Admission(
            pools, options.max_streams, options.refuse_roles, on_refused, self.counts
        )
        self._taps: dict[tuple[str, str], TapStream] = {}
        self._delivery = Delivery(options.max_fill_ms, options.silence_ms, clock, self.counts)
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
            message = decode_message(parts)
        except MessageError as error:
            self.counts[f"malformed.{error.code}"] += 1
            return True
        key = source.name, message.stream
        tap = self._taps.get(key)
        if tap is not None and tap.lane != NO_LANE:
            self._lanes.settle(tap)
        if source.lossless and tap is not None and tap.waiting and not tap.flush_pending(now_ns):
            self._held_ns[source.name] = now_ns
            return False
        self.counts["messages"] += 1
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

    def _known(self, source: Source, raw_id: bytes) -> TapStream | None:
        """The open tap of an id as it is in a message."""
        try:
            return self._taps.get((source.name, decode_stream_id(raw_id)))
        except MessageError:
            return None

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
        for step in steps:
            if isinstance(step, Restart):
                if tap is not None:
                    self._close(tap, "restarted", now_ns)
                self.counts[f"restarts.{step.reason}"] += 1
                tap = None
            elif isinstance(step, Deliver) and tap is None:
                tap = self._open(source, stream, step, roles, sequencer)
                self._deliver(tap, step, now_ns)
            elif tap is not None:
                self._apply(tap, step, now_ns)
        return tap

    def _open(
        self,
        source: Source,
        stream: str,
        first: Deliver[Buffer],
        roles: Sequence[Role],
        sequencer: Sequencer[Buffer],
    ) -> TapStream:
        header = first.header
        metadata = Metadata()
        if header.flags & Flag.METADATA:
            metadata = parse_metadata(first.payload, header.channels)
        return self.open_stream(
            source,
            stream,
            header.sample_rate_hz,
            header.channels,
            metadata.roles or roles,
            header.encoding,
            header.captured_at_ns,
            metadata.call_id,
            metadata.labels,
            first_sample=header.first_sample,
            sequencer=sequencer,
        )

    def _apply(self, tap: TapStream, step: Step[Buffer], now_ns: int) -> None:
        match step:
            case Deliver():
                self._deliver(tap, step, now_ns)
            case Lost(first_sample, samples, messages):
                self.counts["lost.messages"] += messages
                self.counts["lost.samples"] += samples
                gap = Gap("lost", first_sample, first_sample + samples, messages)
                self._delivery.skip(tap, gap.end, gap, now_ns)
            case Silence(first_sample, samples):
                self.counts["suppressed.samples"] += samples
                self._delivery.skip(tap, first_sample + samples, None, now_ns)
            case Duplicate():
                self.counts["duplicates"] += 1
            case Late(header, samples):
                self.counts["late"] += 1
                if samples:
                    first = header.first_sample
                    tap.tell(Gap("late", first, first + samples, 1))

    def _deliver(self, tap: TapStream, step: Deliver[Buffer], now_ns: int) -> None:
        header, payload = step.header, step.payload
        flags = header.flags
        if flags & Flag.METADATA:
            self._change(tap, parse_metadata(payload, header.channels), now_ns)
        if flags & Flag.PAUSE and not tap.paused:
            self._delivery.settle(tap, now_ns)
            tap.pause(now_ns)
        elif flags & Flag.RESUME and tap.paused:
            unix_ns = header.captured_at_ns or self._clock.unix_ns()
            tap.resume(max(header.first_sample, tap.next_index), unix_ns)
        if payload and not flags & Flag.METADATA:
            try:
                samples = pcm.decode(payload, header.encoding, header.channels)
            except MessageError as error:
                # The frame of the message was sound, so its place in the stream is kept.
                self.counts[f"malformed.{error.code}"] += 1
                gap = Gap(error.code, tap.next_index, tap.next_index + step.samples, 1)
                self._delivery.skip(tap, gap.end, gap, now_ns)
            else:
                self._delivery.append(tap, samples, header.captured_at_ns, now_ns)
        if flags & Flag.END:
            self._close(tap, "end", now_ns)

    def _change(self, tap: TapStream, metadata: Metadata, now_ns: int) -> None:
        infos: list[StreamInfo | None] = []
        for number, info in enumerate(tap.infos()):
            changed = None if info is None else changed_info(info, metadata)
            if changed is not None and self._admission.may_not_be_heard(changed.role):
                reason = f"role_{changed.role}"
                self._close_channel(tap, number, reason, now_ns, refused=True)
                changed = None
            infos.append(changed)
        tap.change(infos)

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
        *,
        first_sample: int = 0,
        sequencer: Sequencer[Buffer] | None = None,
    ) -> TapStream:
        """See `serd.sources.base.Intake.open_stream`; a tap also has a first index and an order."""
        unix_ns = captured_at_ns or self._clock.unix_ns()
        rows: list[ChannelRow | None] = []
        for number in range(channels):
            info = StreamInfo(
                stream=stream if channels == 1 else f"{stream}/{number}",
                source=source.name,
                channel=number,
                channels=channels,
                sample_rate_hz=sample_rate_hz,
                encoding=encoding.name.lower(),
                role=roles[number] if number < len(roles) else Role.UNKNOWN,
                call_id=call_id,
                labels=dict(labels or {}),
            )
            row = self._admission.admit(info, first_sample, source.lossless)
            if row is not None:
                row.anchor(first_sample, unix_ns)
            rows.append(row)
        now_ns = self._clock.monotonic_ns()
        tap = TapStream(
            stream, source, sample_rate_hz, roles, rows, first_sample, sequencer, now_ns
        )
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
        self._delivery.settle(tap, now_ns)
        for number in range(len(tap.channels)):
            self._close_channel(tap, number, reason, now_ns)
        key = tap.source.name, tap.stream
        if self._taps.get(key) is tap:
            del self._taps[key]
        self._delivery.forget(tap)

    def _close_channel(
        self, tap: TapStream, number: int, reason: str, now_ns: int, *, refused: bool = False
    ) -> None:
        channel = tap.close_channel(number, reason, refused, now_ns)
        if channel is not None:
            self._admission.leave(channel, reason if refused else None)
            self._delivery.leave(channel)

    def flush_pending(self, now_ns: int) -> bool:
        """Write what waits for room, of every stream; return whether nothing waits any more."""
        return self._delivery.flush_pending(now_ns)

    def sweep(self, now_ns: int) -> None:
        """Close the taps that have been silent for longer than the time-out."""
        timeout_ns = int(self._options.idle_timeout_s * _NS)
        for tap in list(self._taps.values()):
            heard_ns = max(self._lanes.heard_ns(tap), self._held_ns.get(tap.source.name, 0))
            if tap.sequencer is not None and now_ns - heard_ns > timeout_ns:
                self._finish(tap, "timeout", now_ns)

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
