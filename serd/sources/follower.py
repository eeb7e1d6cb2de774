"""What becomes of a tap's messages once they are in order: the sequencer's steps, carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from serd.audio import pcm
from serd.clock import Clock
from serd.errors import MessageError
from serd.protocol.sequencer import Deliver, Duplicate, Late, Lost, Silence, Step
from serd.protocol.tap import Buffer, Flag, Header, Metadata, read_metadata
from serd.rows import Gap
from serd.sources.delivery import Delivery
from serd.sources.reception import Reception
from serd.sources.stream import TapStream


class Follower:
    """Carries out the steps of one tap after the other. Called by the ingest thread alone.

    Parameters
    ----------
    reception
        Hears what a tap says of its channels, and opens them.
    delivery
        Takes the samples and what is missing of them.
    close
        Ends a tap for a reason, at a monotonic time in ns.
    clock
        For taps that do not tell when they captured.
    counts
        Where to count messages and samples by what became of them.
    """

    def __init__(
        self,
        reception: Reception,
        delivery: Delivery,
        close: Callable[[TapStream, str, int], None],
        clock: Clock,
        counts: Counter[str],
    ) -> None:
        self._reception = reception
        self._delivery = delivery
        self._close = close
        self._clock = clock
        self._counts = counts

    def pause(self, tap: TapStream, sequence: int, now_ns: int) -> None:
        """A message with this sequence asks not to be analysed from it on."""
        if not tap.paused:
            self._delivery.settle(tap, now_ns)
        tap.pause(sequence, now_ns)

    def apply(self, tap: TapStream, step: Step[Buffer], now_ns: int) -> None:
        """Carry out a step of an open tap."""
        match step:
            case Deliver():
                self.deliver(tap, step, now_ns)
            case Lost(first_sample, samples, messages):
                self._counts["lost.messages"] += messages
                self._counts["lost.samples"] += samples
                gap = Gap("lost", first_sample, first_sample + samples, messages)
                self._skip(tap, gap.end, gap, now_ns)
            case Silence(first_sample, samples):
                self._counts["suppressed.samples"] += samples
                self._skip(tap, first_sample + samples, None, now_ns)
            case Duplicate(header):
                self._counts["duplicates"] += 1
                self._pause_late(tap, header, now_ns)
            case Late(header, samples, payload):
                self._counts["late"] += 1
                if samples:
                    first = header.first_sample
                    tap.tell(Gap("late", first, first + samples, 1))
                if header.flags & Flag.METADATA:
                    self._reception.heed(tap, _read(header, payload), now_ns)
                self._pause_late(tap, header, now_ns)

    def _pause_late(self, tap: TapStream, header: Header, now_ns: int) -> None:
        if header.flags & Flag.PAUSE and not tap.overtaken(header.sequence):
            self.pause(tap, header.sequence, now_ns)

    def _skip(self, tap: TapStream, to_index: int, gap: Gap | None, now_ns: int) -> None:
        if tap.begun:
            self._delivery.skip(tap, to_index, gap, now_ns)
        else:
            tap.miss(to_index, gap)

    def deliver(self, tap: TapStream, step: Deliver[Buffer], now_ns: int) -> None:
        """Carry out the next message in order."""
        header, payload = step.header, step.payload
        flags = header.flags
        if flags & Flag.METADATA:
            self._reception.learn(tap, _read(header, payload), now_ns)
        if flags & Flag.PAUSE:
            self.pause(tap, header.sequence, now_ns)
        elif flags & Flag.RESUME:
            unix_ns = header.captured_at_ns or self._clock.unix_ns()
            tap.resume(header.sequence, header.first_sample, unix_ns)
        if header.encoding and not flags & Flag.METADATA:
            self._samples(tap, step, now_ns)
        if flags & Flag.END:
            self._close(tap, "end", now_ns)

    def _samples(self, tap: TapStream, step: Deliver[Buffer], now_ns: int) -> None:
        header, payload = step.header, step.payload
        if not tap.begun:
            self._reception.begin(tap, header.encoding, header.captured_at_ns, now_ns)
        if not payload:
            return
        try:
            samples = pcm.decode(payload, header.encoding, header.channels)
        except MessageError as error:
            # The frame of the message was sound, so its place in the stream is kept.
            self._counts[f"malformed.{error.code}"] += 1
            gap = Gap(error.code, tap.next_index, tap.next_index + step.samples, 1)
            self._skip(tap, gap.end, gap, now_ns)
        else:
            self._delivery.append(tap, samples, header.captured_at_ns, now_ns)


def _read(header: Header, payload: Buffer) -> Metadata | None:
    """Metadata, or None where it cannot be read, which is counted already."""
    try:
        return read_metadata(header, payload)
    except MessageError:
        return None
