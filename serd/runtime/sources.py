"""Sources from their configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import zmq

from serd.clock import Clock
from serd.config.schema import Config, FileSourceConfig, MicrophoneSourceConfig
from serd.curve import Door
from serd.sources.base import Source
from serd.sources.file import FileOptions, FileSource
from serd.sources.meter import PeerLimits
from serd.sources.microphone import MicrophoneOptions, MicrophoneSource
from serd.sources.zmq import ZmqOptions, ZmqSource


def make_sources(
    config: Config, context: zmq.Context[zmq.Socket[bytes]], clock: Clock, door: Door
) -> Sequence[Source]:
    """A source for each ``[[sources]]`` table, not opened yet."""
    limits = PeerLimits(
        config.limits.peer_streams,
        config.limits.peer_messages_s,
        config.limits.peer_bytes_s,
        config.streams.idle_timeout_s,
    )
    sources: list[Source] = []
    for source in config.sources:
        if isinstance(source, MicrophoneSourceConfig):
            sources.append(
                MicrophoneSource(
                    MicrophoneOptions(
                        name=source.name,
                        stream=source.stream or source.name,
                        device=source.device,
                        sample_rate_hz=source.sample_rate_hz,
                        channels=source.channels,
                        roles=source.roles,
                        block_ms=source.block_ms,
                        retry_s=source.retry_s,
                    )
                )
            )
        elif isinstance(source, FileSourceConfig):
            sources.append(
                FileSource(
                    FileOptions(
                        name=source.name,
                        path=Path(source.path),
                        stream=source.stream,
                        realtime=source.realtime,
                        roles=source.roles,
                    ),
                    clock,
                )
            )
        else:
            sources.append(
                ZmqSource(
                    ZmqOptions(
                        name=source.name,
                        socket=source.socket,
                        bind=source.bind,
                        connect=source.connect,
                        subscribe=source.subscribe,
                        receive_hwm=source.receive_hwm,
                        server_keys=source.server_keys,
                        limits=limits,
                        roles=source.roles,
                    ),
                    context,
                    door,
                )
            )
    return sources
