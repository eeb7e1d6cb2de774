"""Keys that are each in order and cannot hold together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from serd.config.exposure import security_conflicts
from serd.config.schema import Config, ZmqSourceConfig


class Conflict(NamedTuple):
    """Paths of the keys involved, the first being the one to blame, and a sentence on why."""

    paths: tuple[str, ...]
    text: str


def conflicts(config: Config) -> Iterator[Conflict]:
    """Every impossible combination in `config`."""
    vad, segment, inference = config.vad, config.segment, config.inference
    if vad.offset_threshold > vad.onset_threshold:
        yield Conflict(
            ("vad.offset_threshold", "vad.onset_threshold"),
            f"{vad.offset_threshold} is above onset_threshold ({vad.onset_threshold}):"
            " speech would end while it begins",
        )
    if segment.hop_s > segment.window_s:
        yield Conflict(
            ("segment.hop_s", "segment.window_s"),
            f"{segment.hop_s} is longer than window_s ({segment.window_s}):"
            " speech between two segments would never be looked at",
        )
    if segment.padding_ms > segment.hangover_ms:
        yield Conflict(
            ("segment.padding_ms", "segment.hangover_ms"),
            f"{segment.padding_ms} is longer than hangover_ms ({segment.hangover_ms}):"
            " the end of an utterance would not have arrived when it is told",
        )
    if segment.max_utterance_s < segment.window_s:
        yield Conflict(
            ("segment.max_utterance_s", "segment.window_s"),
            f"{segment.max_utterance_s} is shorter than window_s ({segment.window_s}):"
            " no segment would ever be full",
        )
    if segment.min_speech_ms > segment.max_utterance_s * 1000:
        yield Conflict(
            ("segment.min_speech_ms", "segment.max_utterance_s"),
            f"{segment.min_speech_ms} is longer than max_utterance_s ({segment.max_utterance_s}):"
            " no utterance could begin",
        )
    if inference.queue_segments < inference.max_batch:
        yield Conflict(
            ("inference.queue_segments", "inference.max_batch"),
            f"{inference.queue_segments} is less than max_batch ({inference.max_batch}):"
            " no batch could be full",
        )
    if config.streams.max_lag_ms >= config.streams.backlog_s * 1000:
        yield Conflict(
            ("streams.max_lag_ms", "streams.backlog_s"),
            f"{config.streams.max_lag_ms} is not below backlog_s ({config.streams.backlog_s}):"
            " audio would be lost for want of room before a stream is left out",
        )
    yield from _source_conflicts(config)
    yield from _endpoint_conflicts(config)
    for paths, text in security_conflicts(config):
        yield Conflict(paths, text)


def _source_conflicts(config: Config) -> Iterator[Conflict]:
    first_with_name: dict[str, int] = {}
    first_with_stream: dict[str, int] = {}
    for index, source in enumerate(config.sources):
        path = f"sources.{index}"
        if source.name in first_with_name:
            yield Conflict(
                (f"{path}.name", f"sources.{first_with_name[source.name]}.name"),
                f"{source.name!r} is the name of sources.{first_with_name[source.name]} already",
            )
        first_with_name.setdefault(source.name, index)
        if not isinstance(source, ZmqSourceConfig):
            if source.stream in first_with_stream:
                yield Conflict(
                    (f"{path}.stream", f"sources.{first_with_stream[source.stream]}.stream"),
                    f"{source.stream!r} is the stream of"
                    f" sources.{first_with_stream[source.stream]} already",
                )
            elif source.stream is not None:
                first_with_stream[source.stream] = index
            continue
        if not source.bind and not source.connect:
            yield Conflict(
                (path, f"{path}.bind", f"{path}.connect"),
                "needs an endpoint to bind or to connect to",
            )
        if source.socket == "SUB" and not source.subscribe:
            yield Conflict(
                (f"{path}.subscribe", f"{path}.socket"),
                "is empty: a SUB socket without a topic receives nothing"
                ' (subscribe = [""] is everything)',
            )
        if source.socket == "PULL" and "subscribe" in source.model_fields_set:
            yield Conflict(
                (f"{path}.subscribe", f"{path}.socket"),
                'only means something with socket = "SUB"',
            )


def bound_endpoints(config: Config) -> list[tuple[str, str]]:
    """Endpoints that `config` binds, each with the path of its key."""
    bound = [
        (f"sources.{index}.bind", endpoint)
        for index, source in enumerate(config.sources)
        if isinstance(source, ZmqSourceConfig)
        for endpoint in source.bind
    ]
    bound += [("publish.bind", endpoint) for endpoint in config.publish.bind]
    bound += [("publish.replay_bind", endpoint) for endpoint in config.publish.replay_bind]
    return bound


def _endpoint_conflicts(config: Config) -> Iterator[Conflict]:
    bound = bound_endpoints(config)
    for later, (path, endpoint) in enumerate(bound):
        for other_path, other in bound[:later]:
            if _overlap(endpoint, other):
                yield Conflict(
                    (path, other_path), f"{endpoint} is taken by {other_path} ({other}) already"
                )
                break


def _overlap(one: str, other: str) -> bool:
    """Whether two endpoints cannot be bound at once."""
    if not (one.startswith("tcp://") and other.startswith("tcp://")):
        return one == other and not one.endswith("://*")
    (one_host, one_port), (other_host, other_port) = _host_port(one), _host_port(other)
    if one_port != other_port or one_port in {"*", "0"}:
        return False
    anywhere = {"*", "0.0.0.0"}
    return one_host == other_host or bool(anywhere & {one_host, other_host})


def _host_port(endpoint: str) -> tuple[str, str]:
    host, _, port = re.sub(r"^tcp://", "", endpoint).rpartition(":")
    return host, port
