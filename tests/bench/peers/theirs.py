"""Runs the program that people write, with one peer's detector in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serd.bench.material import Material
from tests.bench.peers.calls import heard, schedule, seconds
from tests.bench.peers.registry import Peer
from tests.bench.peers.trial import GRACE_S, Arrived, Trial, judge_trial, playing

_TIMEOUT_S = 300.0

# Each library would otherwise start a thread for every processor, in each of the streams' threads.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}

Segments = list[tuple[int, int, str]]
"""Start, end and label of the segments of a conversation, in samples."""


@dataclass(frozen=True)
class Offline:
    """What the work costs when nothing waits.

    Attributes
    ----------
    cores
        Processor seconds for a second of a channel; `features` and `network` are parts of it.
    segments
        Of each conversation.
    """

    cores: float
    features: float
    network: float
    segments: list[Segments]


def _command(mode: str, one: Peer, network: Path, *more: str) -> list[str]:
    program = [sys.executable, "-m", "tests.bench.peers.program", mode]
    return [*program, "--peer", one.name, "--network", str(network), *more]


def _environment() -> Mapping[str, str]:
    return {**os.environ, **_ONE_THREAD}


def _last_line(text: str, one: Peer) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{one.name}: the program said nothing; see its words above")
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def _finish(process: subprocess.Popen[str], one: Peer) -> str:
    """Close the program's standard input, and return the rest of what it says."""
    try:
        said, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise RuntimeError(f"{one.name}: the program does not end") from None
    return said


def run_offline(one: Peer, network: Path, calls: Material) -> Offline:
    """Every conversation once, in a process of its own.

    Raises
    ------
    RuntimeError
        It failed; it has said why on standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "audio.npy"
        np.save(audio, heard(calls))
        with subprocess.Popen(
            _command("offline", one, network, "--audio", str(audio)),
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        ) as process:
            said = _finish(process, one)
    report = _last_line(said, one)
    total_s = seconds(calls) * len(calls.audio)
    return Offline(
        cores=report["cpu_s"] / total_s,
        features=report["features_s"] / total_s,
        network=report["network_s"] / total_s,
        segments=[
            [(start, end, label) for start, end, _, label in found] for found in report["results"]
        ],
    )


def run_live(one: Peer, network: Path, calls: Material, count: int) -> Trial:
    """`count` streams in real time.

    Raises
    ------
    RuntimeError
        It failed; it has said why on standard error.
    """
    streams = schedule(count, calls)
    with subprocess.Popen(
        _command("live", one, network, "--streams", str(count)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    ) as process:
        assert process.stdout is not None, "piped"
        endpoint = _last_line(process.stdout.readline(), one)["endpoint"]
        with playing(endpoint, streams, calls) as played:
            # What is not there by then is later than any bound.
            time.sleep(GRACE_S)
            said = _finish(process, one)
    report = _last_line(said, one)
    rows = np.array(
        [
            (number, decided, at_ns)
            for number, found in enumerate(report["results"])
            for _, _, decided, _, at_ns in found
        ],
        np.int64,
    ).reshape(-1, 3)
    arrived = Arrived(rows[:, 0], rows[:, 1], rows[:, 2])
    return judge_trial(streams, calls, played, arrived, report["unfinished"], report["cpu_s"])
