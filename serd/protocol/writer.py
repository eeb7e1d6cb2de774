"""Writing a tap: the messages of one stream, in order and counted."""

from __future__ import annotations

import numpy as np

from serd.audio import pcm
from serd.errors import MessageError
from serd.protocol.tap import (
    MAX_PAYLOAD_BYTES,
    SEQUENCE_MODULUS,
    Buffer,
    Flag,
    Header,
    Metadata,
    decode_stream_id,
    encode_header,
    encode_metadata,
    parse_metadata,
)
from serd.types import Encoding, Int16Array


class TapWriter:
    """Makes the messages of one stream, keeping `sequence` and `first_sample`.

    Parameters
    ----------
    stream
        Stream id, 1 to 200 bytes of UTF-8 without control characters.
    sample_rate_hz
        8000 to 48000.
    encoding
        Of the payloads given to `audio`; not `NONE`.
    channels
        1 to 8, interleaved.
    sequence, first_sample
        Where to begin.

    Raises
    ------
    MessageError
        An argument is outside what the specification allows.
    """

    def __init__(
        self,
        stream: str,
        sample_rate_hz: int,
        encoding: Encoding,
        channels: int = 1,
        *,
        sequence: int = 0,
        first_sample: int = 0,
    ) -> None:
        self._id = stream.encode()
        decode_stream_id(self._id)
        if encoding is Encoding.NONE:
            raise MessageError("unknown_encoding", "audio needs an encoding other than none")
        self._encoding = encoding
        self._channels = channels
        self._rate = sample_rate_hz
        self._frame_bytes = encoding.sample_bytes * channels
        self._pending = Flag.NONE
        self.sequence = sequence
        self.first_sample = first_sample
        encode_header(Header(encoding, channels, 0, sample_rate_hz, sequence, first_sample, 0))

    def start(self, metadata: Metadata | None = None, captured_at_ns: int = 0) -> list[bytes]:
        """The first message: the start flag, and the metadata if there is any."""
        if metadata is None:
            return self._control(Flag.START, captured_at_ns)
        return self._metadata(Flag.START | Flag.METADATA, metadata, captured_at_ns)

    def metadata(self, metadata: Metadata, captured_at_ns: int = 0) -> list[bytes]:
        """Metadata in the middle of a stream."""
        return self._metadata(Flag.METADATA, metadata, captured_at_ns)

    def audio(self, samples: Buffer | Int16Array, captured_at_ns: int = 0) -> list[bytes]:
        """A message with the next samples.

        Parameters
        ----------
        samples
            int16 ``[n, channels]``, or ``[n]`` for one channel; or bytes, interleaved, already in
            the writer's encoding.
        captured_at_ns
            Unix time of the first sample, 0 if unknown.

        Raises
        ------
        MessageError
            Codes ``ragged_payload``, ``payload_too_large``, ``first_sample_range``.
        """
        if isinstance(samples, np.ndarray):
            samples = pcm.encode(samples.reshape(-1, self._channels), self._encoding)
        payload = bytes(samples)
        frames, rest = divmod(len(payload), self._frame_bytes)
        if rest:
            raise MessageError(
                "ragged_payload",
                f"{len(payload)} bytes are not a whole number of {self._frame_bytes}-byte frames",
            )
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MessageError(
                "payload_too_large",
                f"{len(payload)} bytes of payload; {MAX_PAYLOAD_BYTES} are allowed",
            )
        parts = self._message(self._encoding, Flag.NONE, payload, captured_at_ns)
        self.first_sample += frames
        return parts

    def skip(self, samples: int, *, lost: bool = False) -> None:
        """Leave out `samples` per channel: suppressed silence, or loss before the tap.

        Loss sets the discontinuity flag on the next message.
        """
        self.first_sample += samples
        if lost:
            self._pending |= Flag.DISCONTINUITY

    def pause(self) -> list[bytes]:
        """Tell that what follows must not be analysed."""
        return self._control(Flag.PAUSE)

    def resume(self) -> list[bytes]:
        """Tell that analysis may go on."""
        return self._control(Flag.RESUME)

    def end(self) -> list[bytes]:
        """The last message of the stream."""
        return self._control(Flag.END)

    def _control(self, flags: Flag, captured_at_ns: int = 0) -> list[bytes]:
        return self._message(Encoding.NONE, flags, b"", captured_at_ns)

    def _metadata(self, flags: Flag, metadata: Metadata, captured_at_ns: int) -> list[bytes]:
        payload = encode_metadata(metadata)
        parse_metadata(payload, self._channels)
        return self._message(Encoding.NONE, flags, payload, captured_at_ns)

    def _message(
        self, encoding: Encoding, flags: Flag, payload: bytes, captured_at_ns: int
    ) -> list[bytes]:
        header = Header(
            encoding,
            self._channels,
            flags | self._pending,
            self._rate,
            self.sequence,
            self.first_sample,
            captured_at_ns,
        )
        parts = [self._id, encode_header(header), payload]
        self._pending = Flag.NONE
        self.sequence = (self.sequence + 1) % SEQUENCE_MODULUS
        return parts
