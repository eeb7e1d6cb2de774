"""What device runs are made of, on the CPU, where there is nothing to record."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serd.inference.device import DeviceRun, Lane, Recording, pin, place
from serd.inference.providers import open_session
from tests.fakes import wait_until
from tests.inference.tiny import LABELS, build_model, segments

DEADLINE_S = 10.0


def test_a_lane_does_everything_on_one_thread_of_its_own() -> None:
    lane = Lane("test-lane")
    threads = {lane.do(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threads.isdisjoint({threading.get_ident()})


def test_a_lane_raises_what_its_work_raises_and_goes_on() -> None:
    lane = Lane("test-lane")

    def fail() -> None:
        raise RuntimeError("CUDA failure 900")

    with pytest.raises(RuntimeError, match="900"):
        lane.do(fail)
    assert lane.do(lambda: 3) == 3


def test_a_lane_that_is_let_go_ends_its_thread() -> None:
    lane = Lane("test-lane")
    thread = lane.do(threading.current_thread)
    del lane
    gc.collect()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_who_records_is_alone() -> None:
    recording = Recording()
    inside, may_end, recorded = threading.Event(), threading.Event(), threading.Event()
    used = threading.Event()

    def use() -> None:
        with recording.using():
            inside.set()
            assert may_end.wait(DEADLINE_S)
            assert not recorded.is_set()

    def record() -> None:
        with recording.alone():
            recorded.set()
            assert not used.is_set()

    def use_later() -> None:
        with recording.using():
            assert recorded.is_set()
            used.set()

    user = threading.Thread(target=use)
    user.start()
    assert inside.wait(DEADLINE_S)
    recorder = threading.Thread(target=record)
    recorder.start()
    # It has asked, and waits for the user.
    wait_until(lambda: recording._recording, "the recorder has asked")
    later = threading.Thread(target=use_later)
    later.start()
    may_end.set()
    for thread in (user, recorder, later):
        thread.join(DEADLINE_S)
    assert used.is_set()


@pytest.mark.parametrize("captured", [False, True])
def test_a_run_reads_and_writes_its_places(
    tmp_path: Path, rng: np.random.Generator, captured: bool
) -> None:
    build_model(tmp_path)
    session: Any = open_session(tmp_path / "tiny.onnx", "cpu").session
    audio, length = segments(rng, 3)
    inputs = {
        "audio": place(audio.shape, audio.dtype, "cpu"),
        "length": place(length.shape, length.dtype, "cpu"),
    }
    logits = place((3, len(LABELS)), np.float32, "cpu")
    assert not logits.numpy().any()
    run = DeviceRun(session, inputs, {"logits": logits}, captured)
    inputs["audio"].update_inplace(audio)
    inputs["length"].update_inplace(length)
    run.record()
    run()
    expected = session.run(["logits"], {"audio": audio, "length": length})[0]
    np.testing.assert_array_equal(logits.numpy(), expected)


def test_without_cuda_memory_stays_as_it_is() -> None:
    assert pin(np.zeros(0, np.float32)) is False
