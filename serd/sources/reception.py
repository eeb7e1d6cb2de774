"""From what a tap says of its channels to the rows that they get, or to their refusal.

A channel is judged by `serd.sources.policy` whenever its tap says something: before its first
sample, and again with every metadata message. One that was refused for its role or for want of
consent may be opened later, when the tap says that it may; one that is open is ended when the tap
says that it may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from serd.clock import Clock
from serd.protocol.sequencer import Sequencer
from serd.protocol.tap import Buffer, Metadata
from serd.rows import StreamInfo
from serd.sources.admission import Admission
from serd.sources.base import Source
from serd.sources.delivery import Delivery
from serd.sources.policy import METADATA_INVALID, Policy, Standing
from serd.sources.stream import ChannelRow, TapStream
from serd.types import Encoding, Role

_NS = 1_000_000_000
# No word of the tap can lift these.
_FINAL = frozenset({METADATA_INVALID, "max_streams", "duplicate_stream"})


class Reception:
    """Opens, changes and refuses the channels of taps. Called by the ingest thread alone.

    Parameters
    ----------
    policy
        Who may be heard.
    admission
        Lends the rows.
    delivery
        Is told of channels that end, and of what is missing before the first samples.
    clock
        For taps that do not tell when they captured.

    Attributes
    ----------
    policy
        May be replaced at any time; holds for a tap from its next `review` on.
    """

    def __init__(
        self, policy: Policy, admission: Admission, delivery: Delivery, clock: Clock
    ) -> None:
        self.policy = policy
        self._admission = admission
        self._delivery = delivery
        self._clock = clock

    def announce(
        self,
        source: Source,
        stream: str,
        sample_rate_hz: int,
        channels: int,
        roles: Sequence[Role],
        call_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        first_sample: int = 0,
        sequencer: Sequencer[Buffer] | None = None,
    ) -> TapStream:
        """A tap of which nothing more is known; no channel has a row yet, none is judged."""
        standings = [
            Standing(
                StreamInfo(
                    stream=stream if channels == 1 else f"{stream}/{number}",
                    source=source.name,
                    channel=number,
                    channels=channels,
                    sample_rate_hz=sample_rate_hz,
                    encoding=Encoding.NONE.name.lower(),
                    role=_role_of_source(roles, number, channels),
                    call_id=call_id,
                    labels=dict(labels or {}),
                )
            )
            for number in range(channels)
        ]
        now_ns = self._clock.monotonic_ns()
        return TapStream(
            stream, source, sample_rate_hz, roles, standings, first_sample, sequencer, now_ns
        )

    def inherit(self, tap: TapStream, before: TapStream, sequence: int) -> None:
        """Let a new life of a stream go on from what its tap had said in the one before.

        With another number of channels nobody knows who speaks on which.
        """
        alike = len(tap.standings) == len(before.standings)
        for number, standing in enumerate(tap.standings):
            old = before.standings[number if alike else 0]
            info = old.info
            standing.consent = old.consent
            standing.role_valid = old.role_valid and (alike or info.role is Role.UNKNOWN)
            role = info.role if alike else standing.info.role
            standing.info = replace(
                standing.info, role=role, call_id=info.call_id, labels=info.labels
            )
            standing.refusal = METADATA_INVALID if old.refusal == METADATA_INVALID else None
        if before.paused:
            tap.pause(sequence, tap.last_ns)

    def learn(self, tap: TapStream, metadata: Metadata | None, now_ns: int) -> None:
        """Take over what a tap says of its channels; None for what cannot be read."""
        # A channel that is opened now must not inherit a gap from before.
        self._delivery.settle(tap, now_ns)
        for number, standing in enumerate(tap.standings):
            if metadata is None:
                self._refuse(tap, number, METADATA_INVALID, now_ns)
            else:
                _take_over(standing, metadata)
        self.review(tap, now_ns)
        tap.change()

    def heed(self, tap: TapStream, metadata: Metadata | None, now_ns: int) -> None:
        """Of metadata that comes too late, take over what forbids, and nothing else."""
        self._delivery.settle(tap, now_ns)
        for number, standing in enumerate(tap.standings):
            late = replace(standing)
            if metadata is not None:
                _take_over(late, metadata)
            reason = METADATA_INVALID if metadata is None else self.policy.refuses(late)
            if reason is not None and standing.refusal is None:
                standing.role_valid, standing.consent = late.role_valid, late.consent
                standing.info = replace(standing.info, role=late.info.role)
                self._refuse(tap, number, reason, now_ns)

    def review(self, tap: TapStream, now_ns: int) -> None:
        """Judge every channel by what is known now."""
        for number, standing in enumerate(tap.standings):
            if standing.refusal in _FINAL:
                continue
            reason = self.policy.refuses(standing)
            if reason is not None:
                self._refuse(tap, number, reason, now_ns)
            elif standing.refusal is not None:
                standing.refusal = None
                if tap.begun:
                    self._admit(tap, number, tap.next_index, self._clock.unix_ns(), now_ns)

    def begin(self, tap: TapStream, encoding: Encoding, captured_at_ns: int, now_ns: int) -> None:
        """The first samples of a tap are here, or it ends without any: open its channels."""
        tap.begun = True
        missing, next_index, paused = tap.missing, tap.next_index, tap.paused
        before_ns = (next_index - missing.start) * _NS // tap.sample_rate_hz
        unix_ns = (captured_at_ns or self._clock.unix_ns()) - before_ns
        tap.next_index, tap.paused = missing.start, False
        for number, standing in enumerate(tap.standings):
            standing.info = replace(standing.info, encoding=encoding.name.lower())
            if standing.refusal is None:
                self._admit(tap, number, missing.start, unix_ns, now_ns)
        if missing.reason or missing.end > missing.start:
            gap = missing if missing.reason else None
            self._delivery.skip(tap, missing.end, gap, now_ns)
        tap.next_index, tap.paused = next_index, paused
        if paused:
            for channel in tap.live:
                tap.pause_channel(channel, now_ns)

    def _admit(
        self, tap: TapStream, number: int, source_index: int, unix_ns: int, now_ns: int
    ) -> None:
        standing = tap.standings[number]
        row = self._admission.admit(standing.info, source_index, tap.source.lossless)
        if not isinstance(row, ChannelRow):
            self._refuse(tap, number, row, now_ns)
            return
        row.anchor(source_index, unix_ns)
        tap.channels[number] = row
        if tap.paused:
            tap.pause_channel(row, now_ns)

    def _refuse(self, tap: TapStream, number: int, reason: str, now_ns: int) -> None:
        standing = tap.standings[number]
        if standing.refusal is None:
            if tap.channels[number] is not None:
                self.close_channel(tap, number, reason, now_ns, refused=True)
            else:
                self._admission.refuse(standing.info, tap.next_index, reason)
        standing.refusal = reason

    def close_channel(
        self, tap: TapStream, number: int, reason: str, now_ns: int, *, refused: bool = False
    ) -> None:
        """End a channel that has a row."""
        channel = tap.close_channel(number, reason, refused, now_ns)
        if channel is not None:
            self._admission.leave(channel, reason if refused else None)
            self._delivery.leave(channel)


def _role_of_source(roles: Sequence[Role], number: int, channels: int) -> Role:
    if channels == 1 and len(set(roles)) > 1:
        return Role.MIXED
    return roles[number] if number < len(roles) else Role.UNKNOWN


def _take_over(standing: Standing, metadata: Metadata) -> None:
    """What a tap leaves out stays as it was."""
    info = standing.info
    if metadata.roles is not None:
        role = metadata.roles[info.channel]
        standing.role_valid = role is not None
        info = replace(info, role=role or Role.UNKNOWN)
    if metadata.consent is not None:
        standing.consent = metadata.consent
    standing.info = replace(
        info,
        call_id=info.call_id if metadata.call_id is None else metadata.call_id,
        labels=info.labels if metadata.labels is None else metadata.labels,
    )
