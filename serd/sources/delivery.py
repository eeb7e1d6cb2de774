"""Audio into the rows of a stream, or the gap that it leaves there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from serd.clock import Clock
from serd.rows import Gap
from serd.sources.stream import ChannelRow, TapStream
from serd.types import Int16Array


@dataclass(frozen=True, slots=True)
class Shed:
    """Audio of a stream that was dropped because its row was full, not told yet."""

    start: int
    messages: int


class Delivery:
    """Appends audio and keeps every stream's positions true through what is missing.

    Parameters
    ----------
    max_fill_ms
        Loss up to this is replaced by silence, in place; more ends the utterance.
    silence_ms
        How much of a suppressed silence is put into the row before the stream jumps.
    clock
        Anchors streams that jump.
    counts
        Where to count samples and messages by what became of them.
    """

    def __init__(
        self, max_fill_ms: int, silence_ms: int, clock: Clock, counts: Counter[str]
    ) -> None:
        self._max_fill_ms = max_fill_ms
        self._silence_ms = silence_ms
        self._clock = clock
        self._counts = counts
        self._shed: dict[TapStream, Shed] = {}
        # Only those that wait: a look at every tap in every round would cost more than the audio.
        self._waiting: set[TapStream] = set()
        self._leftovers: list[ChannelRow] = []

    def append(self, tap: TapStream, samples: Int16Array, captured_at_ns: int, now_ns: int) -> None:
        """Append int16 ``[n, channels]`` at the stream's next index."""
        if tap.paused:
            tap.next_index += len(samples)
            self._counts["paused.samples"] += len(samples)
            return
        if tap.waiting and not tap.flush_pending(now_ns) and not tap.source.lossless:
            # A lossless source was asked to wait already: what it still brings is what the
            # sequencer had held back, a window of messages at most.
            self.shed(tap, len(samples))
            return
        self.settle(tap, now_ns)
        tap.append(samples, captured_at_ns, now_ns)
        self._note(tap)

    def shed(self, tap: TapStream, samples: int) -> None:
        """Drop samples for want of room. They are told when the stream goes on, or ends."""
        before = self._shed.get(tap, Shed(tap.next_index, 0))
        self._shed[tap] = Shed(before.start, before.messages + 1)
        tap.next_index += samples
        self._counts["overload.messages"] += 1
        self._counts["overload.samples"] += samples

    def settle(self, tap: TapStream, now_ns: int) -> None:
        """Tell what was shed, in one gap, and leave its place in the stream."""
        shed = self._shed.pop(tap, None)
        if shed is not None:
            end = tap.next_index
            tap.next_index = shed.start
            self._leave(tap, end, Gap("overload", shed.start, end, shed.messages), now_ns)

    def skip(self, tap: TapStream, to_index: int, gap: Gap | None, now_ns: int) -> None:
        """Go on at a later index: past lost audio (`gap`), or past suppressed silence (None)."""
        if tap.paused:
            tap.next_index = to_index
            return
        self.settle(tap, now_ns)
        self._leave(tap, to_index, gap, now_ns)

    def _leave(self, tap: TapStream, to_index: int, gap: Gap | None, now_ns: int) -> None:
        samples = to_index - tap.next_index
        limit_ms = self._silence_ms if gap is None else self._max_fill_ms
        limit = limit_ms * tap.sample_rate_hz // 1000
        if samples <= limit:
            tap.fill(samples, gap, now_ns)
        else:
            if gap is None:
                tap.fill(limit, None, now_ns)
            reason = "silence" if gap is None else "gap"
            tap.jump(to_index, reason, gap, self._clock.unix_ns(), now_ns)
        self._note(tap)

    def _note(self, tap: TapStream) -> None:
        if tap.waiting:
            self._waiting.add(tap)

    def forget(self, tap: TapStream) -> None:
        """The stream has ended."""
        self._waiting.discard(tap)

    def leave(self, channel: ChannelRow) -> None:
        """The channel has ended; what of it waits for room is still written."""
        if channel.pending:
            self._leftovers.append(channel)

    def flush_pending(self, now_ns: int) -> bool:
        """Write what waits for room; return whether nothing waits any more."""
        for channel in self._leftovers:
            channel.flush_pending(now_ns)
        self._leftovers = [channel for channel in self._leftovers if channel.pending]
        self._waiting = {tap for tap in self._waiting if not tap.flush_pending(now_ns)}
        return not self._waiting and not self._leftovers
