"""A real daemon among peers that mean no good: it goes on for everybody else."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from serd.client import Subscriber
from serd.commands.keygen import write_secret
from serd.curve import CurveKeys, Link
from serd.protocol.events import StreamEvent
from serd.protocol.tap import MAX_PAYLOAD_BYTES
from serd.protocol.writer import TapWriter
from serd.types import Encoding
from tests.daemon import RunningDaemon, running_daemon
from tests.fakes import wait_until
from tests.security.zmtp import connected, is_cut_off, long_frame

SERVER, TAP, OTHER_TAP, DASHBOARD, STRANGER = (CurveKeys.generate() for _ in range(5))


def peer(name: str, keys: CurveKeys, may: str) -> str:
    return f"[[security.peers]]\nname = '{name}'\npublic_key = '{keys.public}'\nmay = {may}\n"


PEERS = peer("tap", TAP, "['send']") + peer("dashboard", DASHBOARD, "['subscribe', 'replay']")
# Heartbeats show a subscriber that it is heard.
ENERGY = "[vad]\ndetector = 'energy'\n[daemon]\nheartbeat_s = 0.2\n"


@contextmanager
def guarded(folder: Path, extra: str = "", peers: str = PEERS) -> Iterator[RunningDaemon]:
    secret = folder / "serd.secret"
    write_secret(secret, SERVER)
    config = f"{ENERGY}[security]\ncurve = true\nsecret_key = '{secret}'\n{peers}{extra}"
    with running_daemon(folder, config) as daemon:
        yield daemon


class Taps:
    """Taps that send a moment of silence, under any name and with any key."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._open: list[zmq.Socket[bytes]] = []

    def open(self, endpoint: str, link: Link | None, *streams: str) -> None:
        push = self._context.socket(zmq.PUSH)
        push.linger = 0
        self._open.append(push)
        if link is not None:
            link.reach(push)
        push.connect(endpoint)
        for stream in streams:
            writer = TapWriter(stream, 8000, Encoding.MULAW)
            push.send_multipart(writer.start())
            push.send_multipart(writer.audio(b"\xff" * 160))

    def close(self) -> None:
        for push in self._open:
            push.close()


@pytest.fixture
def taps(zmq_context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Taps]:
    taps = Taps(zmq_context)
    yield taps
    taps.close()


@contextmanager
def listening(
    daemon: RunningDaemon, *topics: str, curve: Link | None = None
) -> Iterator[Subscriber]:
    """A subscriber that misses nothing from now on."""
    with Subscriber(daemon.events, [*topics, "daemon."] if topics else [""], curve=curve) as events:
        assert events.receive(30) is not None, "no heartbeat"
        yield events


def opened(events: Subscriber, stream: str) -> StreamEvent:
    """The event that tells of a stream, whatever comes before it."""
    events_of_others = 0
    while events_of_others < 10_000:
        event = events.receive(30)
        assert event is not None, f"nothing was heard of {stream}"
        if isinstance(event, StreamEvent) and event.stream == stream:
            return event
        events_of_others += 1
    raise AssertionError(f"nothing was heard of {stream}")


def test_keys_decide_who_sends_subscribes_and_replays(tmp_path: Path, taps: Taps) -> None:
    audit = tmp_path / "audit.jsonl"
    with guarded(tmp_path, f"[audit]\npath = '{audit}'\n") as daemon:
        dashboard = Link(DASHBOARD, SERVER.public)
        for link in (None, Link(STRANGER, SERVER.public), Link(TAP, SERVER.public)):
            with Subscriber(
                daemon.events,
                replay=daemon.replay,
                last_values=True,
                curve=link,
                replay_timeout_s=0.5,
            ) as nobody:
                assert nobody.receive(0.5) is None
        with Subscriber(
            daemon.events, replay=daemon.replay, last_values=True, curve=dashboard
        ) as events:
            for link in (
                None,
                Link(STRANGER, SERVER.public),
                Link(TAP, STRANGER.public),
                dashboard,
            ):
                taps.open(daemon.tap, link, "intruder")
            wait_until(lambda: len(daemon.logged("handshake.failed")) >= 2, "failures to be told")
            wait_until(lambda: len(daemon.logged("peer.refused")) >= 2, "refusals to be told")
            taps.open(daemon.tap, Link(TAP, SERVER.public), "call")
            assert opened(events, "call").state == "opened"
        assert {entry["address"] for entry in daemon.logged("peer.refused")} == {"127.0.0.1"}
        assert SERVER.secret not in str(daemon.log)
        assert daemon.stop() == os.EX_OK
    kept = [json.loads(line) for line in audit.read_text().splitlines()]
    refused = [entry for entry in kept if entry["event"] == "peer.refused"]
    assert {(entry["address"], entry["why"], entry["peer"]) for entry in refused} == {
        ("127.0.0.1", "unknown_key", ""),
        ("127.0.0.1", "not_permitted", "tap"),
        ("127.0.0.1", "not_permitted", "dashboard"),
    }


