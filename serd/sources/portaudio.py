"""Sound devices of this machine through PortAudio, shared by all microphones of the process.

PortAudio reads the list of devices when it is initialised, and only then: a device that was
unplugged and comes back, or that is new, shows after a re-initialisation, which ends every open
stream. `PortAudio` therefore counts the streams that are open and re-initialises, before it opens
the next, only while there is none. A microphone that comes back while another runs is found if
its name and index were in the list before, which is the usual case of a cable pulled and put
back.

PortAudio's functions other than its callbacks may not be called from two threads at once, so one
lock covers them. Opening can block for seconds on a sick driver: none of this is for the ingest
thread.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from serd.errors import SourceError
from serd.sources.devices import DeviceInfo, select_device

MIN_RATE_HZ = 8000
MAX_RATE_HZ = 48000
# From PortAudio's PaErrorCode.
_INVALID_CHANNEL_COUNT = -9998
_INVALID_SAMPLE_RATE = -9997
_PREFERRED_RATES_HZ = (48000, 44100, 32000, 24000, 22050, 8000)


class BlockCallback(Protocol):
    """Takes a block in PortAudio's thread; must be quick and must not block."""

    def __call__(self, data: memoryview, captured_s: float, now_s: float, overflowed: bool) -> None:
        """Take interleaved int16 samples.

        Parameters
        ----------
        captured_s, now_s
            When the first sample was captured and when the callback began, by the device's
            clock in seconds; `captured_s` is 0 where the host API does not know.
        overflowed
            Whether samples were lost just before this block.
        """


class Stream(Protocol):
    """A running input stream."""

    def close(self) -> None:
        """Stop and release it; never raises."""


class Backend(Protocol):
    """What serd needs of PortAudio. Every method may block; calls never overlap."""

    def load(self) -> None:
        """Load the library. Raises `SourceError` ``portaudio_missing``."""

    def rescan(self) -> None:
        """Initialise anew, which ends all streams. Raises `SourceError` ``device_failed``."""

    def devices(self) -> list[DeviceInfo]:
        """All devices that can record."""

    def supports(self, device: DeviceInfo, sample_rate_hz: int, channels: int) -> bool:
        """Whether the device records int16 at this rate and number of channels.

        Raises
        ------
        SourceError
            ``device_failed``: the device does not answer.
        """

    def open(
        self,
        device: DeviceInfo,
        sample_rate_hz: int,
        channels: int,
        block_samples: int,
        on_block: BlockCallback,
        on_end: Callable[[], None],
    ) -> Stream:
        """Open and start a stream; `on_end` is called once, from any thread, when it ends.

        Raises
        ------
        SourceError
            ``device_failed``: PortAudio refused; the message has its words.
        """


@dataclass(frozen=True, slots=True)
class Choice:
    """What a microphone wants.

    Attributes
    ----------
    device
        Name or a part of it, index, or None for the machine's default.
    sample_rate_hz
        Rate, or None for 16000 where the device supports it and else for its own.
    channels
        Channels to record, counted from 1.
    """

    device: str | int | None
    sample_rate_hz: int | None
    channels: tuple[int, ...]


