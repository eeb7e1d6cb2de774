"""Threads have names that the kernel knows, and make way for each other."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from serd.threads import hand_over_sooner, name_thread

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _named(name: str) -> str:
    """What the kernel calls a thread that named itself so."""
    seen: list[str] = []

    def body() -> None:
        name_thread(name)
        seen.append(Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return seen[0].removesuffix("\n")


@linux_only
def test_the_kernel_knows_the_name() -> None:
    assert _named("serd-inference") == "serd-inference"


@linux_only
def test_a_long_name_is_cut_between_characters() -> None:
    assert _named("serd-publisher-of-events") == "serd-publisher-"
    assert _named("serd-inferenceé") == "serd-inference"


@linux_only
def test_the_process_keeps_its_own_name() -> None:
    before = Path("/proc/self/comm").read_text()
    _named("serd-publish")
    assert Path("/proc/self/comm").read_text() == before


def test_threads_wait_less_for_the_interpreter_lock() -> None:
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(0.005)
        hand_over_sooner()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    finally:
        sys.setswitchinterval(before)
