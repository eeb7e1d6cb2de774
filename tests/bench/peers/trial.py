"""One measurement in real time: so many streams, and how late every result came."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serd.bench.generator import Plan, Played, read_played, write_plan
from serd.bench.material import Material
from serd.bench.search import find_most
from serd.bench.tape import Streams
from serd.types import Encoding, Int64Array
from tests.bench.peers.calls import RATE_HZ, due_ns, seconds

BOUND_MS = 250.0
GRACE_S = 1.0
"""How long after the last message a program may still finish: four times the bound."""

_MOST_STREAMS = 100_000
_LEAD_NS = 300_000_000


@dataclass(frozen=True)
class Arrived:
    """Results of a trial; one entry each in every array, all int64 ``[n]``.

    `decided` is the sample with which the segment became due, `at_ns` when its result was there.
    """

    stream: Int64Array
    decided: Int64Array
    at_ns: Int64Array


@dataclass(frozen=True)
class Trial:
    """What a trial came to.

    Attributes
    ----------
    results, missing
        Results that came, and those that should have and did not. For a peer, streams that it had
        not finished count as missing.
    p50_ms, p99_ms, max_ms
        From the moment at which the block was due that decided a segment to its result; None when
        nothing came.
    generator_late_ms
        Most that the generator was behind its schedule.
    cores
        Processor seconds of the program for each second of audio of all its streams together.
    """

    streams: int
    results: int
    missing: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    generator_late_ms: float
    cores: float

    @property
    def held(self) -> bool:
        """Whether nothing is missing and the bound was kept; without any result it was not."""
        return not self.missing and self.p99_ms is not None and self.p99_ms <= BOUND_MS

    def __str__(self) -> str:
        p99 = "no results" if self.p99_ms is None else f"p99 {self.p99_ms:.0f} ms"
        verdict = "" if self.held else ": too many"
        return (
            f"{self.streams} live: {p99}, {self.missing} missing, "
            f"{self.cores:.2f} processors{verdict}"
        )

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {**asdict(self), "held": self.held}


@contextmanager
def playing(endpoint: str, streams: Streams, calls: Material) -> Iterator[Played]:
    """Play the streams to a bound SUB socket; yield when all has been sent, the taps still open.

    Raises
    ------
    RuntimeError
        The generator failed; it has said why on standard error.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taps = int(streams.tap.max()) + 1
        plan = Plan(
            endpoint=endpoint,
            waits=False,
            taps=taps,
            parts=1,
            encoding=int(Encoding.MULAW),
            sample_rate_hz=RATE_HZ,
            jitter_ms=0.0,
            loss=0.0,
            suppress_silence=False,
            seed=1,
        )
        write_plan(folder, plan, streams, calls.audio, calls.conversations.silent)
        command = [sys.executable, "-m", "serd.bench.generator", str(folder), "0"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None, "piped"
            assert process.stdout is not None, "piped"
            try:
                _expect(process.stdout.readline(), "connected")
                process.stdin.write(f"{time.monotonic_ns() + _LEAD_NS}\n")
                process.stdin.flush()
                _expect(process.stdout.readline(), "done")
                yield read_played(folder, 0)
            finally:
                process.stdin.close()


def _expect(line: str, word: str) -> None:
    if line.strip() != word:
        raise RuntimeError(f"the generator said {line.strip()!r}, not {word!r}")


def judge_trial(
    streams: Streams,
    calls: Material,
    played: Played,
    arrived: Arrived,
    missing: int,
    cpu_s: float,
) -> Trial:
    """Figures of a trial."""
    p50: float | None = None
    p99: float | None = None
    most: float | None = None
    if len(arrived.stream):
        due = due_ns(streams, arrived.stream, arrived.decided, played.due_ns)
        late_ms = (arrived.at_ns - due) / 1e6
        p50, p99, most = np.percentile(late_ms, [50, 99, 100]).round(2).tolist()
    count = len(streams.number)
    return Trial(
        streams=count,
        results=len(arrived.stream),
        missing=missing + played.dropped,
        p50_ms=p50,
        p99_ms=p99,
        max_ms=most,
        generator_late_ms=round(float(played.late_ns.max(initial=0)) / 1e6, 2),
        cores=round(cpu_s / seconds(calls), 4),
    )


@dataclass(frozen=True)
class Found:
    """The trial with the most streams that held, if any did, and all trials in their order."""

    best: Trial | None
    trials: list[Trial]

    @property
    def streams(self) -> int:
        """How many streams were held; 0 if not even one."""
        return self.best.streams if self.best else 0


def search(run: Callable[[int], Trial], first: int, tolerance: float, attempts: int) -> Found:
    """The most streams that hold, to within a share of `tolerance`.

    A number is too high when so many trials with it as `attempts` have failed.
    """
    trials: list[Trial] = []

    def holds(count: int) -> bool:
        for _ in range(attempts):
            trials.append(run(count))
            if trials[-1].held:
                return True
        return False

    most = find_most(holds, first, _MOST_STREAMS, tolerance)
    held = [trial for trial in trials if trial.held and trial.streams == most]
    return Found(held[0] if held else None, trials)
