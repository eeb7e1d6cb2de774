"""Models that end the process that opens them, or never come back: a live daemon survives them."""

from __future__ import annotations

import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serd.runtime.control import ControlError
from serd.types import Int16Array
from tests.fakes import wait_until
from tests.inference import broken
from tests.runtime.swapping import RATE_HZ, Bench, alive, models_of, serving
from tests.speech import demo_speech

FOR_EVER = "inference.load_timeout_s=3600"

DEADLY = [
    pytest.param(broken.bottomless, "model_died_sigsegv", id="when opened"),
    pytest.param(
        broken.overflowing,
        "model_died_sigfpe",
        id="when run",
        marks=pytest.mark.skipif(
            platform.machine() != "x86_64", reason="other processors do not trap this division"
        ),
    ),
]


@pytest.fixture(scope="module")
def speech() -> Int16Array:
    return demo_speech(RATE_HZ)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return broken.sound(tmp_path_factory.mktemp("models"), "sound")


@pytest.fixture
def bench(tmp_path: Path, sound: Path) -> Iterator[Bench]:
    with serving(tmp_path, sound) as made:
        yield made


@contextmanager
def _reading(manager: socket.socket) -> Iterator[list[str]]:
    """What the service manager is told, read at once, as the manager does."""
    told: list[str] = []

    def read() -> None:
        while message := manager.recv(4096).decode():
            told.append(message)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield told
    finally:
        manager.sendto(b"", manager.getsockname())
        reader.join()


@pytest.mark.parametrize(("make", "code"), DEADLY)
def test_a_model_that_kills_changes_nothing(
    bench: Bench, speech: Int16Array, make: Any, code: str
) -> None:
    before = bench.in_use
    expected = bench.play("before", speech)
    deadly = str(make(bench.folder, "deadly"))
    for command in ("use", "shadow"):
        with pytest.raises(ControlError, match="goes on") as refused:
            bench.ask(command, model=deadly)
        assert refused.value.code == code
    assert bench.in_use == before
    assert bench.ask("models")["shadow"] is None
    after = bench.play("after", speech)
    assert [event["type"] for event in after] == [event["type"] for event in expected]
    assert models_of(after) == [before]
    assert bench.children() == []
    [told] = bench.daemon.logged("model.refused")
    [shadow_told] = bench.daemon.logged("shadow.refused")
    assert told["code"] == shadow_told["code"] == code
    counts = bench.ask("status")["counts"]
    assert counts["inference.swap_failures"] == 2
    assert counts["inference.swaps"] == 0
    assert bench.daemon.stop() == 0


def test_a_model_that_hangs_is_given_up(tmp_path: Path, sound: Path) -> None:
    hanging = broken.hanging(tmp_path, "hanging", when_loud=False)
    with serving(tmp_path, sound, ["inference.load_timeout_s=4"]) as bench:
        before = bench.in_use
        with pytest.raises(ControlError, match="4 s") as refused:
            bench.use(hanging)
        assert refused.value.code == "model_timeout"
        assert bench.in_use == before
        # Nothing of it is left.
        assert bench.children() == []
        assert bench.ask("status")["counts"]["inference.model_loads_abandoned"] == 0
        assert bench.daemon.stop() == 0


def test_a_reload_with_a_deadly_model_keeps_the_old_one(tmp_path: Path, sound: Path) -> None:
    deadly = broken.bottomless(tmp_path, "deadly")
    with serving(tmp_path, sound) as bench:
        before = bench.in_use
        bench.reload(deadly)
        wait_until(lambda: bench.daemon.logged("reload"), "the reload")
        assert "SIGSEGV" in bench.daemon.logged("reload")[0]["not_taken"]["inference.model"]
        assert bench.in_use == before


def test_a_daemon_starts_without_a_deadly_shadow(
    tmp_path: Path, sound: Path, speech: Int16Array
) -> None:
    deadly = broken.bottomless(tmp_path, "deadly")
    with serving(tmp_path, sound, [f"inference.shadow={deadly}"]) as bench:
        assert bench.daemon.logged("shadow.refused")[0]["code"] == "model_died_sigsegv"
        assert models_of(bench.play("call", speech)) == [bench.in_use]


def test_the_watchdog_is_fed_while_a_model_hangs_and_sigterm_does_not_wait_for_it(
    tmp_path: Path, sound: Path
) -> None:
    hanging = broken.hanging(tmp_path, "hanging", when_loud=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000000"}
        with _reading(manager) as told, serving(tmp_path, sound, [FOR_EVER], environ) as bench:
            # The main thread waits for it.
            bench.reload(hanging)
            wait_until(bench.children, "the process that tries the model")
            fed = told.count("WATCHDOG=1")
            wait_until(lambda: told.count("WATCHDOG=1") >= fed + 2, "the watchdog to be fed")
            assert not bench.daemon.logged("reload")
            [child] = bench.children()
            assert bench.daemon.stop() == 0
            assert not alive(child)
            wait_until(lambda: bench.daemon.logged("stopped"), "the log")
            assert bench.daemon.logged("stopped")[0]["drained"]


def test_sigterm_ends_a_request_to_use_a_model_that_hangs(tmp_path: Path, sound: Path) -> None:
    hanging = broken.hanging(tmp_path, "hanging", when_loud=False)
    with serving(tmp_path, sound, [FOR_EVER]) as bench:
        codes: list[str] = []

        def ask() -> None:
            with pytest.raises(ControlError) as refused:
                bench.use(hanging)
            codes.append(refused.value.code)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(bench.children, "the process that tries the model")
        assert bench.daemon.stop() == 0
        asking.join(60)
        assert codes == ["model_stopping"]


def test_a_daemon_that_is_killed_leaves_no_process_behind(tmp_path: Path, sound: Path) -> None:
    hanging = broken.hanging(tmp_path, "hanging", when_loud=False)
    with serving(tmp_path, sound, [FOR_EVER]) as bench:
        bench.reload(hanging)
        wait_until(bench.children, "the process that tries the model")
        [child] = bench.children()
        bench.daemon.process.kill()
        bench.daemon.process.wait(30)
        wait_until(lambda: not alive(child), "the end of the process")
