"""Audio from a recording, at real time or as fast as the pipeline takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import structlog
import zmq

from serd.audio import pcm
from serd.channel import Waker
from serd.clock import Clock, SystemClock
from serd.errors import MessageError, SourceError
from serd.sources.base import Intake, Tap
from serd.types import Encoding, Int16Array, Role

MIN_RATE_HZ = 8000
MAX_RATE_HZ = 48000
MAX_CHANNELS = 8

_NS = 1_000_000_000
_ROOM_RETRY_NS = 1_000_000
# At most so much at a time, so that many files share the ingest thread.
_MOST_READ_MS = 1000
_ENCODINGS = {"ULAW": Encoding.MULAW, "ALAW": Encoding.ALAW, "FLOAT": Encoding.F32LE}
# libsndfile converts these to int16 exactly or by dropping low bits. Decoders of all others work in
# floats, which can pass full scale and which libsndfile would let wrap around.
_INTEGER_SUBTYPES = frozenset({"PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "ULAW", "ALAW"})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FileOptions:
    """One recording.

    Attributes
    ----------
    stream
        Stream id; None for the file's name without its ending. Of several channels, channel
        ``k`` is ``stream/k``.
    realtime
        Whether audio comes at the pace at which it was recorded.
    roles
        Role of each channel.
    block_ms
        Length of a block at real time.
    least_ms
        Not at real time: how much room there must be before anything is read. Each read costs 10
        to 20 µs beyond its samples, so it pays not to read little. A row always gets room for
        half a second.
    call_id, labels
        Copied into the events.
    """

    name: str
    path: Path
    stream: str | None = None
    realtime: bool = True
    roles: tuple[Role, ...] = ()
    block_ms: int = 20
    least_ms: int = 0
    call_id: str | None = None
    labels: Mapping[str, str] | None = None


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile carries no types
    """A recording that is read from its beginning to its end.

    After each read of a seekable file, soundfile seeks to where it is already. An MP3 decoder
    then forgets the bits that it carries over from frame to frame, and every block begins with
    damaged audio.
    """

    def seekable(self) -> bool:
        return False


def open_recording(path: Path) -> Any:
    """The `soundfile.SoundFile` of a recording, to be read forwards by `read_samples`.

    Raises
    ------
    SourceError
        ``file_not_found`` or ``file_unreadable`` (not audio, damaged, no permission).
    """
    try:
        # libsndfile does not say why the system refuses a file; this does.
        with path.open("rb"):
            return _ForwardFile(path)
    except FileNotFoundError as error:
        raise SourceError("file_not_found", f"{path}: there is no such file") from error
    except OSError as error:
        raise SourceError("file_unreadable", f"{path}: {error.strerror}") from error
    except (soundfile.LibsndfileError, TypeError) as error:
        # TypeError: a name that ends in .raw, for which soundfile wants to be told the format.
        raise SourceError(
            "file_unreadable", f"{path}: not a recording that can be read ({_words(error)})"
        ) from error


def read_samples(file: Any, count: int) -> Int16Array:
    """The next samples of an open recording, at most `count`: int16 ``[n, channels]``.

    Raises
    ------
    MessageError
        ``not_finite``: a float sample is NaN or infinite.
    soundfile.LibsndfileError
        The file is damaged here.
    """
    if file.subtype not in _INTEGER_SUBTYPES:
        return pcm.from_float(file.read(count, "float32", always_2d=True))
    samples: Int16Array = file.read(count, "int16", always_2d=True)
    return samples


class FileSource:
    """Plays a recording into the intake. Implements `serd.sources.base.Source`.

    WAV, FLAC, Ogg (Vorbis and Opus), MP3 and whatever else libsndfile reads; 1 to 8 channels at
    8000 to 48000 Hz. A recording is never dropped: at real time, too, it waits for room.

    Parameters
    ----------
    clock
        Paces a recording that is played at real time; gives the wall time of its beginning.
    log_damage
        Whether to log it when the recording turns out to be damaged.

    Attributes
    ----------
    damage
        What is wrong with the recording and where, once it was found to be damaged.
    """

    def __init__(
        self, options: FileOptions, clock: Clock | None = None, *, log_damage: bool = True
    ) -> None:
        self.damage: str | None = None
        self._log_damage = log_damage
        self._options = options
        self._clock = clock or SystemClock()
        self._file: Any = None
        self._encoding = Encoding.S16LE
        self._sample_rate_hz = 0
        self._channels = 0
        self._samples = 0
        self._position = 0
        self._tap: Tap | None = None
        self._started_ns = 0
        self._started_unix_ns = 0
        self._finished = False

    @property
    def name(self) -> str:
        """Name from the configuration."""
        return self._options.name

    @property
    def lossless(self) -> bool:
        """A file waits."""
        return True

    @property
    def finished(self) -> bool:
        """Whether the recording has come to its end."""
        return self._finished

    @property
    def stream(self) -> str:
        """The stream id that the recording plays as."""
        return self._options.stream or self._options.path.stem

    @property
    def streams(self) -> Sequence[str]:
        """The stream id of each channel, once the recording is open."""
        if self._channels == 1:
            return [self.stream]
        return [f"{self.stream}/{number}" for number in range(self._channels)]

    @property
    def duration_s(self) -> float:
        """Length of the recording, once it is open; estimated for some MP3 files."""
        return self._samples / self._sample_rate_hz if self._sample_rate_hz else 0.0

    @property
    def position_s(self) -> float:
        """How much of it has been played."""
        return self._position / self._sample_rate_hz if self._sample_rate_hz else 0.0

    def open(self, waker: Waker) -> None:
        """Open the file.

        Raises
        ------
        SourceError
            ``file_not_found``, ``file_unreadable`` (not audio, damaged, no permission),
            ``rate_unsupported`` or ``channels_unsupported``.
        """
        path = self._options.path
        file = open_recording(path)
        problem = _unsupported(file)
        if problem is not None:
            file.close()
            raise SourceError(problem[0], f"{path}: {problem[1]}")
        self._file = file
        self._encoding = _ENCODINGS.get(file.subtype, Encoding.S16LE)
        self._sample_rate_hz = file.samplerate
        self._channels = file.channels
        self._samples = file.frames

    def pollables(self) -> Sequence[zmq.Socket[bytes] | int]:
        """Nothing: a file is always readable."""
        return ()

    def service(self, now_ns: int, intake: Intake) -> int | None:
        """Push what is due and fits."""
        if self._file is None:
            return None
        if self._tap is None:
            self._begin(now_ns, intake)
            assert self._tap is not None
        if self._options.realtime:
            return self._push_due(now_ns, intake, self._tap)
        room = intake.room(self._tap)
        if not room or room * 1000 < self._sample_rate_hz * self._options.least_ms:
            return now_ns + _ROOM_RETRY_NS
        count = min(room, self._sample_rate_hz * _MOST_READ_MS // 1000)
        return now_ns if self._push(count, intake, self._tap) else None

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def counts(self) -> dict[str, int]:
        """Samples per channel that were played."""
        return {"samples": self._position}

    def _begin(self, now_ns: int, intake: Intake) -> None:
        self._started_ns = now_ns
        self._started_unix_ns = self._clock.unix_ns()
        self._tap = intake.open_stream(
            self,
            self.stream,
            self._sample_rate_hz,
            self._channels,
            self._options.roles,
            self._encoding,
            self._started_unix_ns,
            self._options.call_id,
            self._options.labels,
        )

    def _push_due(self, now_ns: int, intake: Intake, tap: Tap) -> int | None:
        """Push the blocks whose last sample would have been captured by now."""
        block = max(1, self._sample_rate_hz * self._options.block_ms // 1000)
        while (due_ns := self._time_ns(self._position + block)) <= now_ns:
            if intake.room(tap) < block:
                return now_ns + _ROOM_RETRY_NS
            if not self._push(block, intake, tap):
                return None
        return due_ns

    def _time_ns(self, position: int) -> int:
        return self._started_ns + position * _NS // self._sample_rate_hz

    def _push(self, count: int, intake: Intake, tap: Tap) -> bool:
        """Push up to `count` samples per channel; False at the end of the file."""
        try:
            samples = read_samples(self._file, count)
        except (soundfile.LibsndfileError, MessageError) as error:
            self.damage = f"damaged at {self.position_s:.3f} s ({_words(error)})"
            if self._log_damage:
                _log.warning(
                    "file.unreadable", source=self.name, at_s=self.position_s, problem=_words(error)
                )
            return self._end(intake, tap, "file_unreadable")
        if len(samples):
            captured_at_ns = self._started_unix_ns + self._position * _NS // self._sample_rate_hz
            intake.push(tap, samples, captured_at_ns)
            self._position += len(samples)
        return len(samples) == count or self._end(intake, tap, "end")

    def _end(self, intake: Intake, tap: Tap, reason: str) -> bool:
        intake.close_stream(tap, reason)
        self._finished = True
        self.close()
        return False


def _unsupported(file: Any) -> tuple[str, str] | None:
    if not MIN_RATE_HZ <= file.samplerate <= MAX_RATE_HZ:
        return (
            "rate_unsupported",
            f"{file.samplerate} Hz; rates from {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are supported",
        )
    if file.channels > MAX_CHANNELS:
        return "channels_unsupported", f"{file.channels} channels; at most {MAX_CHANNELS}"
    return None


def _words(error: Exception) -> str:
    return str(getattr(error, "error_string", error))
