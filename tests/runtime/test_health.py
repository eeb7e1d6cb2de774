"""Health documents, and the HTTP server that tells them."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from serd.runtime import health
from serd.runtime.health import HealthServer, live, ready, split_address
from serd.runtime.metrics import Observation, Queue
from tests.fakes import wait_until
from tests.runtime.test_metrics import observation


class TestDocuments:
    def test_a_daemon_at_work_is_live_and_ready(self) -> None:
        seen = observation(model="m", provider="p", streams=3)
        assert live(seen) == (True, {"live": True, "state": "ready", "reasons": []})
        good, document = ready(seen)
        assert good
        assert document["reasons"] == document["warnings"] == []
        assert document["streams"] == 3
        assert document["model"] == "m"

    @pytest.mark.parametrize("state", ["starting", "draining", "stopped"])
    def test_before_and_after_its_work_it_lives_and_is_not_ready(self, state: str) -> None:
        seen = observation(state=state)
        good, document = ready(seen)
        assert not good
        assert [reason["code"] for reason in document["reasons"]] == [state]
        assert live(seen)[0]

    @pytest.mark.parametrize(
        ("changes", "code"),
        [({"stuck": ("speech",)}, "stage_stuck"), ({"publisher_alive": False}, "publisher_ended")],
    )
    def test_what_a_restart_cures_is_neither(self, changes: dict[str, Any], code: str) -> None:
        for judge in (live, ready):
            good, document = judge(observation(**changes))
            assert not good
            assert [reason["code"] for reason in document["reasons"]] == [code]

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"counts": {"overload.rows": 2}}, "overload"),
            ({"journal_problem": "the journal /j: the disk is full"}, "journal_failing"),
            ({"counts": {"source.front.desk.up": 0}}, "source_down"),
            ({"queues": (Queue("events", 95, 100),)}, "queue_full"),
        ],
    )
    def test_what_it_does_its_work_in_spite_of_is_a_warning(
        self, changes: dict[str, Any], code: str
    ) -> None:
        good, document = ready(observation(**changes))
        assert good
        assert [warning["code"] for warning in document["warnings"]] == [code]

    def test_what_is_wrong_with_the_journal_is_told_in_its_own_words(self) -> None:
        problem = "the journal /var/lib/serd/events.sqlite: the disk is full: make room"
        [warning] = ready(observation(journal_problem=problem))[1]["warnings"]
        assert warning["text"] == f"events are published but not journalled: {problem}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize("text", ["9464", ":1", "::1:80", "host:", "host:70000", "[nonsense]:1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        split_address(text)


class Daemon:
    """Something to observe."""

    def __init__(self) -> None:
        self.now = observation()
        self.broken = False

    def observe(self) -> Observation:
        if self.broken:
            raise RuntimeError("a mistake")
        return self.now


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def url(daemon: Daemon) -> Iterator[str]:
    server = HealthServer("127.0.0.1:0", daemon.observe)
    server.start()
    assert server.url is not None
    yield server.url
    server.stop()


def get(url: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and content."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


class TestServer:
    def test_it_tells_metrics_and_health(self, url: str, daemon: Daemon) -> None:
        status, kind, text = get(f"{url}/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "serd_uptime_seconds 12.5\n" in text
        assert get(f"{url}/health/live")[0] == 200
        daemon.now = observation(state="draining")
        status, kind, text = get(f"{url}/health/ready?verbose")
        assert (status, kind) == (503, "application/json")
        assert json.loads(text)["reasons"][0]["code"] == "draining"

    def test_anything_else_is_not_there(self, url: str) -> None:
        assert get(f"{url}/")[0] == 404
        assert get(f"{url}/etc/passwd")[0] == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_it_is_read_only(self, url: str, method: str) -> None:
        assert get(f"{url}/metrics", method)[0] == 501

    def test_head_has_no_content(self, url: str) -> None:
        assert get(f"{url}/health/ready", "HEAD") == (200, "application/json", "")

    def test_a_mistake_of_ours_is_an_answer_without_details(self, url: str, daemon: Daemon) -> None:
        daemon.broken = True
        with structlog.testing.capture_logs() as log:
            status, _, text = get(f"{url}/metrics")
        assert status == 500
        assert "mistake" not in text
        assert [entry["event"] for entry in log] == ["http.failed"]
        daemon.broken = False
        assert get(f"{url}/metrics")[0] == 200

    def test_idle_connections_are_few_and_hung_up_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health, "PATIENCE_S", 0.2)
        monkeypatch.setattr(health._Handler, "timeout", None)
        server = HealthServer("127.0.0.1:0", observation)
        server.start()
        assert server.url is not None
        port = int(server.url.rpartition(":")[2])
        idle = [
            socket.create_connection(("127.0.0.1", port), timeout=20)
            for _ in range(3 * health.MOST_CONNECTIONS)
        ]
        try:
            for connection in idle:
                # Never more than a part of a request: only the server can end this.
                with connection:
                    try:
                        connection.sendall(b"GET /metr")
                        assert connection.recv(100) == b""
                    except ConnectionError:
                        # It was refused at once.
                        continue
            assert get(f"{server.url}/health/live")[0] == 200
        finally:
            server.stop()

    def test_a_port_that_is_taken_is_told_and_no_obstacle(self, url: str) -> None:
        second = HealthServer(url.removeprefix("http://"), observation)
        with structlog.testing.capture_logs() as log:
            second.start()
        assert second.url is None
        assert [(entry["event"], entry["log_level"]) for entry in log] == [
            ("metrics.unavailable", "error")
        ]
        second.stop()

    def test_none_is_started_without_an_address(self) -> None:
        server = HealthServer("", observation)
        server.start()
        assert server.url is None
        server.stop()

    def test_its_port_is_free_after_its_end(self, daemon: Daemon) -> None:
        server = HealthServer("127.0.0.1:0", daemon.observe)
        server.start()
        address = (server.url or "").removeprefix("http://")
        server.stop()

        def serves() -> bool:
            again = HealthServer(address, daemon.observe)
            again.start()
            again.stop()
            return again.url is not None

        wait_until(serves, "the port")
