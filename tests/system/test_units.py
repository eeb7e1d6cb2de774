"""serd under a booted systemd: start, audio, reload, crash, a stuck stage, stop."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.fakes import wait_until
from tests.system.machine import Json, Machine
from tests.system.service import CONFIG, PYTHON, UNITS, Service

pytestmark = [pytest.mark.system, pytest.mark.slow]

EXPOSURE = re.compile(r"Overall exposure level for \S+: ([\d.]+)")
LARGEST_EXPOSURE = 1.2


def _of_a_call(event: Json) -> bool:
    return bool(event["type"] != "daemon")


def _is(kind: str, **values: object) -> Callable[[Json], bool]:
    def wanted(event: Json) -> bool:
        return bool(event["type"] == kind and all(event[k] == v for k, v in values.items()))

    return wanted


@pytest.fixture
def drop_in(machine: Machine) -> Iterator[list[str]]:
    """Paths written here are gone after the test."""
    written: list[str] = []
    yield written
    for path in written:
        machine.run("rm", "-f", path)
    machine.run("systemctl", "daemon-reload")


def test_it_is_ready_when_systemctl_returns(service: Service) -> None:
    [ready] = service.logged("ready")
    assert service.show("ActiveState") == "active"
    assert service.show("StatusText").startswith(f"0 streams, {ready['model']}")
    assert not [line for line in service.journal() if "elemetry" in line or "cpuinfo" in line]


def test_the_unit_is_closed(service: Service) -> None:
    analysis = service.machine.run("systemd-analyze", "security", "--no-pager", service.unit)
    match = EXPOSURE.search(analysis)
    assert match is not None, analysis
    assert float(match[1]) <= LARGEST_EXPOSURE, analysis


def test_units_and_drop_ins_are_understood(machine: Machine) -> None:
    units = [path.name for path in UNITS.glob("*.service")]
    assert sorted(units) == ["serd.service", "serd@.service"]
    verify = machine.try_run(
        "systemd-analyze", "verify", "/etc/systemd/system/serd.service",
        "/etc/systemd/system/serd@one.service",
    )  # fmt: skip
    assert "serd" not in verify.stderr, verify.stderr
    assert verify.returncode == 0, verify.stderr


def test_it_runs_as_nobody_in_particular_and_keeps_audio_off_the_disk(service: Service) -> None:
    process = f"/proc/{service.pid}"
    status = service.machine.run("cat", f"{process}/status")
    uid = int(re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]
    assert 61184 <= uid <= 65519
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(
        r"^Max core file size\s+0\s+0",
        service.machine.run("cat", f"{process}/limits"),
        re.MULTILINE,
    )
    assert int(service.machine.run("cat", f"{process}/coredump_filter"), 16) == 0
    for folder in ("/var/lib/private/serd", "/var/log/private/serd", "/run/serd"):
        assert service.machine.run("stat", "--format=%a %u", folder) == f"700 {uid}\n"
    threads = service.machine.run("sh", "-c", f"cat {process}/task/*/comm").split()
    assert {"serd-ingest", "serd-speech", "serd-inference", "serd-publish"} <= set(threads)


def test_calls_become_events(service: Service) -> None:
    with service.listen() as events, service.feed("call-1", "call-2"):
        for stream in ("call-1", "call-2"):
            events.wait_for(_is("stream", stream=stream, state="opened"))
            events.wait_for(_is("emotion", stream=stream))
        service.wait_status("2 streams")


def test_a_reload_applies_what_it_can_names_the_rest_and_drops_no_stream(service: Service) -> None:
    before = service.pid
    with service.listen() as events, service.feed("call-1"):
        events.wait_for(_is("emotion"))
        service.machine.write(
            "/etc/serd/serd.toml",
            CONFIG.replace("1.0", "0.5") + "[segment]\nhop_s = 0.5\n[logging]\nlevel = 'warning'\n",
        )
        service.systemctl("reload")
        service.wait_status("restart needed for segment.hop_s")
        position = events.count
        events.wait_for(_is("emotion"), since=position)
        assert not [e for e in events.since(0) if e["type"] == "stream" and e["state"] == "closed"]
    [reload] = service.logged("reload")
    assert set(reload["applied"]) == {"daemon.heartbeat_s", "logging.level"}
    assert reload["needs_restart"] == ["segment.hop_s"]
    assert service.pid == before


def test_a_reload_of_a_wrong_configuration_fails_and_changes_nothing(service: Service) -> None:
    before = service.pid
    service.machine.write("/etc/serd/serd.toml", "[segment]\nhop_s = -1\n")
    assert service.machine.try_run("systemctl", "reload", service.unit).returncode != 0
    assert (service.pid, service.show("ActiveState")) == (before, "active")
    # Also when somebody sends the signal without asking first.
    service.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", service.unit)
    service.wait_status("reload refused")
    assert len(service.logged("reload.refused")) == 1
    assert (service.pid, service.show("ActiveState")) == (before, "active")


def test_after_a_kill_events_flow_again(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    before = service.pid
    with service.listen() as events, service.feed("call-1"):
        events.wait_for(_is("emotion"))
        newest = events.since(0)[-1]["cursor"]
        position = events.count
        killed_s = time.monotonic()
        service.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", service.unit)
        ready = events.wait_for(_is("daemon", state="ready"), since=position)
        position = position + events.since(position).index(ready)
        first = events.wait_for(_of_a_call, since=position)
        emotion = events.wait_for(_is("emotion"), since=position)
    with capsys.disabled():
        names = ("ready", "first event of a call", "first emotion")
        took = zip(names, (ready, first, emotion), strict=True)
        print("\nafter kill -9:", *(f"{n} {e['came_s'] - killed_s:.2f} s;" for n, e in took))
    assert service.pid != before
    assert service.show("NRestarts") == "1"
    assert ready["cursor"] > newest


def test_a_stuck_stage_gets_the_service_restarted(service: Service, drop_in: list[str]) -> None:
    drop_in.append("/etc/systemd/system/serd.service.d/hang.conf")
    service.machine.run("cp", "/opt/inside/hang.py", "/opt/serd/hang.py")
    service.machine.write(
        drop_in[0],
        "[Service]\nWatchdogSec=4\nExecStart=\n"
        f"ExecStart={PYTHON} /opt/serd/hang.py run --config /etc/serd/serd.toml\n",
    )
    service.restart()
    before = service.pid
    with service.listen() as events, service.feed("call-1"):
        events.wait_for(_is("emotion"))
        service.machine.run("touch", "/run/serd/hang")
        service.wait_status("stuck: speech")
        service.wait_restarted(before)
        position = events.count
        events.wait_for(_is("emotion"), since=position)
    [stuck] = service.logged("stage.stuck")
    assert stuck["stages"] == ["speech"]
    assert any("Watchdog timeout" in line for line in service.journal())
    # Where it was stuck is in the log: Python tells it when it is aborted.
    assert any("work_or_hang" in line for line in service.journal())


def test_it_drains_when_stopped(service: Service) -> None:
    with service.listen() as events, service.feed("call-1"):
        events.wait_for(_is("speech", state="onset"))
        service.systemctl("stop")
        events.wait_for(_is("stream", state="closed"))
        events.wait_for(_is("daemon", state="stopped"))
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    [stopped] = service.logged("stopped")
    assert stopped["drained"]


def test_a_wrong_configuration_is_not_tried_again(service: Service) -> None:
    service.forget()
    service.machine.write("/etc/serd/serd.toml", "[segment]\nhop_s = -1\n")
    assert service.machine.try_run("systemctl", "start", service.unit).returncode != 0
    wait_until(lambda: service.show("ActiveState") == "failed", "the unit to have failed")
    assert service.show("ExecMainStatus") == "78"
    assert service.show("NRestarts") == "0"
    assert any("hop_s" in line for line in service.journal())


def test_an_instance_runs_beside_the_service(service: Service) -> None:
    service.machine.write(
        "/etc/serd/two.toml",
        'sources = [{type = "zmq", bind = "tcp://127.0.0.1:6550"}]\n'
        '[publish]\nbind = "tcp://127.0.0.1:6556"\nreplay_bind = "tcp://127.0.0.1:6557"\n',
    )
    two = Service(service.machine, "serd@two.service")
    two.restart()
    try:
        with (
            two.listen("tcp://127.0.0.1:6556") as events,
            two.feed("c", tap="tcp://127.0.0.1:6550"),
        ):
            events.wait_for(_is("speech"))
        assert service.show("ActiveState") == two.show("ActiveState") == "active"
        assert service.machine.run("stat", "--format=%a", "/var/lib/private/serd-two") == "700\n"
    finally:
        two.forget()


def test_the_secret_key_is_a_credential_and_keeps_strangers_out(
    service: Service, drop_in: list[str]
) -> None:
    machine, serd = service.machine, "/opt/serd/bin/serd"
    keys = {name: f"/etc/serd/keys/{name}.secret" for name in ("serd", "dashboard")}
    public = {}
    for name, path in keys.items():
        machine.run("rm", "-f", path)
        machine.run(serd, "keygen", path)
        public[name] = machine.run(serd, "keygen", "--public", path).strip()
    assert machine.run("stat", "--format=%a %u", keys["serd"]) == "600 0\n"
    machine.write(
        "/etc/serd/serd.toml",
        f"{CONFIG}[security]\ncurve = true\n[[security.peers]]\nname = 'dashboard'\n"
        f"public_key = '{public['dashboard']}'\nmay = ['subscribe']\n",
    )
    drop_in.append("/etc/systemd/system/serd.service.d/curve.conf")
    machine.write(drop_in[0], (UNITS / "drop-ins" / "curve.conf").read_text())
    service.restart()
    keyed = [f"--key={keys['dashboard']}", f"--peer-key={public['serd']}"]
    event = machine.run(serd, "listen", "--json", "--count=1", *keyed)
    assert json.loads(event)["type"] == "daemon"
    with service.listen() as stranger:
        wait_until(lambda: service.logged("handshake.failed"), "a handshake to fail")
        assert stranger.count == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in (UNITS / "drop-ins").glob("*.conf")))
def test_it_starts_with_the_drop_in(service: Service, drop_in: list[str], name: str) -> None:
    drop_in.append(f"/etc/systemd/system/serd.service.d/{name}.conf")
    text = (UNITS / "drop-ins" / f"{name}.conf").read_text()
    service.machine.run("install", "-d", "-m", "700", "/etc/serd/keys")
    service.machine.run("touch", "/etc/serd/keys/serd.secret")
    service.machine.write(drop_in[0], text)
    service.restart()
    assert service.show("ActiveState") == "active"
    said = [line for line in service.journal() if "drop-in" in line or f"{name}.conf" in line]
    assert not said
