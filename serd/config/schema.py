"""What can be configured: one frozen model a section, every key with its unit and its bounds.

``defaults.toml`` beside this file describes every key for users; a test holds the two together.
Checks that involve more than one key are in `serd.config.combinations`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field

from serd.types import Role

# Strict, because "5" or true where a number belongs is a mistake worth telling.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Integer = Annotated[int, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Flag = Annotated[bool, Field(strict=True)]

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<port>\d{1,5}|\*)")


def _listed(value: object) -> object:
    """A single string stands for a list of one."""
    return [value] if isinstance(value, str) else value


def _endpoint(value: str) -> str:
    if value.startswith("tcp://"):
        match = _TCP.fullmatch(value)
        if not match or (match["port"] != "*" and int(match["port"]) > 65535):
            raise ValueError("must look like tcp://HOST:PORT, with a port up to 65535")
    elif not re.fullmatch(r"(ipc|inproc)://\S+", value):
        raise ValueError("must begin with tcp://, ipc:// or inproc://")
    return value


def _peer(value: str) -> str:
    if _endpoint(value).startswith("tcp://") and "*" in value:
        raise ValueError("cannot hold * in an address to connect to")
    return value


def _stream_id(value: str) -> str:
    if len(value.encode()) > 200:
        raise ValueError("must be at most 200 bytes of UTF-8")
    return value


BindEndpoints = Annotated[
    tuple[Annotated[Text, AfterValidator(_endpoint)], ...], BeforeValidator(_listed)
]
ConnectEndpoints = Annotated[
    tuple[Annotated[Text, AfterValidator(_peer)], ...], BeforeValidator(_listed)
]
Topics = Annotated[tuple[Annotated[str, Field(strict=True)], ...], BeforeValidator(_listed)]
Roles = Annotated[tuple[Role, ...], BeforeValidator(_listed)]
SampleRate = Annotated[int, Field(strict=True, ge=8000, le=48000)]
StreamId = Annotated[Text, AfterValidator(_stream_id)]
PortAudioChannel = Annotated[int, Field(strict=True, ge=1, le=64)]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DaemonSection(Section):
    """The process itself."""

    name: Text = "serd"
    drain_timeout_s: Annotated[Number, Field(ge=0.1, le=600)] = 10.0
    heartbeat_s: Annotated[Number, Field(ge=0.1, le=3600)] = 5.0


class ZmqSourceConfig(Section):
    """Audio from publishers that speak the tap protocol."""

    type: Literal["zmq"]
    name: Text = "zmq"
    socket: Literal["PULL", "SUB"] = "PULL"
    bind: BindEndpoints = ()
    connect: ConnectEndpoints = ()
    subscribe: Topics = ("",)
    receive_hwm: Annotated[Integer, Field(ge=1, le=10_000_000)] = 10_000
    roles: Annotated[Roles, Field(max_length=8)] = ()


class MicrophoneSourceConfig(Section):
    """Audio from a sound device."""

    type: Literal["microphone"]
    name: Text = "microphone"
    stream: StreamId | None = None
    device: Text | Annotated[Integer, Field(ge=0)] | None = None
    sample_rate_hz: SampleRate | None = None
    channels: Annotated[tuple[PortAudioChannel, ...], Field(min_length=1, max_length=8)] = (1,)
    roles: Annotated[Roles, Field(max_length=8)] = ()
    block_ms: Annotated[Integer, Field(ge=2, le=500)] = 20
    retry_s: Annotated[Number, Field(ge=0.1, le=3600)] = 1.0


class FileSourceConfig(Section):
    """Audio from a recording."""

    type: Literal["file"]
    path: Text
    name: Text = "file"
    stream: StreamId | None = None
    realtime: Flag = True
    roles: Annotated[Roles, Field(max_length=8)] = ()


SourceConfig = Annotated[
    ZmqSourceConfig | MicrophoneSourceConfig | FileSourceConfig, Discriminator("type")
]


class StreamsSection(Section):
    """Limits and repairs that hold for every stream."""

    max_streams: Annotated[Integer, Field(ge=1, le=100_000)] = 4000
    idle_timeout_s: Annotated[Number, Field(ge=0.1, le=86_400)] = 30.0
    reorder_messages: Annotated[Integer, Field(ge=0, le=1024)] = 8
    refuse_roles: Roles = (Role.AGENT,)
    max_fill_ms: Annotated[Integer, Field(ge=0, le=60_000)] = 500
    backlog_s: Annotated[Number, Field(ge=0.5, le=60)] = 2.0
    max_lag_ms: Annotated[Integer, Field(ge=50, le=60_000)] = 110


class VadSection(Section):
    """Voice activity detection."""

    detector: Literal["auto", "serd-vad", "silero", "energy"] = "auto"
    onset_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    offset_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.35
    threads: Annotated[Integer, Field(ge=1, le=64)] = 1


class SegmentSection(Section):
    """From speech probabilities to utterances and the segments that the model sees."""

    window_s: Annotated[Number, Field(ge=0.5, le=30)] = 3.0
    hop_s: Annotated[Number, Field(ge=0.1, le=30)] = 1.0
    min_speech_ms: Annotated[Integer, Field(ge=32, le=5000)] = 250
    hangover_ms: Annotated[Integer, Field(ge=32, le=10_000)] = 500
    padding_ms: Annotated[Integer, Field(ge=0, le=5000)] = 200
    max_utterance_s: Annotated[Number, Field(ge=1, le=3600)] = 60.0


class InferenceSection(Section):
    """The emotion model and where it runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: Text = "serd-crnn"
    workers: Annotated[Integer, Field(ge=0, le=64)] = 0
    threads: Annotated[Integer, Field(ge=1, le=64)] = 1
    max_batch: Annotated[Integer, Field(ge=1, le=256)] = 32
    max_wait_ms: Annotated[Number, Field(ge=0, le=1000)] = 1.0
    queue_segments: Annotated[Integer, Field(ge=1, le=100_000)] = 256


class PublishSection(Section):
    """Where events go."""

    bind: Annotated[BindEndpoints, Field(min_length=1)] = ("tcp://127.0.0.1:5556",)
    replay_bind: BindEndpoints = ("tcp://127.0.0.1:5557",)
    # ZeroMQ reads a high-water mark of 0 as "no limit", and no queue here is without one.
    send_hwm: Annotated[Integer, Field(ge=1, le=10_000_000)] = 100_000
    keep_events: Annotated[Integer, Field(ge=1, le=10_000_000)] = 100_000


class LoggingSection(Section):
    """What the daemon says on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


DEFAULT_SOURCE = ZmqSourceConfig(type="zmq", name="zmq-0", bind=("tcp://127.0.0.1:5550",))
"""The source of a configuration that names none."""


class Config(Section):
    """A whole configuration. `Config()` is what runs without any file."""

    daemon: DaemonSection = DaemonSection()
    sources: tuple[SourceConfig, ...] = (DEFAULT_SOURCE,)
    streams: StreamsSection = StreamsSection()
    vad: VadSection = VadSection()
    segment: SegmentSection = SegmentSection()
    inference: InferenceSection = InferenceSection()
    publish: PublishSection = PublishSection()
    logging: LoggingSection = LoggingSection()


SOURCE_MODELS: dict[str, type[Section]] = {
    "zmq": ZmqSourceConfig,
    "microphone": MicrophoneSourceConfig,
    "file": FileSourceConfig,
}
