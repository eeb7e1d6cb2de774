"""``serd status``, against a real daemon and against what is none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from serd.cli import execute
from serd.runtime.health import HealthServer
from serd.runtime.metrics import Queue
from tests.daemon import RunningDaemon, running_daemon
from tests.runtime.test_metrics import observation
from tests.speech import demo_speech
from tests.taps import Collector, Push, blocks


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(tmp_path_factory.mktemp("status")) as running:
        collector, push = Collector(running.events), Push(running.tap)
        push.send(blocks("call", demo_speech(8000), 8000, 20))
        collector.wait_closed(["call"])
        push.close()
        collector.close()
        yield running


def test_people_read_that_it_is_ready_and_what_it_does(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["status", "--url", daemon.http]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^serd \d.*: ready, up \d+ s", text)
    assert re.search(r"model +serd-crnn-\d+@sha256:\w+ on CPUExecutionProvider", text)
    assert re.search(r"streams +0 of 4000", text)
    assert re.search(r"so far +[\d,]+ messages, \d+ segments", text)
    assert re.search(r"latency +half within [\d.]+ ms, 99 % within", text)
    assert re.search(r"lost or refused +nothing", text)
    assert re.search(r"queue inference +0 of 256, at most \d", text)


def test_programs_read_json(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["status", "--url", daemon.http + "/", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ready"] is True
    assert document["figures"]["segments"] > 4
    assert document["figures"]["queues"]["events"]["capacity"] == 10_000
    assert document["figures"]["latency_ms"]["p50_at_most"] > 0


def test_the_configuration_says_where_to_ask(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    bind = daemon.http.removeprefix("http://")
    assert execute(["status", "--set", f"metrics.bind={bind}"]) == 0
    assert ": ready" in capsys.readouterr().out


def test_one_that_is_not_well_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    seen = observation(
        state="draining",
        counts={
            "overload.rows": 3,
            "inference.segments_dropped_overload": 12,
            "intake.refused.role_agent": 2,
            "intake.lost.messages": 5,
            "publish.subscriber_overruns": 1,
        },
        queues=(Queue("events", 9500, 10_000),),
    )
    server = HealthServer("127.0.0.1:0", lambda: seen)
    server.start()
    try:
        assert execute(["status", "--url", str(server.url)]) == 1
    finally:
        server.stop()
    text = capsys.readouterr().out
    assert "not ready" in text
    assert "the daemon is draining" in text
    assert "3 streams are left out" in text
    assert "the events queue is nearly full" in text
    assert (
        "12 segments (overload), 2 streams (role_agent), 5 messages on the way,"
        " 1 overruns of slow subscribers"
    ) in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://127.0.0.1:1"], "no daemon answers at http://127.0.0.1:1"),
        (["--url", "nonsense"], "no daemon answers at nonsense"),
        (["--set", 'metrics.bind=""'], 'metrics.bind is ""'),
    ],
)
def test_nobody_there(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["status", *arguments]) == 69
    assert words in capsys.readouterr().err


def test_something_else_there(capsys: pytest.CaptureFixture[str]) -> None:
    server = HealthServer("127.0.0.1:0", observation)
    server.start()
    try:
        # A path below which nothing is.
        assert execute(["status", "--url", f"{server.url}/elsewhere"]) == 69
    finally:
        server.stop()
    assert "is not a serd daemon" in capsys.readouterr().err
