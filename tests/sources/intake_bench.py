"""An intake with its rows, driven message by message and read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import zmq

from serd.audio import pcm
from serd.channel import Waker
from serd.protocol.tap import Flag, Header, encode_header
from serd.rows import (
    NO_LIMIT,
    Close,
    Control,
    Open,
    RowPool,
    StreamInfo,
)
from serd.sources.base import Intake
from serd.sources.intake import IntakeOptions, StreamTable
from serd.types import Encoding, Int16Array, Role
from tests.fakes import FakeClock


@dataclass
class FakeSource:
    name: str = "tap"
    lossless: bool = True
    finished: bool = False

    def open(self, waker: Waker) -> None: ...

    def pollables(self) -> Sequence[zmq.Socket[bytes] | int]:
        return []

    def service(self, now_ns: int, intake: Intake) -> int | None:
        return None

    def close(self) -> None: ...

    def counts(self) -> dict[str, int]:
        return {}


@dataclass
class Bench:
    """An intake with its rows, and what came out of them."""

    options: IntakeOptions = field(default_factory=IntakeOptions)
    capacity: int = 16_000
    source: FakeSource = field(default_factory=FakeSource)

    def __post_init__(self) -> None:
        self.clock = FakeClock(monotonic_ns=10**9)
        rows = min(self.options.max_streams, 20)
        self.pools = {rate: RowPool(rate, rows, self.capacity) for rate in (8000, 16000)}
        self.refused: list[tuple[str, int, str]] = []
        self.table = StreamTable(self.pools, self.options, self.clock, self._refuse)
        self.audio: dict[str, list[Int16Array]] = {}
        self.controls: list[tuple[str, Control]] = []
        self._open: dict[tuple[int, int], tuple[str, int]] = {}

    def _refuse(self, info: StreamInfo, at: int, reason: str) -> None:
        self.refused.append((info.stream, at, reason))

    def send(self, *parts: bytes, roles: Sequence[Role] = ()) -> bool:
        return self.table.message(self.source, parts, roles, self.clock.monotonic_ns())

    def read(self) -> None:
        """Consume the rows and controls as the speech thread would."""
        for rate, pool in self.pools.items():
            for row in np.flatnonzero(pool.active).tolist():
                self._read_row(rate, pool, row)

    def _read_row(self, rate: int, pool: RowPool, row: int) -> None:
        while True:
            name, position = self._open.get((rate, row), ("", int(pool.ring.released[row])))
            end = min(int(pool.ring.written[row]), int(pool.limit[row]))
            if end > position:
                self.audio[name].append(pool.ring.read(row, position, end))
                pool.ring.released[row] = end
                self._open[rate, row] = (name, end)
            if pool.limit[row] == NO_LIMIT or pool.limit[row] > pool.ring.written[row]:
                return
            control = pool.next_control(row)
            assert control is not None
            if isinstance(control, Open):
                name = control.info.stream
                self._open[rate, row] = (name, control.at)
                self.audio.setdefault(name, [])
            self.controls.append((name, control))
            if isinstance(control, Close):
                del self._open[rate, row]
                pool.release(row)
                return

    def heard(self, stream: str) -> Int16Array:
        self.read()
        return np.concatenate([np.zeros(0, np.int16), *self.audio[stream]])

    def kinds(self, stream: str) -> list[str]:
        self.read()
        return [type(control).__name__ for name, control in self.controls if name == stream]


class Tap:
    """A publisher whose every header field can be bent."""

    def __init__(self, stream: str = "call", rate: int = 8000, channels: int = 1) -> None:
        self.stream, self.rate, self.channels = stream, rate, channels
        self.sequence = 0
        self.index = 0

    def audio(
        self,
        samples: Int16Array,
        flags: int = 0,
        encoding: Encoding = Encoding.S16LE,
        captured_at_ns: int = 0,
    ) -> tuple[bytes, bytes, bytes]:
        block = samples.reshape(-1, self.channels)
        parts = self._parts(
            encoding, flags, pcm.encode(block, encoding), self.index, captured_at_ns
        )
        self.index += len(block)
        return parts

    def metadata(self, flags: int = 0, **fields: object) -> tuple[bytes, bytes, bytes]:
        return self._parts(
            Encoding.NONE, flags | Flag.METADATA, json.dumps(fields).encode(), self.index, 0
        )

    def plain(self, flags: int) -> tuple[bytes, bytes, bytes]:
        return self._parts(Encoding.NONE, flags, b"", self.index, 0)

    def _parts(
        self, encoding: Encoding, flags: int, payload: bytes, first: int, captured_at_ns: int
    ) -> tuple[bytes, bytes, bytes]:
        header = Header(
            encoding, self.channels, flags, self.rate, self.sequence, first, captured_at_ns
        )
        self.sequence = (self.sequence + 1) % 2**32
        return self.stream.encode(), encode_header(header), payload


def ramp(samples: int, start: int = 0) -> Int16Array:
    return ((np.arange(start, start + samples) % 30_000) + 1).astype(np.int16)
