"""One source stream on the ingest thread's side: its channels and where each stands in its row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serd.audio.resample import StreamResampler
from serd.protocol.sequencer import MAX_MISORDER, Sequencer
from serd.protocol.tap import SEQUENCE_MODULUS, Buffer
from serd.rows import (
    Changed,
    Close,
    Filled,
    Gap,
    Jump,
    Open,
    Paused,
    Resumed,
    RowPool,
    StreamInfo,
    Timeline,
    Told,
)
from serd.sources.base import Source
from serd.sources.policy import Standing
from serd.types import Int16Array, Role

NO_LANE = -1
NO_SEQUENCE = -1
_HALF = SEQUENCE_MODULUS // 2


class ChannelRow:
    """One channel that is being analysed, bound to a row of a pool."""

    def __init__(
        self, pool: RowPool, row: int, info: StreamInfo, source_index: int, patient: bool
    ) -> None:
        self.pool = pool
        self.row = row
        self.info = info
        # Where the next sample goes, counting what is still pending.
        self.end = int(pool.ring.written[row])
        self.pending: list[Int16Array] = []
        self.timeline = self._timeline(source_index)
        self._resampler = self._make_resampler()
        # Source samples of this timeline that the resampler was given.
        self._resampled = 0
        pool.patient[row] = patient
        pool.control(row, Open(self.end, info, self.timeline))

    def _timeline(self, source_index: int) -> Timeline:
        return Timeline(self.end, source_index, self.pool.rate_hz, self.info.sample_rate_hz)

    def _make_resampler(self) -> StreamResampler | None:
        if self.info.sample_rate_hz == self.pool.rate_hz:
            return None
        return StreamResampler(self.info.sample_rate_hz, self.pool.rate_hz)

    def append(self, samples: Int16Array, now_ns: int) -> None:
        """Append source samples ``[n]``; what the row cannot hold yet stays pending."""
        if self._resampler is not None:
            self._resampled += len(samples)
            samples = self._resampler.push(samples)
        self._write(samples, now_ns)

    def _write(self, samples: Int16Array, now_ns: int) -> None:
        self.end += len(samples)
        if self.pending:
            self.pending.append(samples.copy())
            return
        before = int(self.pool.ring.written[self.row])
        taken = self.pool.ring.write(self.row, samples)
        if taken:
            self.pool.mark_arrival(self.row, before, before + taken, now_ns)
        if taken < len(samples):
            self.pending.append(samples[taken:].copy())

    def flush_pending(self, now_ns: int) -> None:
        """Write what waits, as far as the row has room."""
        waiting, self.pending = self.pending, []
        self.end -= sum(len(samples) for samples in waiting)
        for samples in waiting:
            self._write(samples, now_ns)

    def finish_run(self, now_ns: int) -> None:
        """Bring the resampler's tail into the row, before the stream ends or jumps."""
        if self._resampler is not None:
            self._write(self._resampler.finish(), now_ns)
            self._resampler = self._make_resampler()

    def restart_timeline(self, source_index: int) -> Timeline:
        """Begin a new timeline here; the caller queues the control that carries it."""
        self.timeline = self._timeline(source_index)
        self._resampled = 0
        return self.timeline

    @property
    def source_end(self) -> int:
        """Source index after what was appended, to the sample at every rate."""
        if self._resampler is None:
            return self.timeline.source_index(self.end)
        return self.timeline.source + self._resampled

    def room(self) -> int:
        """Source samples that fit right now."""
        if self.pending:
            return 0
        free = self.pool.ring.free(self.row)
        if self._resampler is None:
            return free
        # A resampler may hand out what it held back together with what it is given.
        return max(0, free - self.pool.frame) * self.info.sample_rate_hz // self.pool.rate_hz

    def in_step(self, source_index: int) -> bool:
        """Whether samples from a source index on would go into the row as they are, right now.

        They would not while something was shed before them: its place must be left first.
        """
        return (
            self._resampler is None
            and not self.pending
            and self.timeline.ring_index(source_index) == self.end
        )

    def anchor(self, source_index: int, unix_ns: int) -> None:
        """Note when the sample of a source index was captured."""
        self.pool.anchor(self.row, self.timeline.ring_index(source_index), unix_ns)