@pytest.mark.slow
def test_peers_come_and_go_with_a_reload_and_streams_stay(tmp_path: Path, taps: Taps) -> None:
    with guarded(tmp_path) as daemon:
        [path] = tmp_path.glob("serd-*.toml")
        before = path.read_text()
        link = Link(DASHBOARD, SERVER.public)
        with listening(daemon, "stream.", curve=link) as events:
            taps.open(daemon.tap, Link(TAP, SERVER.public), "stays")
            assert opened(events, "stays").state == "opened"
            taps.open(daemon.tap, Link(OTHER_TAP, SERVER.public), "comes")
            wait_until(lambda: daemon.logged("peer.refused"), "the refusal")
            path.write_text(before + peer("other", OTHER_TAP, "'send'"))
            daemon.process.send_signal(signal.SIGHUP)
            # It tries again by itself.
            assert opened(events, "comes").state == "opened"
            assert not [entry for entry in daemon.log if entry.get("event") == "stream.closed"]
            path.write_text(
                before.replace(peer("dashboard", DASHBOARD, "['subscribe', 'replay']"), "")
            )
            daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(daemon.logged("security.peers")) == 2, "the reload")
            assert daemon.logged("security.peers")[1]["cut_off"] == 1
            wait_until(
                lambda: any(e["socket"] == "subscribe" for e in daemon.logged("peer.refused")),
                "the subscriber to be refused",
            )
        assert daemon.stop() == os.EX_OK


def test_a_tap_keeps_to_its_streams(tmp_path: Path, taps: Taps) -> None:
    with guarded(tmp_path, "[limits]\npeer_streams = 2\n") as daemon:
        with listening(daemon, "stream.", curve=Link(DASHBOARD, SERVER.public)) as events:
            taps.open(daemon.tap, Link(TAP, SERVER.public), "s0", "s1", "s2")
            refused = opened(events, "s2")
            assert (refused.state, refused.reason) == ("refused", "peer_streams")
        assert daemon.stop() == os.EX_OK


@pytest.mark.slow
def test_ten_thousand_connections_that_come_and_go(tmp_path: Path, taps: Taps) -> None:
    with running_daemon(tmp_path, ENERGY) as daemon, listening(daemon) as events:
        ports = [
            int(endpoint.rpartition(":")[2])
            for endpoint in (daemon.tap, daemon.events, daemon.replay)
        ]
        taps.open(daemon.tap, None, "before")
        opened(events, "before")
        memory_kib = daemon.memory_kib()
        for number in range(10_000):
            with socket.create_connection(("127.0.0.1", ports[number % 3])) as raw:
                if number % 10 == 0:
                    raw.sendall(os.urandom(64))
        taps.open(daemon.tap, None, "after")
        assert opened(events, "after").state == "opened"

        def descriptors() -> int:
            return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))  # noqa: PTH208

        wait_until(lambda: descriptors() < 200, "descriptors to be freed", 60)
        assert daemon.memory_kib() - memory_kib < 50 * 1024
        # One line a minute for each kind, not one for each connection.
        wait_until(lambda: daemon.logged("handshake.failed"), "the failures to be told")
        assert 1 <= len(daemon.logged("handshake.failed")) < 50
        assert daemon.stop() == os.EX_OK


def test_half_open_connections_do_not_keep_others_out(tmp_path: Path, taps: Taps) -> None:
    limits = "[limits]\npeer_connections = 50\nconnections = 100\n"
    with running_daemon(tmp_path, ENERGY + limits) as daemon, ExitStack() as stack:
        port = int(daemon.tap.rpartition(":")[2])
        for number in range(200):
            raw = stack.enter_context(socket.socket())
            raw.bind(("127.0.0.9", 0))
            raw.connect(("127.0.0.1", port))
            if number % 2:
                raw.sendall(b"\xff\0")
        with listening(daemon) as events:
            taps.open(daemon.tap, None, "call")
            assert opened(events, "call").state == "opened"
        wait_until(lambda: daemon.logged("peer.refused"), "the refusal to be told")
        told = daemon.logged("peer.refused")
        assert told[0]["reason"] == "peer_connections"
        assert told[0]["address"] == "127.0.0.9"
        assert daemon.stop() == os.EX_OK


@pytest.mark.parametrize("size", [MAX_PAYLOAD_BYTES * 17, 1 << 40, (1 << 64) - 1])
def test_huge_frames_end_their_connection_alone(tmp_path: Path, taps: Taps, size: int) -> None:
    with running_daemon(tmp_path, ENERGY) as daemon, listening(daemon) as events:
        memory_kib = daemon.memory_kib()
        for endpoint, kind in (
            (daemon.tap, b"PUSH"),
            (daemon.events, b"SUB"),
            (daemon.replay, b"DEALER"),
        ):
            with connected(endpoint, kind) as raw:
                raw.sendall(long_frame(size))
                assert is_cut_off(raw)
        taps.open(daemon.tap, None, "call")
        assert opened(events, "call").state == "opened"
        assert daemon.memory_kib() - memory_kib < 50 * 1024
        assert daemon.stop() == os.EX_OK