class PortAudio:
    """PortAudio with what a process has open in it. All methods may block; any thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._open_streams = 0
        self._scanned = False

    def load(self) -> None:
        """Load the library, once.

        Raises
        ------
        SourceError
            ``portaudio_missing``.
        """
        with self._lock:
            self._backend.load()

    def devices(self) -> list[DeviceInfo]:
        """Devices that can record, as far as they can be seen without disturbing anyone.

        Raises
        ------
        SourceError
            ``portaudio_missing`` or ``device_failed``.
        """
        with self._lock:
            return self._devices()

    def open(
        self,
        choice: Choice,
        block_ms: int,
        prepare: Callable[[DeviceInfo, int], tuple[BlockCallback, Callable[[], None]]],
    ) -> Stream:
        """Find a device and start recording from it.

        Parameters
        ----------
        prepare
            Called with the device and the rate in Hz before the stream is opened with
            ``max(choice.channels)`` channels; returns the callbacks for blocks and for the end.

        Raises
        ------
        SourceError
            ``portaudio_missing``, ``device_not_found``, ``device_ambiguous``,
            ``channel_missing``, ``rate_unsupported`` or ``device_failed``.
        """
        with self._lock:
            device = select_device(self._devices(), choice.device, self._open_streams > 0)
            channels = max(choice.channels)
            if channels > device.input_channels:
                raise SourceError(
                    "channel_missing",
                    f"device {device.label!r} has {device.input_channels} input channels; "
                    f"channel {channels} was asked for",
                )
            rate_hz = self._select_rate(device, choice.sample_rate_hz, channels)
            on_block, on_end = prepare(device, rate_hz)
            stream = self._backend.open(
                device, rate_hz, channels, rate_hz * block_ms // 1000, on_block, on_end
            )
            self._open_streams += 1
            return stream

    def close(self, stream: Stream) -> None:
        """End a stream that `open` returned."""
        with self._lock:
            stream.close()
            self._open_streams -= 1

    def _devices(self) -> list[DeviceInfo]:
        self._backend.load()
        if self._scanned and not self._open_streams:
            self._backend.rescan()
        self._scanned = True
        return self._backend.devices()

    def _select_rate(self, device: DeviceInfo, wanted_hz: int | None, channels: int) -> int:
        if wanted_hz is not None:
            if self._backend.supports(device, wanted_hz, channels):
                return wanted_hz
            raise SourceError(
                "rate_unsupported", f"device {device.label!r} cannot record at {wanted_hz} Hz"
            )
        for rate_hz in (16000, device.default_sample_rate_hz, *_PREFERRED_RATES_HZ):
            if MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ and self._backend.supports(
                device, rate_hz, channels
            ):
                return rate_hz
        raise SourceError(
            "rate_unsupported",
            f"device {device.label!r} records {channels} channels at no rate from "
            f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz",
        )


@functools.cache
def shared() -> PortAudio:
    """The one `PortAudio` of this process."""
    return PortAudio(SoundDeviceBackend())


class SoundDeviceBackend:
    """`Backend` by the sounddevice package, which is imported when it is first needed."""

    def __init__(self) -> None:
        self._sd: Any = None

    def load(self) -> None:
        """See `Backend.load`."""
        if self._sd is not None:
            return
        try:
            self._sd = importlib.import_module("sounddevice")
        except OSError as error:
            raise SourceError(
                "portaudio_missing",
                f"microphones need the PortAudio library ({error}); "
                "on Debian and Ubuntu: apt install libportaudio2",
            ) from error

    def rescan(self) -> None:
        """See `Backend.rescan`."""
        # sounddevice has no public function for it; these are what its import and its exit call.
        try:
            self._sd._terminate()
            self._sd._initialize()
        except self._sd.PortAudioError as error:
            raise SourceError("device_failed", f"PortAudio: {_words(error)}") from error

    def devices(self) -> list[DeviceInfo]:
        """See `Backend.devices`."""
        host_apis = self._sd.query_hostapis()
        # As PortAudio chooses: the default of the first host API that has one.
        defaults = (int(api["default_input_device"]) for api in host_apis)
        default = next((index for index in defaults if index >= 0), -1)
        return [
            DeviceInfo(
                index=index,
                name=str(info["name"]),
                host_api=str(host_apis[info["hostapi"]]["name"]),
                input_channels=int(info["max_input_channels"]),
                default_sample_rate_hz=round(info["default_samplerate"]),
                is_default=index == default,
            )
            for index, info in enumerate(self._sd.query_devices())
            if info["max_input_channels"] > 0
        ]

    def supports(self, device: DeviceInfo, sample_rate_hz: int, channels: int) -> bool:
        """See `Backend.supports`."""
        try:
            self._sd.check_input_settings(
                device=device.index, channels=channels, dtype="int16", samplerate=sample_rate_hz
            )
        except self._sd.PortAudioError as error:
            if error.args[1] in (_INVALID_SAMPLE_RATE, _INVALID_CHANNEL_COUNT):
                return False
            raise _device_failed(device, error) from error
        return True

    def open(
        self,
        device: DeviceInfo,
        sample_rate_hz: int,
        channels: int,
        block_samples: int,
        on_block: BlockCallback,
        on_end: Callable[[], None],
    ) -> Stream:
        """See `Backend.open`."""

        def callback(data: Any, frames: int, time: Any, status: Any) -> None:
            on_block(
                memoryview(data), time.inputBufferAdcTime, time.currentTime, status.input_overflow
            )

        stream = None
        try:
            stream = self._sd.RawInputStream(
                device=device.index,
                samplerate=sample_rate_hz,
                channels=channels,
                dtype="int16",
                blocksize=block_samples,
                callback=callback,
                finished_callback=on_end,
            )
            stream.start()
        except (self._sd.PortAudioError, ValueError) as error:
            if stream is not None:
                stream.close(ignore_errors=True)
            raise _device_failed(device, error) from error
        return _SoundDeviceStream(stream)


class _SoundDeviceStream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def close(self) -> None:
        # Abort, not stop: stopping waits for buffers that a dead device will never fill.
        self._stream.abort(ignore_errors=True)
        self._stream.close(ignore_errors=True)


def _device_failed(device: DeviceInfo, error: Exception) -> SourceError:
    return SourceError(
        "device_failed",
        f"device {device.label!r} cannot be opened (PortAudio: {_words(error)}); "
        "is it plugged in, and not in use elsewhere?",
    )


def _words(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
