"""One measurement: a daemon, generators and a subscriber, from the start to the last event.

The run begins with a warm-up. Stream 0 plays alone for the first part of it, so that what the first
stream costs is there before the others come; those join one by one. What is measured begins when
all are there and ends when the first leaves. They leave one by one too: calls do not end all at
once, and the last segments of as many utterances would tell of nothing but that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serd.bench import process
from serd.bench.child import ChildDaemon, child_daemon
from serd.bench.generator import Plan, Played, read_played, write_plan
from serd.bench.material import POOL, Material
from serd.bench.receiver import Receiver
from serd.bench.tape import SLOTS, TICK_MS, Line, Streams
from serd.errors import DaemonError
from serd.types import Encoding

_ALONE = 0.4
_SURGE_JOINS_S = 1.0
_LEAD_NS = 300_000_000
_DRAIN_S = 60.0
# A generator plays some 5,000 streams with half a core.
_STREAMS_A_GENERATOR = 5000


@dataclass(frozen=True)
class Settings:
    """What is played, and for how long.

    Attributes
    ----------
    streams
        Live channels.
    seconds
        Measured time, after `warm_up_s`.
    socket
        ``SUB``, which loses what the daemon cannot take, or ``PULL``, which waits.
    taps
        Connections of each generator.
    surge
        Channels that come on top in the middle third of the measured time.
    """

    streams: int
    seconds: float
    encoding: Encoding = Encoding.MULAW
    socket: str = "SUB"
    taps: int = 4
    line: Line = field(default_factory=Line)
    seed: int = 1
    warm_up_s: float = 10.0
    surge: int = 0

    @property
    def total(self) -> int:
        """Channels of the whole run."""
        return self.streams + self.surge

    @property
    def longest_s(self) -> float:
        """Length of the whole run."""
        return (self.ticks + self.leave_ticks) * TICK_MS / 1000

    @property
    def warm_ticks(self) -> int:
        """Ticks before what is measured."""
        return _ticks(self.warm_up_s)

    @property
    def ticks(self) -> int:
        """Ticks until the first stream leaves."""
        return self.warm_ticks + _ticks(self.seconds)

    @property
    def leave_ticks(self) -> int:
        """Ticks that the streams take to leave: as long as they took to come."""
        return round((1 - _ALONE) * self.warm_ticks)

    @property
    def surge_ticks(self) -> tuple[int, int]:
        """When the surge begins to come, and when the last of it is gone."""
        third = (self.ticks - self.warm_ticks) // 3
        return self.warm_ticks + third, self.warm_ticks + 2 * third

    @property
    def generators(self) -> int:
        """Processes that play."""
        return -(-self.total // _STREAMS_A_GENERATOR)


def _ticks(seconds: float) -> int:
    return max(1, round(seconds * 1000 / TICK_MS))


def plan_streams(settings: Settings) -> Streams:
    """When each stream joins, what it plays, and how it is connected."""
    number = np.arange(settings.total)
    join = np.zeros_like(number)
    end = np.zeros_like(number)
    ordinary, warm = settings.streams, settings.warm_ticks
    end[:ordinary] = settings.ticks + np.linspace(0, settings.leave_ticks, ordinary, dtype=int)
    join[1:ordinary] = np.linspace(round(_ALONE * warm), warm, max(ordinary - 1, 0), dtype=int)
    comes, goes = settings.surge_ticks
    step_by_step = np.linspace(
        0, min(_ticks(_SURGE_JOINS_S), (goes - comes - 1) // 2), settings.surge, dtype=int
    )
    join[ordinary:] = comes + step_by_step
    end[ordinary:] = goes - step_by_step[::-1]
    # Evenly over slots and connections within each generator's share.
    rank = number // settings.generators
    return Streams(
        number, number % POOL, join, end - join, rank % SLOTS, rank // SLOTS % settings.taps
    )


@dataclass(frozen=True)
class Observed:
    """Everything that a run left behind.

    Attributes
    ----------
    due_ns
        Monotonic time at which the run began.
    samples
        The daemon, from the beginning to the end of what is measured, once a second.
    alone_kib, full_kib
        Memory (PSS, or resident where that is untold) with one stream and with all.
    closed, stopped
        Whether the end of every stream, and of the daemon, was told.
    own_cpu_s
        Processor seconds that this process used while measuring: subscriber and sampling.
    ready
        What the daemon said of itself when it was ready.
    """

    due_ns: int
    streams: Streams
    played: Sequence[Played]
    receiver: Receiver
    samples: Sequence[process.Sample]
    alone_kib: int
    full_kib: int
    closed: bool
    stopped: bool
    exit_status: int
    own_cpu_s: float
    ready: dict[str, object]


def observe(
    settings: Settings,
    material: Material,
    config_path: Path | None,
    overrides: Sequence[str],
    max_streams: int,
    on_progress: Callable[[str, float], None] = lambda _what, _done: None,
) -> Observed:
    """Run a daemon under load.

    Parameters
    ----------
    config_path, overrides
        Of the daemon, as for ``serd run``; checked already.
    max_streams
        What the configuration says; raised as far as is needed.
    on_progress
        Called about once a second with what is being done and the share that is.

    Raises
    ------
    DaemonError
        The daemon, or a generator, ended early.
    """
    streams = plan_streams(settings)
    overrides = (
        *overrides,
        f"streams.max_streams={max(max_streams, settings.total)}",
        # Counters once a second.
        "daemon.heartbeat_s=1.0",
    )
    on_progress("starting a daemon", 0.0)
    with (
        tempfile.TemporaryDirectory(prefix="serd-bench-") as name,
        child_daemon(config_path, overrides, settings.socket) as daemon,
    ):
        folder = Path(name)
        ready = daemon.wait_ready()
        line = settings.line
        plan = Plan(
            daemon.tap,
            settings.socket == "PULL",
            settings.taps,
            settings.generators,
            int(settings.encoding),
            material.sample_rate_hz,
            line.jitter_ms,
            line.loss,
            line.suppress_silence,
            settings.seed,
        )
        write_plan(folder, plan, streams, material.audio, material.conversations.silent)
        with Receiver(ready["publish"][0]) as receiver, _generators(folder, plan) as generators:
            due_ns = time.monotonic_ns() + _LEAD_NS
            for generator in generators:
                generator.begin(due_ns)
            watch = _Watch(settings, daemon, generators, due_ns, on_progress)
            watch.run()
            on_progress("waiting for the last events", 1.0)
            for generator in generators:
                generator.expect("done")
            closed = receiver.wait_closed(settings.total, _DRAIN_S)
            played = [read_played(folder, part) for part in range(plan.parts)]
            daemon.end()
            stopped = receiver.wait_stopped(_DRAIN_S)
            status = daemon.wait(_DRAIN_S)
    return Observed(
        due_ns,
        streams,
        played,
        receiver,
        watch.samples,
        watch.alone_kib,
        watch.full_kib,
        closed,
        stopped,
        status,
        watch.own_cpu_s,
        ready,
    )


class _Watch:
    """Samples the daemon while the generators play."""

    def __init__(
        self,
        settings: Settings,
        daemon: ChildDaemon,
        generators: Sequence[_Generator],
        due_ns: int,
        on_progress: Callable[[str, float], None],
    ) -> None:
        self.samples: list[process.Sample] = []
        self.alone_kib = self.full_kib = 0
        self.own_cpu_s = 0.0
        self._settings = settings
        self._daemon = daemon
        self._generators = generators
        self._due_ns = due_ns
        self._on_progress = on_progress

    def run(self) -> None:
        """Watch until the streams leave."""
        settings, pid = self._settings, self._daemon.process.pid
        warm_s = settings.warm_ticks * TICK_MS / 1000
        length_s = settings.ticks * TICK_MS / 1000
        self._wait_until(_ALONE * warm_s, "warming up")
        self.alone_kib = self._memory_kib(pid)
        moments = [*np.arange(warm_s, length_s - 0.5, 1.0).tolist(), length_s]
        for moment_s in moments[:-1]:
            self._wait_until(moment_s, "warming up" if moment_s == warm_s else "measuring")
            if not self.samples:
                self.own_cpu_s = -time.process_time()
            self.samples.append(process.sample(pid, time.monotonic_ns()))
        # While the streams are still there.
        self._wait_until(length_s - 0.1, "measuring")
        self.full_kib = self._memory_kib(pid)
        self._wait_until(length_s, "measuring")
        self.samples.append(process.sample(pid, time.monotonic_ns()))
        self.own_cpu_s += time.process_time()

    def _wait_until(self, moment_s: float, what: str) -> None:
        """Sleep until so long after the beginning, and see that everybody is alive."""
        while (left_s := moment_s - (time.monotonic_ns() - self._due_ns) / 1e9) > 0:
            self._on_progress(what, 1 - left_s / self._settings.longest_s)
            time.sleep(min(left_s, 1.0))
            self._daemon.check()
            for generator in self._generators:
                generator.check()

    @staticmethod
    def _memory_kib(pid: int) -> int:
        proportional = process.proportional_kib(pid)
        return process.sample(pid, 0).rss_kib if proportional is None else proportional


class _Generator:
    """A generator process."""

    def __init__(self, folder: Path, part: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serd.bench.generator", str(folder), str(part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # It multiplies no matrices; idle threads of a library for that are still threads.
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def expect(self, word: str) -> None:
        """Wait for what it says next.

        Raises
        ------
        DaemonError
            It says something else, or ends.
        """
        assert self.process.stdout is not None, "started with a pipe"
        if self.process.stdout.readline().strip() != word:
            self._fail()

    def begin(self, due_ns: int) -> None:
        """Tell it when to begin."""
        assert self.process.stdin is not None, "started with a pipe"
        self.process.stdin.write(f"{due_ns}\n")
        self.process.stdin.flush()

    def check(self) -> None:
        """Make sure that it runs."""
        if self.process.poll() is not None:
            self._fail()

    def _fail(self) -> None:
        self.process.kill()
        _, words = self.process.communicate()
        raise DaemonError(
            "generator_failed", f"the load generator ended\n  {words.strip() or 'without a word'}"
        )

    def close(self) -> None:
        """Let it go; by force where it does not."""
        try:
            # Closes its standard input, which it waits for.
            self.process.communicate(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@contextmanager
def _generators(folder: Path, plan: Plan) -> Iterator[list[_Generator]]:
    running: list[_Generator] = []
    try:
        for part in range(plan.parts):
            # One by one: an interrupt in the middle must find those that run already.
            running.append(_Generator(folder, part))  # noqa: PERF401
        for generator in running:
            generator.expect("connected")
        yield running
    except BaseException:
        for generator in running:
            generator.process.kill()
        raise
    finally:
        for generator in running:
            generator.close()
