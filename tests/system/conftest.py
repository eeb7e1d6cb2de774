"""One booted machine with serd installed as `systemd/README.md` says, for all tests here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.machine import CannotBootError, Machine, booted
from tests.system.service import CONFIG, UNITS, Service

INSIDE = Path(__file__).parent / "inside"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    cache = os.environ.get("SERD_TEST_SYSTEM")
    if cache is None:
        pytest.skip("needs a Debian root and the wheel: run `make test-system`")
    if shutil.which("systemd-nspawn") is None or os.geteuid():
        pytest.skip("needs root and systemd-nspawn")
    log = tmp_path_factory.mktemp("machine") / "boot.log"
    binds = {Path(cache) / "wheels": "/opt/wheels", INSIDE: "/opt/inside", UNITS: "/opt/units"}
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(booted(Path(cache) / "debian-12", binds, log))
        except CannotBootError as error:
            pytest.skip(str(error))
        machine.run("python3", "-m", "venv", "/opt/serd/1")
        install = ["/opt/serd/1/bin/pip", "install", "--quiet", "--no-index"]
        machine.run(*install, "--find-links=/opt/wheels", "serd[cpu]")
        machine.run("ln", "-sfn", "1/bin", "/opt/serd/bin")
        machine.run("sh", "-c", "cp /opt/units/*.service /etc/systemd/system/")
        machine.run("sh", "-c", "install -m 644 /opt/units/serd.tmpfiles /etc/tmpfiles.d/serd.conf")
        machine.run("systemd-tmpfiles", "--create")
        yield machine


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    """serd, started with the configuration of these tests."""
    machine.write("/etc/serd/serd.toml", CONFIG)
    service = Service(machine, "serd.service")
    service.restart()
    yield service
    service.forget()
