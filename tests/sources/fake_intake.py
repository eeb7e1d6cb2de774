"""An intake that keeps what sources give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from serd.sources.base import Source, Tap
from serd.sources.burst import Burst
from serd.types import Encoding, Int16Array, Role


@dataclass
class FakeTap:
    """An open stream and everything that happened to it, in order."""

    source: str
    stream: str
    sample_rate_hz: int
    channels: int
    roles: tuple[Role, ...]
    encoding: Encoding
    captured_at_ns: int
    call_id: str | None
    labels: dict[str, str]
    log: list[tuple[str, int] | tuple[str, int, str]] = field(default_factory=list)
    blocks: list[Int16Array] = field(default_factory=list)
    captured: list[int] = field(default_factory=list)
    closed: str | None = None

    @property
    def samples(self) -> Int16Array:
        """Everything that was pushed, int16 ``[n, channels]``."""
        return np.concatenate([np.empty((0, self.channels), np.int16), *self.blocks])


class FakeIntake:
    """Satisfies `serd.sources.base.Intake`; `limit` is what `room` answers."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.taps: list[FakeTap] = []

    def message(
        self, source: Source, parts: Sequence[bytes], roles: Sequence[Role], now_ns: int
    ) -> bool:
        raise AssertionError("only ZeroMQ sources have messages")

    def messages(self, source: Source, burst: Burst, roles: Sequence[Role], now_ns: int) -> int:
        raise AssertionError("only ZeroMQ sources have messages")

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
    ) -> FakeTap:
        tap = FakeTap(
            source.name,
            stream,
            sample_rate_hz,
            channels,
            tuple(roles),
            encoding,
            captured_at_ns,
            call_id,
            dict(labels or {}),
        )
        self.taps.append(tap)
        return tap

    def room(self, tap: Tap) -> int:
        return self.limit

    def push(self, tap: Tap, samples: Int16Array, captured_at_ns: int) -> None:
        own = _own(tap)
        assert samples.dtype == np.int16
        assert samples.shape[1] == own.channels
        own.log.append(("push", len(samples)))
        own.blocks.append(samples.copy())
        own.captured.append(captured_at_ns)

    def refuse(
        self, source: Source, parts: Sequence[bytes], roles: Sequence[Role], reason: str
    ) -> None:
        raise AssertionError(f"{source.name} refused a stream: {reason}")

    def lose(self, tap: Tap, samples: int, reason: str) -> None:
        _own(tap).log.append(("lose", samples, reason))

    def close_stream(self, tap: Tap, reason: str) -> None:
        _own(tap).closed = reason


def _own(tap: Tap) -> FakeTap:
    assert isinstance(tap, FakeTap)
    assert tap.closed is None, "used after it was closed"
    return tap
