"""What can be configured: one frozen model a section, every key with its unit and its bounds.

``defaults.toml`` beside this file describes every key for users; a test holds the two together.
Checks that involve more than one key are in `serd.config.combinations`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field

from serd.curve import Right, is_key
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
StreamPrefixes = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
SampleRate = Annotated[int, Field(strict=True, ge=8000, le=48000)]
StreamId = Annotated[Text, AfterValidator(_stream_id)]
PortAudioChannel = Annotated[int, Field(strict=True, ge=1, le=64)]


def _key(value: str) -> str:
    if not is_key(value):
        raise ValueError("must be a public key of 40 characters, as serd keygen prints it")
    return value


PublicKey = Annotated[Text, AfterValidator(_key)]
PublicKeys = Annotated[tuple[PublicKey, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DaemonSection(Section):
    """The process itself."""

    name: Text = "serd"
    drain_timeout_s: Annotated[Number, Field(ge=0.1, le=600)] = 10.0
    heartbeat_s: Annotated[Number, Field(ge=0.1, le=3600)] = 5.0
    control: Annotated[str, Field(strict=True)] = "auto"


class ZmqSourceConfig(Section):
    """Audio from publishers that speak the tap protocol."""

    type: Literal["zmq"]
    name: Text = "zmq"
    socket: Literal["PULL", "SUB"] = "PULL"
    bind: BindEndpoints = ()
    connect: ConnectEndpoints = ()
    subscribe: Topics = ("",)
    server_keys: PublicKeys = ()
    receive_hwm: Annotated[Integer, Field(ge=1, le=10_000_000)] = 10_000
    roles: Annotated[Roles, Field(max_length=8)] = ()
    consent: Flag = False


class MicrophoneSourceConfig(Section):
    """Audio from a sound device."""

    type: Literal["microphone"]
    name: Text = "microphone"
    stream: StreamId | None = None
    device: Text | Annotated[Integer, Field(ge=0)] | None = None
    sample_rate_hz: SampleRate | None = None
    channels: Annotated[tuple[PortAudioChannel, ...], Field(min_length=1, max_length=8)] = (1,)
    roles: Annotated[Roles, Field(max_length=8)] = ()
    consent: Flag = False
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
    consent: Flag = False


SourceConfig = Annotated[
    ZmqSourceConfig | MicrophoneSourceConfig | FileSourceConfig, Discriminator("type")
]


class StreamsSection(Section):
    """Limits and repairs that hold for every stream."""

    max_streams: Annotated[Integer, Field(ge=1, le=100_000)] = 4000
    idle_timeout_s: Annotated[Number, Field(ge=0.1, le=86_400)] = 30.0
    reorder_messages: Annotated[Integer, Field(ge=0, le=1024)] = 8
    refuse_roles: Roles = (Role.AGENT, Role.MIXED)
    allow_mixed: StreamPrefixes = ()
    require_consent: Flag = False
    max_fill_ms: Annotated[Integer, Field(ge=0, le=60_000)] = 500
    backlog_s: Annotated[Number, Field(ge=0.5, le=60)] = 2.0
    max_lag_ms: Annotated[Integer, Field(ge=50, le=60_000)] = 110


class VadSection(Section):
    """Voice activity detection."""

    detector: Literal["auto", "serd-vad", "silero", "energy"] = "auto"
    onset_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    offset_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.35
    device: Literal["auto", "cpu"] = "auto"
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
    precision: Literal["float32", "tf32"] = "float32"
    model: Text = "serd-crnn"
    workers: Annotated[Integer, Field(ge=0, le=64)] = 0
    threads: Annotated[Integer, Field(ge=1, le=64)] = 1
    max_batch: Annotated[Integer, Field(ge=1, le=256)] = 32
    max_wait_ms: Annotated[Number, Field(ge=0, le=1000)] = 1.0
    queue_segments: Annotated[Integer, Field(ge=1, le=100_000)] = 256
    shadow: Annotated[str, Field(strict=True)] = ""
    load_timeout_s: Annotated[Number, Field(ge=0.1, le=3600)] = 30.0


class PublishSection(Section):
    """Where events go."""

    bind: Annotated[BindEndpoints, Field(min_length=1)] = ("tcp://127.0.0.1:5556",)
    replay_bind: BindEndpoints = ("tcp://127.0.0.1:5557",)
    # ZeroMQ reads a high-water mark of 0 as "no limit", and no queue here is without one.
    send_hwm: Annotated[Integer, Field(ge=1, le=10_000_000)] = 100_000
    keep_events: Annotated[Integer, Field(ge=1, le=10_000_000)] = 100_000


class JournalSection(Section):
    """Events on disk, so that they can be asked for again after a restart."""

    path: Annotated[str, Field(strict=True)] = "auto"
    ttl_h: Annotated[Number, Field(gt=0, le=87_600)] = 72.0
    max_mib: Annotated[Number, Field(ge=1, le=1_048_576)] = 1024.0
    synchronous: Literal["normal", "full"] = "normal"
    max_wait_ms: Annotated[Number, Field(ge=1, le=60_000)] = 200.0


def _http_address(value: str) -> str:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s]+):(?P<port>\d{1,5})", value)
    if value and (not match or int(match["port"]) > 65535):
        raise ValueError(
            "must look like HOST:PORT, an IPv6 address in brackets, or be empty for none"
        )
    return value


class MetricsSection(Section):
    """Metrics and health over HTTP."""

    bind: Annotated[str, Field(strict=True), AfterValidator(_http_address)] = "127.0.0.1:9464"


class PeerConfig(Section):
    """Somebody who may use the sockets of the daemon, known by a key."""

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    public_key: PublicKey
    may: Annotated[tuple[Right, ...], BeforeValidator(_listed), Field(min_length=1)]


class SecuritySection(Section):
    """Who is let in, and how it is known who that is."""

    curve: Flag = False
    secret_key: Text = "serd.secret"
    allow_plaintext: Flag = False
    peers: tuple[PeerConfig, ...] = ()


class LimitsSection(Section):
    """What one peer may use up. 0 is no limit where 0 is allowed."""

    connections: Annotated[Integer, Field(ge=1, le=1_000_000)] = 10_000
    peer_connections: Annotated[Integer, Field(ge=1, le=1_000_000)] = 1000
    peer_streams: Annotated[Integer, Field(ge=0, le=100_000)] = 0
    peer_messages_s: Annotated[Integer, Field(ge=0, le=10_000_000)] = 0
    peer_bytes_s: Annotated[Integer, Field(ge=0, le=10_000_000_000)] = 0
    peer_subscriptions: Annotated[Integer, Field(ge=1, le=1_000_000)] = 10_000
    peer_replays_s: Annotated[Integer, Field(ge=0, le=1_000_000)] = 500


class AuditSection(Section):
    """The append-only log of who did what with the daemon."""

    path: Annotated[str, Field(strict=True)] = "auto"
    max_mib: Annotated[Integer, Field(ge=1, le=1024)] = 64


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
    journal: JournalSection = JournalSection()
    metrics: MetricsSection = MetricsSection()
    security: SecuritySection = SecuritySection()
    limits: LimitsSection = LimitsSection()
    audit: AuditSection = AuditSection()
    logging: LoggingSection = LoggingSection()


SOURCE_MODELS: dict[str, type[Section]] = {
    "zmq": ZmqSourceConfig,
    "microphone": MicrophoneSourceConfig,
    "file": FileSourceConfig,
}
