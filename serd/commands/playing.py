"""Play a recording as a tap: read, resample, cut, pace, send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import zmq
from zmq.auth.thread import ThreadAuthenticator

from serd.audio.pcm import encode
from serd.audio.resample import StreamResampler
from serd.clock import Clock, SystemClock
from serd.commands.common import PeerError
from serd.curve import Door, Link
from serd.errors import BindError, InputError, MessageError, SourceError
from serd.protocol.tap import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE_HZ,
    MIN_SAMPLE_RATE_HZ,
    Metadata,
)
from serd.protocol.writer import TapWriter
from serd.sources.file import open_recording, read_samples
from serd.types import Encoding, Int16Array

Send = Callable[[Sequence[bytes]], None]


class Recording:
    """An audio file, read piece by piece at a rate of one's choice.

    Parameters
    ----------
    path
        WAV, FLAC, Ogg, MP3 or whatever else libsndfile reads.
    sample_rate_hz
        Rate to resample to; the file's own by default.

    Raises
    ------
    InputError
        The file is missing, is no audio, or has a rate or channels that a tap cannot carry.
    """

    def __init__(self, path: Path, sample_rate_hz: int | None = None) -> None:
        try:
            with open_recording(path) as file:
                self.channels: int = file.channels
                self.duration_s: float = file.frames / file.samplerate
                self.sample_rate_hz: int = sample_rate_hz or file.samplerate
        except SourceError as error:
            raise InputError(error.code, error.message) from error
        self.path = path
        if not MIN_SAMPLE_RATE_HZ <= self.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
            raise InputError(
                "rate_unsupported",
                f"{path}: {self.sample_rate_hz} Hz; a tap carries {MIN_SAMPLE_RATE_HZ} to"
                f" {MAX_SAMPLE_RATE_HZ} Hz: resample with --rate 16000",
            )
        if self.channels > MAX_CHANNELS:
            raise InputError(
                "channels_unsupported",
                f"{path}: {self.channels} channels; a tap carries up to {MAX_CHANNELS}",
            )

    def blocks(self, block_ms: int) -> Iterator[Int16Array]:
        """The samples as int16 ``[n, channels]`` in blocks of `block_ms`; the last may be shorter.

        Where a block is not a whole number of samples, blocks differ by one sample.
        """
        rest = np.empty((0, self.channels), np.int16)
        sent, number = 0, 0
        for piece in self._pieces():
            rest = np.concatenate([rest, piece])
            taken = 0
            while (end := (number + 1) * block_ms * self.sample_rate_hz // 1000 - sent) <= len(
                rest
            ) - taken:
                yield rest[taken : taken + end]
                taken, sent, number = taken + end, sent + end, number + 1
            rest = rest[taken:]
        if len(rest):
            yield rest

    def _pieces(self) -> Iterator[Int16Array]:
        with open_recording(self.path) as file:
            resamplers = [
                StreamResampler(file.samplerate, self.sample_rate_hz)
                for _ in range(self.channels if file.samplerate != self.sample_rate_hz else 0)
            ]
            while len(samples := self._read(file)):
                if resamplers:
                    columns = zip(resamplers, samples.T, strict=True)
                    yield np.stack(
                        [
                            resampler.push(np.ascontiguousarray(column))
                            for resampler, column in columns
                        ],
                        axis=1,
                    )
                else:
                    yield samples
            if resamplers:
                yield np.stack([resampler.finish() for resampler in resamplers], axis=1)

    def _read(self, file: Any) -> Int16Array:
        try:
            return read_samples(file, file.samplerate)
        except (MessageError, soundfile.LibsndfileError) as error:
            raise InputError("file_unreadable", f"{self.path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Played:
    """What was sent: tap messages, and samples per channel."""

    messages: int
    samples: int


def play(
    recording: Recording,
    stream: str,
    send: Send,
    *,
    encoding: Encoding = Encoding.S16LE,
    block_ms: int = 20,
    speed: float | None = 1.0,
    metadata: Metadata | None = None,
    on_progress: Callable[[float], None] | None = None,
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Played:
    """Send a recording as one stream, from the start message to the end message.

    Parameters
    ----------
    send
        Takes the parts of a message.
    speed
        1.0 is real time: a block leaves when its last sample would have been recorded. None is
        as fast as `send` takes them; capture times are then left out.
    on_progress
        Called with the seconds of the recording sent so far.

    Raises
    ------
    InputError
        The recording cannot be read to its end.
    MessageError
        The stream id or the metadata is not what the protocol allows.
    """
    clock = clock or SystemClock()
    rate = recording.sample_rate_hz
    writer = TapWriter(stream, rate, encoding, recording.channels)
    began_ns, began_unix_ns = clock.monotonic_ns(), clock.unix_ns()
    stamped = speed == 1.0
    send(writer.start(metadata, began_unix_ns if stamped else 0))
    messages = 2
    for block in recording.blocks(block_ms):
        first = writer.first_sample
        if speed is not None:
            due_ns = began_ns + round((first + len(block)) / rate / speed * 1e9)
            wait_ns = due_ns - clock.monotonic_ns()
            if wait_ns > 0:
                sleep(wait_ns / 1e9)
        captured_at_ns = began_unix_ns + first * 1_000_000_000 // rate if stamped else 0
        send(writer.audio(encode(block, encoding), captured_at_ns))
        messages += 1
        if on_progress is not None:
            on_progress(writer.first_sample / rate)
    send(writer.end())
    return Played(messages, writer.first_sample)


@contextmanager
def tap_socket(
    endpoint: str,
    kind: Literal["PUSH", "PUB"] = "PUSH",
    *,
    bind: bool = False,
    wait_s: float = 10,
    curve: Link | None = None,
) -> Iterator[Send]:
    """A socket that sends tap messages; on leaving, waits until all have been sent.

    Parameters
    ----------
    kind
        ``PUSH`` waits when the receiver is behind; ``PUB`` drops.
    wait_s
        Longest wait for a receiver to be there, to take a message, and to take the last ones.
    curve
        Own keys and the receiver's; with `bind` no other receiver is let in.

    Raises
    ------
    BindError
        The endpoint cannot be bound, or is none.
    PeerError
        Nobody was there in time, or nobody takes messages any more.
    """
    context = zmq.Context()
    # A receiver that connects is held to its key by a handler of its own.
    gate = _gate(context, curve) if bind and curve is not None else None
    # XPUB sends as PUB does and also tells when somebody subscribes, without which the first
    # messages would be lost while the connection is made.
    socket = context.socket(zmq.PUSH if kind == "PUSH" else zmq.XPUB)
    socket.linger = round(wait_s * 1000)
    socket.sndtimeo = round(wait_s * 1000)
    # Messages must not queue for a connection that may never be made.
    socket.immediate = True
    nobody = PeerError("no_receiver", f"{endpoint}: nobody took the audio within {wait_s:g} s")
    try:
        try:
            if curve is not None and not bind:
                curve.reach(socket)
            elif curve is not None:
                Door(curve.keys).serve(socket, "send")
            (socket.bind if bind else socket.connect)(endpoint)
        except zmq.ZMQError as error:
            raise BindError("bind_failed", f"{endpoint}: {error.strerror}") from error
        awaited = zmq.POLLOUT if kind == "PUSH" else zmq.POLLIN
        if not socket.poll(round(wait_s * 1000), awaited):
            raise nobody

        def send(parts: Sequence[bytes]) -> None:
            try:
                socket.send_multipart(parts)
            except zmq.Again:
                raise nobody from None

        yield send
    except BaseException:
        socket.linger = 0
        raise
    finally:
        socket.close()
        if gate is not None:
            gate.stop()
        context.term()


def _gate(context: zmq.Context[zmq.Socket[bytes]], curve: Link) -> ThreadAuthenticator:
    """Lets in the one receiver whose key was given."""
    gate = ThreadAuthenticator(context)
    gate.start()
    gate.configure_curve_callback("send", _OnlyKey(curve.peer_key))
    return gate


class _OnlyKey:
    """Answers for the authenticator of pyzmq."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def callback(self, _domain: str, key: bytes) -> bool:
        return key == self._key
