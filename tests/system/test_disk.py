"""A disk under the service that can no longer be written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.machine import Json
from tests.system.service import Service

pytestmark = [pytest.mark.system, pytest.mark.slow]

SERD = "/opt/serd/bin/serd"
STATE = "/var/lib/private/serd"


@pytest.fixture
def read_only(service: Service) -> Iterator[Service]:
    """The service, to be started; its state is on a disk that cannot be written."""
    service.forget()
    service.machine.run("mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", STATE)
    # As the service leaves it, so that there is nothing to be made for the next start.
    service.restart()
    service.forget()
    service.machine.run("mount", "-o", "remount,ro", STATE)
    yield service
    service.forget()
    service.machine.run("umount", STATE)


def _is_emotion(event: Json) -> bool:
    return bool(event["type"] == "emotion")


def test_a_read_only_file_system_costs_no_event_and_is_told(read_only: Service) -> None:
    machine = read_only.machine
    read_only.restart()
    with read_only.listen() as events, read_only.feed("call-1"):
        events.wait_for(_is_emotion)
        assert read_only.logged("journal.failed")[0]["code"] in ("read_only", "cannot_open")
        status = machine.try_run(SERD, "status").stdout
        words = " ".join(status.split())
        assert "events are published but not journalled" in words
        assert "writable for serd; journalling goes on by itself" in words
        sequence = [e["seq"] for e in events.since(0) if e.get("stream") == "call-1"]
        assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    assert read_only.show("NRestarts") == "0"
    # The unit's own view of the file system is as it was at the start.
    machine.run("mount", "-o", "remount,rw", STATE)
    read_only.restart()
    assert read_only.logged("ready")
    assert "not journalled" not in machine.try_run(SERD, "status").stdout
