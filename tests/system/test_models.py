"""Models that are changed under the unit's limits, and what deadly ones do to the service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.fakes import wait_until
from tests.inference import broken
from tests.system.machine import Json, Machine
from tests.system.service import Service

pytestmark = [pytest.mark.system, pytest.mark.slow]

SERD = "/opt/serd/bin/serd"
FOLDER = "/opt/models"
# The models of tests take segments of half a second.
CONFIG = """\
[segment]
window_s = 0.5
hop_s = 0.25
[inference]
model = "/opt/models/sound.json"
load_timeout_s = 10.0
"""


@pytest.fixture
def folder(machine: Machine, tmp_path: Path) -> Iterator[Path]:
    """Where models are made, for `_bring`; the daemon's own is there already."""
    broken.sound(tmp_path, "sound")
    _bring(machine, tmp_path)
    yield tmp_path
    machine.run("rm", "-rf", FOLDER)


@pytest.fixture
def service(machine: Machine, folder: Path) -> Iterator[Service]:
    assert folder.is_dir()
    machine.write("/etc/serd/serd.toml", CONFIG)
    # Half a gigabyte is plenty for the model of these tests; a hungry one meets the bound soon.
    drop_in = "/etc/systemd/system/serd.service.d/memory.conf"
    machine.write(drop_in, "[Service]\nMemoryHigh=infinity\nMemoryMax=600M\n")
    service = Service(machine, "serd.service")
    service.restart()
    yield service
    service.forget()
    machine.run("rm", "-f", drop_in)
    machine.run("systemctl", "daemon-reload")


def _bring(machine: Machine, folder: Path) -> None:
    shutil.copytree(folder, machine.root / FOLDER.lstrip("/"), dirs_exist_ok=True)
    machine.run("chmod", "-R", "a+rX", FOLDER)


def _is_emotion(model: str, event: Json) -> bool:
    return bool(event["type"] == "emotion" and event["model"].startswith(f"{model}-"))


def _use(machine: Machine, manifest: Path) -> str:
    """What `serd models use` says of a model."""
    _bring(machine, manifest.parent)
    done = machine.try_run(SERD, "models", "use", f"{FOLDER}/{manifest.name}")
    return done.stdout + done.stderr


def test_a_model_is_swapped(service: Service, folder: Path) -> None:
    with service.listen() as events, service.feed("call-1"):
        events.wait_for(partial(_is_emotion, "sound"))
        assert "model in use: next-" in _use(service.machine, broken.sound(folder, "next"))
        events.wait_for(partial(_is_emotion, "next"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (broken.bottomless, "SIGSEGV"),
        (broken.hungry, "SIGKILL"),
        (partial(broken.hanging, when_loud=False), "10 s"),
    ],
    ids=["deadly", "hungry", "hanging"],
)
def test_a_bad_model_costs_no_event(
    service: Service, folder: Path, make: broken.Maker, told: str
) -> None:
    if make is broken.hungry and not service.show("MemoryCurrent").isdigit():
        pytest.skip("units have no bound of their memory here: that needs the unified cgroups")
    before = service.pid
    with service.listen() as events, service.feed("call-1"):
        events.wait_for(partial(_is_emotion, "sound"))
        position = events.count
        assert told in _use(service.machine, make(folder, "bad"))
        events.wait_for(partial(_is_emotion, "sound"), since=position)
        assert not [e for e in events.since(0) if e["type"] == "gap" or e.get("state") == "closed"]
        sequence = [e["seq"] for e in events.since(0) if e.get("stream") == "call-1"]
        assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    [refused] = service.logged("model.refused")
    assert told in refused["why"]
    assert (service.pid, service.show("NRestarts")) == (before, "0")
    assert service.show("ActiveState") == "active"


def test_a_stop_does_not_wait_for_a_model_that_hangs(service: Service, folder: Path) -> None:
    machine = service.machine
    patient = CONFIG.replace("10.0", "3600.0")
    machine.write("/etc/serd/serd.toml", patient)
    service.restart()
    hanging = broken.hanging(folder, "hanging", when_loud=False)
    _bring(machine, folder)
    machine.write("/etc/serd/serd.toml", patient.replace("sound.json", hanging.name))
    # Not `systemctl reload`, which would wait for it as well.
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", service.unit)
    # Brackets, so that the search does not find itself.
    search = "grep -ls 'serd.inference.[r]ehearsal' /proc/[0-9]*/cmdline"
    wait_until(lambda: machine.run("sh", "-c", search, check=False), "the model to be tried")
    process = machine.run("sh", "-c", search).strip().removesuffix("/cmdline")
    # The unit lets it stand back behind the daemon.
    adjusted = f"{process}/oom_score_adj"
    wait_until(lambda: machine.run("cat", adjusted) == "1000\n", "it to be the first to go")
    niceness = machine.run("cat", f"{process}/stat").rpartition(")")[2].split()[16]
    assert niceness == "5"
    service.systemctl("stop")
    # Killed after TimeoutStopSec it would have ended otherwise.
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    assert machine.run("sh", "-c", search, check=False) == ""
