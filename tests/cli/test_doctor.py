"""``serd doctor``: each check finds what it is for, and says what to do."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serd.cli import execute
from serd.config.schema import Config
from serd.inference.providers import CPU, CUDA, Driver
from serd.runtime import checks, checks_devices
from serd.runtime.checks import Address, Finding, Level


def only(findings: Iterator[Finding]) -> Finding:
    [finding] = findings
    assert finding.advice or finding.level is Level.OK, "what is wrong needs advice"
    return finding


def config(**sections: Any) -> Config:
    return Config.model_validate(sections)


class Runtime:
    """An installed runtime; satisfies `serd.inference.providers.System`."""

    def __init__(self, distributions: set[str], driver: Driver | None = None) -> None:
        self._distributions = distributions
        self._driver = driver

    def distributions(self) -> set[str]:
        return self._distributions

    def providers(self) -> Sequence[str]:
        return (CUDA, CPU) if "onnxruntime-gpu" in self._distributions else (CPU,)

    def built_for(self) -> tuple[int, int] | None:
        return 12, 8

    def driver(self) -> Driver | None:
        return self._driver

    def missing_libraries(self) -> list[str]:
        return []

    def session(self, model: Any, providers: Any, threads: int) -> Any:
        raise AssertionError("the doctor starts nothing")


class TestRuntime:
    @pytest.mark.parametrize(
        ("installed", "device", "levels"),
        [
            (set(), "auto", [Level.FAIL]),
            ({"onnxruntime", "onnxruntime-gpu"}, "auto", [Level.FAIL]),
            ({"onnxruntime"}, "cpu", [Level.OK]),
            ({"onnxruntime"}, "auto", [Level.OK, Level.OK]),
            ({"onnxruntime"}, "cuda", [Level.OK, Level.FAIL]),
            ({"onnxruntime-gpu"}, "cuda", [Level.OK, Level.FAIL]),
        ],
    )
    def test_what_is_installed_and_what_is_wanted(
        self, installed: set[str], device: str, levels: list[Level]
    ) -> None:
        wanted = config(inference={"device": device})
        found = list(checks_devices.runtime(wanted, Runtime(installed)))
        assert [finding.level for finding in found] == levels
        assert all(finding.advice for finding in found if finding.level is not Level.OK)

    def test_a_gpu_that_works_is_described(self) -> None:
        system = Runtime({"onnxruntime-gpu"}, Driver((12, 9), 0, 2))
        _, cuda = checks_devices.runtime(config(), system)
        assert cuda.level is Level.OK
        assert re.match(r"2 GPU\(s\), driver for CUDA up to 12.9, runtime for 12.8", cuda.text)


class TestModel:
    def test_the_shipped_one(self) -> None:
        assert only(checks_devices.model(config())).level is Level.OK

    def test_none(self) -> None:
        found = only(checks_devices.model(config(inference={"model": "nothing"})))
        assert found.level is Level.FAIL


class TestSound:
    MICROPHONE = ({"type": "microphone", "device": "usb"},)

    def test_nothing_is_said_without_microphones(self) -> None:
        assert not list(checks_devices.sound(config(), []))

    @pytest.mark.parametrize(
        ("devices", "level"),
        [([], Level.FAIL), (["HDA Intel"], Level.FAIL), (["USB Audio: - (hw:1,0)"], Level.OK)],
    )
    def test_the_device_that_is_wanted(self, devices: list[str], level: Level) -> None:
        wanted = config(sources=self.MICROPHONE)
        assert only(checks_devices.sound(wanted, devices)).level is level


class TestPorts:
    def test_the_addresses_of_a_configuration(self) -> None:
        wanted = config(
            sources=({"type": "zmq", "bind": ["tcp://*:5550", "tcp://127.0.0.1:*", "ipc:///x"]},),
            publish={"bind": "tcp://127.0.0.1:1", "replay_bind": []},
            metrics={"bind": "[::1]:2"},
        )
        assert list(checks.addresses(wanted)) == [
            Address("sources.0.bind", "0.0.0.0", 5550),
            Address("publish.bind", "127.0.0.1", 1),
            Address("metrics.bind", "::1", 2),
        ]

    def test_a_free_one_a_taken_one_and_who_has_it(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = Address("publish.bind", *server.getsockname())
            found = only(checks.ports([address]))
            assert found.level is Level.FAIL
            assert f"(process {os.getpid()})" in found.text
            assert "publish.bind" in found.advice
            ours = only(checks.ports([address], lambda _: "serd (process 7)"))
            assert (ours.level, "serd (process 7)" in ours.text) == (Level.OK, True)
        assert only(checks.ports([address])).level is Level.OK

    def test_an_address_of_another_machine(self) -> None:
        found = only(checks.ports([Address("metrics.bind", "192.0.2.1", 9464)]))
        assert found.level is Level.FAIL


class TestCredentials:
    @pytest.mark.parametrize(
        ("mode", "level"), [(0o600, Level.OK), (0o640, Level.WARN), (0o644, Level.FAIL)]
    )
    def test_the_modes_of_a_secret(
        self, tmp_path: Path, mode: int, level: Level, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        key = tmp_path / "serd.secret"
        key.write_text("secret")
        key.chmod(mode)
        wanted = config(security={"curve": True, "secret_key": str(key)})
        found = only(checks.credentials(wanted))
        assert found.level is level
        assert "secret\n" not in found.text

    def test_no_secret(self, tmp_path: Path) -> None:
        wanted = config(security={"curve": True, "secret_key": str(tmp_path / "none")})
        assert only(checks.credentials(wanted)).level is Level.FAIL

    def test_plain_sockets_on_loopback_are_no_news_and_others_are(self) -> None:
        assert not list(checks.credentials(config()))
        wanted = config(publish={"bind": "tcp://*:5556"}, security={"allow_plaintext": True})
        found = only(checks.credentials(wanted))
        assert found.level is Level.WARN
        assert "publish.bind" in found.text


class TestDisk:
    @pytest.mark.parametrize(
        ("free_mib", "level"), [(50, Level.FAIL), (300, Level.WARN), (5000, Level.OK)]
    )
    def test_room(self, tmp_path: Path, free_mib: int, level: Level) -> None:
        path = tmp_path / "not" / "there" / "events.sqlite"
        found = only(checks.disk("journal", "journal.path", path, 100, lambda _: free_mib << 20))
        assert found.level is level

    def test_what_it_holds_already_needs_no_more_room(self, tmp_path: Path) -> None:
        path = tmp_path / "events.sqlite"
        with path.open("wb") as file:
            file.truncate(100 << 20)
        found = only(checks.disk("journal", "journal.path", path, 100, lambda _: 600 << 20))
        assert found.level is Level.OK


def test_the_clock() -> None:
    def unreadable() -> tuple[bool, float]:
        raise OSError(1, "Operation not permitted")

    assert only(checks.clock(lambda: (True, 0.01))).text == "synchronised, at most 10 ms off"
    assert only(checks.clock(lambda: (False, 16.0))).level is Level.WARN
    assert only(checks.clock(unreadable)).level is Level.WARN


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (None, Level.OK),
        ({"LoadState": "not-found"}, Level.OK),
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "0"}, Level.OK),
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "3"}, Level.WARN),
        ({"LoadState": "loaded", "ActiveState": "failed", "Result": "watchdog"}, Level.FAIL),
    ],
)
def test_the_unit(state: dict[str, str] | None, level: Level) -> None:
    assert only(checks.unit(lambda _: state)).level is level


class TestCommand:
    @pytest.fixture(autouse=True)
    def free_ports(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Of a daemon that may run on this machine nothing is to be seen here.
        monkeypatch.setattr(checks, "_try_to_bind", lambda _: None)
        monkeypatch.delenv("STATE_DIRECTORY", raising=False)

    def test_all_is_well(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert execute(["doctor", "--set", "inference.device=cpu"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(
            re.match(r" *ok +port 9464 +free on 127.0.0.1 \(metrics.bind\)", x) for x in lines
        )

    def test_something_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert execute(["doctor", "--json", "--set", "inference.model=nothing"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert {"level", "what", "text", "advice"} == set(found[0])
        assert [f["what"] for f in found if f["level"] == "fail"] == ["model"]