class TapStream:
    """All channels of one source stream.

    A channel that policy or capacity refused has no row and its audio is discarded unseen. None
    has one until the encoding is known, which for a tap is when its first samples come
    (`begun`): what is missing before them is kept in `missing`.

    While `lane` is not `NO_LANE`, the truth about the stream's place is elsewhere: see
    `serd.sources.lanes`.
    """

    def __init__(
        self,
        stream: str,
        source: Source,
        sample_rate_hz: int,
        roles: Sequence[Role],
        standings: Sequence[Standing],
        first_index: int,
        sequencer: Sequencer[Buffer] | None,
        now_ns: int,
    ) -> None:
        self.stream = stream
        self.source = source
        self.sample_rate_hz = sample_rate_hz
        self.roles = roles
        self.standings = list(standings)
        self.channels: list[ChannelRow | None] = [None] * len(self.standings)
        self.next_index = first_index
        self.sequencer = sequencer
        self.last_ns = now_ns
        self.paused = False
        self.begun = False
        self.missing = Gap("", first_index, first_index, 0)
        self.lane = NO_LANE
        self._paused_by = NO_SEQUENCE
        self._resumed_by = NO_SEQUENCE

    def plain_row(self) -> ChannelRow | None:
        """The row to which this stream's audio goes as it comes, if it is the only one."""
        channel = self.channels[0] if len(self.channels) == 1 else None
        if channel is None or self.paused or not channel.in_step(self.next_index):
            return None
        return channel

    def advance(self, samples: int, now_ns: int) -> None:
        """Take note that samples were written to the `plain_row`, the last of them at `now_ns`."""
        channel = self.channels[0]
        assert channel is not None, "a stream with a plain row has it to its end"
        self.next_index += samples
        channel.end += samples
        self.last_ns = now_ns

    @property
    def live(self) -> list[ChannelRow]:
        """Channels that are analysed."""
        return [channel for channel in self.channels if channel is not None]

    @property
    def waiting(self) -> bool:
        """Whether audio waits for room in a row."""
        return any(channel is not None and channel.pending for channel in self.channels)

    def room(self) -> int:
        """Source samples per channel that fit right now."""
        return min((channel.room() for channel in self.live), default=1 << 30)

    def flush_pending(self, now_ns: int) -> bool:
        """Write what waits; return whether nothing waits any more."""
        for channel in self.live:
            if channel.pending:
                channel.flush_pending(now_ns)
        return not self.waiting

    def append(self, samples: Int16Array, captured_at_ns: int, now_ns: int) -> None:
        """Append consecutive samples, int16 ``[n, channels]``."""
        for number, channel in enumerate(self.channels):
            if channel is not None:
                if captured_at_ns:
                    channel.anchor(self.next_index, captured_at_ns)
                channel.append(samples[:, number], now_ns)
        self.next_index += len(samples)

    def fill(self, samples: int, gap: Gap | None, now_ns: int) -> None:
        """Put silence in the place of `samples` per channel; a `gap` marks them as lost."""
        zeros = np.zeros(samples, np.int16)
        for channel in self.live:
            if gap is not None:
                channel.pool.control(channel.row, Filled(channel.end, gap))
            channel.append(zeros, now_ns)
        self.next_index += samples

    def jump(
        self, source_index: int, reason: str, gap: Gap | None, unix_ns: int, now_ns: int
    ) -> None:
        """Go on at another source index; an open utterance ends."""
        self.next_index = source_index
        for channel in self.live:
            channel.finish_run(now_ns)
            source_end = channel.source_end
            timeline = channel.restart_timeline(source_index)
            channel.anchor(source_index, unix_ns)
            jump = Jump(channel.end, source_end, reason, timeline, gap)
            channel.pool.control(channel.row, jump)

    def tell(self, gap: Gap) -> None:
        """Tell subscribers of audio that was dropped without a trace in the rows."""
        for channel in self.live:
            channel.pool.control(channel.row, Told(channel.end, gap))

    def change(self) -> None:
        """Bring what the standings say into the rows."""
        for channel, standing in zip(self.channels, self.standings, strict=True):
            if channel is not None and channel.info != standing.info:
                channel.info = standing.info
                channel.pool.control(channel.row, Changed(channel.end, standing.info))

    def miss(self, to_index: int, gap: Gap | None) -> None:
        """Note, before the first samples, that those up to an index will never come."""
        self.next_index = to_index
        if not self.paused:
            before = self.missing
            reason = before.reason if gap is None else gap.reason
            messages = before.messages + (0 if gap is None else gap.messages)
            self.missing = Gap(reason, before.start, to_index, messages)

    def pause(self, sequence: int, now_ns: int) -> None:
        """Stop analysing; audio until `resume` is discarded unseen. Twice is once."""
        self._paused_by = sequence
        if not self.paused:
            self.paused = True
            for channel in self.live:
                self.pause_channel(channel, now_ns)

    @staticmethod
    def pause_channel(channel: ChannelRow, now_ns: int) -> None:
        """End what is being analysed of one channel."""
        channel.finish_run(now_ns)
        channel.pool.control(channel.row, Paused(channel.end, channel.source_end))

    def overtaken(self, pause: int) -> bool:
        """Whether a pause that comes too late was followed by a resume that was heeded."""
        behind = (self._resumed_by - pause) % SEQUENCE_MODULUS
        return self._resumed_by != NO_SEQUENCE and 0 < behind <= MAX_MISORDER

    def resume(self, sequence: int, source_index: int, unix_ns: int) -> None:
        """Go on analysing at a source index, unless the newest pause is a later message."""
        if self.paused and (sequence - self._paused_by) % SEQUENCE_MODULUS > _HALF:
            return
        self._resumed_by = sequence
        if not self.paused:
            return
        self.paused = False
        self.next_index = max(source_index, self.next_index)
        if not self.begun:
            self.missing = Gap("", self.next_index, self.next_index, 0)
        for channel in self.live:
            timeline = channel.restart_timeline(self.next_index)
            channel.anchor(self.next_index, unix_ns)
            channel.pool.control(channel.row, Resumed(channel.end, timeline))

    def close_channel(
        self, number: int, reason: str, refused: bool, now_ns: int
    ) -> ChannelRow | None:
        """End one channel and return it, for what of it may still be pending.

        The row is given back by the speech thread, when it has come to the end.
        """
        channel = self.channels[number]
        if channel is not None:
            channel.finish_run(now_ns)
            close = Close(channel.end, channel.source_end, reason, refused)
            channel.pool.control(channel.row, close)
            self.channels[number] = None
        return channel
