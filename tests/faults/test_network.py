"""A daemon on one host, its tap and its subscriber on another: the network between goes, and comes.

Hosts are network namespaces, joined by a pair of virtual interfaces. Needs root.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.daemon import Json
from tests.fakes import wait_until
from tests.faults.processes import Service, child, heard

STREAMS = 20
ADDRESSES = ("198.18.77.1", "198.18.77.2")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


class Network:
    """Two hosts and the wire between them."""

    def __init__(self) -> None:
        self.hosts = tuple(f"serd-{os.getpid()}-{side}" for side in "ab")
        self.wires = tuple(f"v{os.getpid()}{side}" for side in "ab")

    def build(self) -> None:
        for host in self.hosts:
            _ip("netns", "add", host)
        _ip("link", "add", self.wires[0], "type", "veth", "peer", "name", self.wires[1])
        for host, wire, address in zip(self.hosts, self.wires, ADDRESSES, strict=True):
            _ip("link", "set", wire, "netns", host)
            _ip("-n", host, "address", "add", f"{address}/30", "dev", wire)
            _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", host, "link", "set", wire, "up")

    def remove(self) -> None:
        for host in self.hosts:
            # What was never made cannot be removed.
            subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)

    def at(self, host: int) -> list[str]:
        """Words that begin a command on a host."""
        return ["ip", "netns", "exec", self.hosts[host]]

    def wire(self, state: str) -> None:
        """`up` or `down`."""
        _ip("-n", self.hosts[1], "link", "set", self.wires[1], state)

    def slow_down(self, delay: str) -> None:
        """Delay every packet, both ways; skips where the kernel cannot."""
        for host, wire in zip(self.hosts, self.wires, strict=True):
            shape = ["tc", "-n", host, "qdisc", "add", "dev", wire, "root", "netem"]
            done = subprocess.run(
                [*shape, "delay", *delay.split()], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"this kernel delays no packets (sch_netem): {done.stderr.strip()}")


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2, to make network namespaces")
    made = Network()
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.remove()


def _service(folder: Path, network: Network, *overrides: str) -> Service:
    journal = f"journal.path={folder / 'events.sqlite'}"
    plain = "security.allow_plaintext=true"
    return Service(folder, (journal, plain, *overrides), prefix=network.at(0), host=ADDRESSES[0])


def _journal(folder: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(f"file:{folder / 'events.sqlite'}?mode=ro", uri=True)) as db:
        return db.execute("SELECT cursor, topic FROM events ORDER BY cursor").fetchall()


def _check(folder: Path, lines: list[Json]) -> None:
    """The subscriber has all that was journalled, once and in order."""
    assert {line["kind"] for line in lines} == {"event"}
    cursors = [line["cursor"] for line in lines]
    rows = [cursor for cursor, _ in _journal(folder)]
    assert cursors == rows[: len(cursors)]


def _run(folder: Path, service: Service, network: Network, cut: bool) -> None:
    out = folder / "heard"
    subscribe = (service.events, service.replay, out)
    with (
        child("subscriber", *subscribe, prefix=network.at(1)),
        child("tap", service.pull, "--streams", STREAMS, prefix=network.at(1)),
    ):
        wait_until(lambda: len(heard(out)) > 5 * STREAMS, "events over the network", 60)
        if cut:
            network.wire("down")
            before = len(_journal(folder))
            # The daemon's own heartbeats, and the ends of the calls that it hears no more.
            wait_until(lambda: len(_journal(folder)) > before + STREAMS, "events meanwhile", 60)
            deaf = len(heard(out))
            assert deaf < len(_journal(folder))
            network.wire("up")
        seen = len(heard(out))
        wait_until(lambda: len(heard(out)) > seen + 5 * STREAMS, "events to flow again", 90)
        newest = _journal(folder)[-1][0]
        wait_until(lambda: heard(out)[-1]["cursor"] >= newest, "the subscriber to catch up", 60)
    _check(folder, heard(out))


def test_a_network_that_is_cut_for_a_while(tmp_path: Path, network: Network) -> None:
    with _service(tmp_path, network, "streams.idle_timeout_s=2.0") as service:
        _run(tmp_path, service, network, cut=True)
        topics = [topic for _, topic in _journal(tmp_path)]
        # Calls that went silent were closed, and opened again when they were heard again.
        assert topics.count("stream.call-000") >= 3
        assert service.daemon.stop() == 0


def test_a_network_with_delay_and_jitter(tmp_path: Path, network: Network) -> None:
    network.slow_down("150ms 50ms")
    with _service(tmp_path, network) as service:
        _run(tmp_path, service, network, cut=False)
        assert not [topic for _, topic in _journal(tmp_path) if topic.startswith("gap.")]
        assert service.daemon.stop() == 0
