"""Sound devices that a test plugs in, speaks into and pulls out."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from serd.errors import SourceError
from serd.sources.devices import DeviceInfo
from serd.sources.portaudio import BlockCallback
from serd.types import Int16Array


def device(
    index: int, name: str, channels: int = 2, rate_hz: int = 48_000, is_default: bool = False
) -> DeviceInfo:
    return DeviceInfo(index, name, "ALSA", channels, rate_hz, is_default)


class FakeStream:
    """An open stream; the test is PortAudio's thread."""

    def __init__(
        self,
        device: DeviceInfo,
        sample_rate_hz: int,
        channels: int,
        block_samples: int,
        on_block: BlockCallback,
        on_end: Callable[[], None],
    ) -> None:
        self.device = device
        self.sample_rate_hz = sample_rate_hz
        self.channels = channels
        self.block_samples = block_samples
        self.closed = False
        self.heard = 0
        self.clock_s = 1000.0
        self._on_block = on_block
        self._on_end = on_end

    def speak(
        self,
        blocks: int = 1,
        *,
        lost: int = 0,
        overflowed: bool = False,
        timed: bool = True,
        latency_s: float = 0.05,
    ) -> None:
        """Record blocks; sample ``i`` of channel ``c`` (from 0) is ``(i + 1000 * c) % 20000``.

        `lost` samples pass before the first of them; a device without time stamps is not `timed`.
        """
        for number in range(blocks):
            if number == 0:
                self.heard += lost
                self.clock_s += lost / self.sample_rate_hz
            samples = expected(self.heard, self.block_samples, range(self.channels))
            captured_s = self.clock_s if timed else 0.0
            self._on_block(
                memoryview(samples.tobytes()),
                captured_s,
                captured_s + latency_s,
                overflowed and number == 0,
            )
            self.heard += self.block_samples
            self.clock_s += self.block_samples / self.sample_rate_hz

    def die(self) -> None:
        """End as PortAudio does when the device is gone."""
        self._on_end()

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self._on_end()


class FakeBackend:
    """Satisfies `serd.sources.portaudio.Backend`.

    What is plugged in shows after a rescan, as with PortAudio; what is pulled out stays listed
    until then but cannot be opened.
    """

    def __init__(self, devices: list[DeviceInfo]) -> None:
        self.plugged = list(devices)
        self.listed = list(devices)
        self.rates_hz = {8000, 16_000, 44_100, 48_000}
        self.streams: list[FakeStream] = []
        self.attempts = 0
        self.rescans = 0
        self.refuse: SourceError | None = None
        self.missing = False
        self.may_open = threading.Event()
        self.may_open.set()
        self.threads: set[str] = set()

    @property
    def live(self) -> list[FakeStream]:
        """Streams that were opened and not closed."""
        return [stream for stream in self.streams if not stream.closed]

    def plug(self, device: DeviceInfo) -> None:
        self.plugged.append(device)

    def pull(self, name: str) -> None:
        self.plugged = [device for device in self.plugged if device.name != name]

    def load(self) -> None:
        if self.missing:
            raise SourceError("portaudio_missing", "apt install libportaudio2")

    def rescan(self) -> None:
        assert not self.live, "re-initialised under a running stream"
        self.rescans += 1
        self.listed = list(self.plugged)

    def devices(self) -> list[DeviceInfo]:
        self.threads.add(threading.current_thread().name)
        return list(self.listed)

    def supports(self, device: DeviceInfo, sample_rate_hz: int, channels: int) -> bool:
        return sample_rate_hz in self.rates_hz

    def open(
        self,
        device: DeviceInfo,
        sample_rate_hz: int,
        channels: int,
        block_samples: int,
        on_block: BlockCallback,
        on_end: Callable[[], None],
    ) -> FakeStream:
        self.attempts += 1
        assert self.may_open.wait(20), "the test forgot to let the device open"
        if self.refuse is not None:
            raise self.refuse
        if all(device.name != plugged.name for plugged in self.plugged):
            raise SourceError("device_failed", f"{device.name} is gone")
        stream = FakeStream(device, sample_rate_hz, channels, block_samples, on_block, on_end)
        self.streams.append(stream)
        return stream


def expected(first: int, count: int, channels: range | list[int]) -> Int16Array:
    """What `FakeStream.speak` records, int16 ``[count, len(channels)]``."""
    index = np.arange(first, first + count)[:, np.newaxis]
    samples: Int16Array = ((index + 1000 * np.array(list(channels))) % 20_000).astype(np.int16)
    return samples
