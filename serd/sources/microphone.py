"""Audio from a sound device, by way of PortAudio.

Three threads take part. PortAudio's own thread runs the callback, which copies a block into a
preallocated queue and wakes the ingest thread. The ingest thread, in `MicrophoneSource.service`,
empties the queue into the intake. Opening and closing a device can block for seconds, so a
helper thread of the source does both and hands each opened recording over through a channel; it
also waits between attempts. An unplugged device shows in one of three ways (the stream ends by
itself, the callback falls silent, opening fails) and all three lead to the same: the recording is
given up, its stream closed as ``device_lost``, and the helper tries again every `retry_s`.

When the queue is full the newest block is dropped and counted. What was lost is told to the
intake where it belongs, in front of the next block that came through.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import zmq

from serd.channel import Channel, Overflow, Waker
from serd.clock import Clock, SystemClock
from serd.errors import SourceError
from serd.sources.base import Intake, Tap
from serd.sources.devices import DeviceInfo
from serd.sources.portaudio import BlockCallback, Choice, PortAudio, Stream, shared
from serd.sources.recording import Recording
from serd.types import Encoding, Role

_CLOSE_TIMEOUT_S = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MicrophoneOptions:
    """One microphone.

    Attributes
    ----------
    name
        Name of the source.
    stream
        Stream id; of several channels, channel ``k`` of `channels` is ``stream/k``.
    device
        Part of a device's name, its index, or None for the default device.
    sample_rate_hz
        Rate to record at, or None for 16000 if the device supports it and else its own.
    channels
        Channels to take, counted from 1.
    roles
        Role of each.
    block_ms
        Length of a block.
    retry_s
        Time between attempts to open the device.
    queue_blocks
        Blocks that may wait for the ingest thread.
    """

    name: str
    stream: str
    device: str | int | None = None
    sample_rate_hz: int | None = None
    channels: tuple[int, ...] = (1,)
    roles: tuple[Role, ...] = ()
    block_ms: int = 20
    retry_s: float = 1.0
    queue_blocks: int = 250

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels are counted from 1, not {self.channels}")


def list_devices(portaudio: PortAudio | None = None) -> list[DeviceInfo]:
    """Devices that can record.

    Raises
    ------
    SourceError
        ``portaudio_missing`` or ``device_failed``.
    """
    return (portaudio or shared()).devices()


class MicrophoneSource:
    """Records from one device. Implements `serd.sources.base.Source`.

    Parameters
    ----------
    options
        What to record and how.
    portaudio
        PortAudio with what else this process records; the process's own by default.
    clock
        For time stamps and for noticing that blocks stopped.
    """

    def __init__(
        self,
        options: MicrophoneOptions,
        portaudio: PortAudio | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._options = options
        self._portaudio = portaudio or shared()
        self._clock = clock or SystemClock()
        self._columns = [channel - 1 for channel in options.channels]
        self._recording: Recording | None = None
        self._tap: Tap | None = None
        self._waker: Waker | None = None
        self._helper: threading.Thread | None = None
        # The helper hands over one recording or error at a time and then waits, for the recording's
        # end or for `retry_s`; two fit so that it never has to wait for the ingest thread.
        self._inbox: Channel[Recording | SourceError] | None = None
        self._stopping = threading.Event()
        self._released = threading.Event()
        self._problem: str | None = None
        self._counts: Counter[str] = Counter(
            blocks=0, overflow_blocks=0, overflow_samples=0, queue_dropped_blocks=0,
            queue_peak_blocks=0, open_failures=0, opened=0, device_lost=0,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Name from the configuration."""
        return self._options.name

    @property
    def lossless(self) -> bool:
        """A microphone cannot wait."""
        return False

    @property
    def finished(self) -> bool:
        """A microphone may always come back."""
        return False

    def open(self, waker: Waker) -> None:
        """Start looking for the device. A device that is not there is waited for.

        Raises
        ------
        SourceError
            ``portaudio_missing``: the library is not installed.
        """
        self._portaudio.load()
        self._waker = waker
        self._inbox = Channel(f"{self.name}.recordings", 2, Overflow.DROP_OLDEST, waker)
        self._helper = threading.Thread(
            target=self._keep_open, name=f"microphone {self.name}", daemon=True
        )
        self._helper.start()

    def pollables(self) -> Sequence[zmq.Socket[bytes] | int]:
        """Nothing: blocks come with the waker."""
        return ()

    def service(self, now_ns: int, intake: Intake) -> int | None:
        """Hand over what was recorded and notice what happened to the device."""
        if self._inbox is not None:
            for arrival in self._inbox.take_all():
                if isinstance(arrival, Recording):
                    self._begin(arrival)
                else:
                    self._fail(arrival)
        recording = self._recording
        if recording is None:
            return None
        # Read before the queue is emptied, so that no block of a recording that has ended is left.
        ended = recording.ended or now_ns >= recording.silent_at_ns()
        self._empty(recording, intake)
        if not ended:
            return recording.silent_at_ns()
        self._give_up(recording, intake)
        return None

    def close(self) -> None:
        """Stop recording; blocks that were not handed over are discarded."""
        self._stopping.set()
        self._released.set()
        if self._helper is not None:
            self._helper.join(_CLOSE_TIMEOUT_S)
            if self._helper.is_alive():
                _log.warning("microphone.stuck", source=self.name)
        self._recording = None
        self._tap = None

    def counts(self) -> dict[str, int]:
        """Blocks taken, overflows of the device and of the queue, openings and losses."""
        return dict(self._counts)

    # the ingest thread

    def _begin(self, recording: Recording) -> None:
        self._recording = recording
        self._problem = None
        self._counts["opened"] += 1
        _log.info(
            "microphone.up",
            source=self.name,
            device=recording.device.label,
            sample_rate_hz=recording.sample_rate_hz,
        )

    def _fail(self, error: SourceError) -> None:
        self._counts["open_failures"] += 1
        if error.message != self._problem:
            self._problem = error.message
            _log.warning(
                "microphone.down", source=self.name, code=error.code, problem=error.message
            )

    def _empty(self, recording: Recording, intake: Intake) -> None:
        while (block := recording.peek()) is not None:
            if self._tap is None:
                self._tap = intake.open_stream(
                    self,
                    self._options.stream,
                    recording.sample_rate_hz,
                    len(self._columns),
                    self._options.roles,
                    Encoding.S16LE,
                    block.captured_at_ns,
                )
            if block.lost_before:
                self._tell_lost(self._tap, block.lost_before, intake)
            intake.push(self._tap, block.samples[:, self._columns], block.captured_at_ns)
            recording.drop_first()
            self._counts["blocks"] += 1
        for key, value in recording.take_counts().items():
            self._counts[key] += value
        self._counts["queue_peak_blocks"] = max(
            self._counts["queue_peak_blocks"], recording.peak_blocks
        )

    def _give_up(self, recording: Recording, intake: Intake) -> None:
        self._counts["device_lost"] += 1
        _log.warning("microphone.lost", source=self.name, device=recording.device.label)
        if self._tap is not None:
            lost = recording.take_lost()
            if lost:
                self._tell_lost(self._tap, lost, intake)
            intake.close_stream(self._tap, "device_lost")
            self._tap = None
        self._recording = None
        self._released.set()

    def _tell_lost(self, tap: Tap, samples: int, intake: Intake) -> None:
        self._counts["overflow_samples"] += samples
        intake.lose(tap, samples, "overflow")

    # the helper thread

    def _keep_open(self) -> None:
        assert self._inbox is not None, "started by open()"
        while True:
            self._released.clear()
            if self._stopping.is_set():
                return
            try:
                recording, stream = self._open_device()
            except SourceError as error:
                self._inbox.put(error)
            else:
                self._inbox.put(recording)
                self._released.wait()
                self._portaudio.close(stream)
            self._stopping.wait(self._options.retry_s)

    def _open_device(self) -> tuple[Recording, Stream]:
        options = self._options
        assert self._waker is not None, "started by open()"
        waker = self._waker
        recordings: list[Recording] = []

        def prepare(
            device: DeviceInfo, sample_rate_hz: int
        ) -> tuple[BlockCallback, Callable[[], None]]:
            recording = Recording(
                device,
                sample_rate_hz,
                max(options.channels),
                options.block_ms,
                options.queue_blocks,
                self._clock,
                waker,
            )
            recordings.append(recording)
            return recording.on_block, recording.on_end

        choice = Choice(options.device, options.sample_rate_hz, options.channels)
        stream = self._portaudio.open(choice, options.block_ms, prepare)
        return recordings[-1], stream
