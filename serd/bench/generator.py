"""The load generator: a process that plays its share of the streams in real time.

``python -m serd.bench.generator FOLDER PART``. It reads the plan from the folder, says
``connected``, waits for a line with the moment to begin (`time.monotonic_ns`, which all processes
of a machine share), plays, writes what it did into the folder, says ``done``, and leaves its
connections open until its standard input is closed.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serd.bench.tape import SLOT_NS, SLOTS, Line, Piece, Streams, Tape
from serd.bench.zmtp import Connection
from serd.errors import SerdError
from serd.types import BoolArray, Encoding, Int64Array

CAPACITY = 10_000
"""Messages that a connection holds back when the daemon does not take them: as many as the daemon's
own high-water mark has by default."""

_LAST_WORDS_S = 10.0


@dataclass(frozen=True)
class Plan:
    """What all generators of a run have in common."""

    endpoint: str
    waits: bool
    taps: int
    parts: int
    encoding: int
    sample_rate_hz: int
    jitter_ms: float
    loss: float
    suppress_silence: bool
    seed: int

    @property
    def line(self) -> Line:
        """What befalls the messages."""
        return Line(self.jitter_ms, self.loss, self.suppress_silence)


@dataclass(frozen=True)
class Played:
    """What a generator did.

    Attributes
    ----------
    sent_ns
        int64 ``[slots]``: monotonic time right before the first message of a slot left; 0 where
        none did.
    due_ns
        Monotonic time at which slot 0 was due.
    delay
        uint8 ``[ticks, streams]``, or empty: see `serd.bench.tape.Tape.delay`; streams in the order
        of `numbers`.
    numbers
        int64 ``[streams]``.
    cpu_ns
        Processor time from the beginning to the end.
    """

    sent_ns: Int64Array
    due_ns: int
    delay: NDArray[np.uint8]
    numbers: Int64Array
    messages: int
    withheld: int
    suppressed: int
    dropped: int
    waited_ns: int
    cpu_ns: int

    @property
    def late_ns(self) -> Int64Array:
        """int64 ``[n]``: how late each moment was at which something left."""
        used = np.flatnonzero(self.sent_ns)
        return self.sent_ns[used] - (self.due_ns + used * SLOT_NS)


def write_plan(
    folder: Path, plan: Plan, streams: Streams, audio: NDArray[np.uint8], silent: BoolArray
) -> None:
    """Write what the generators read."""
    (folder / "plan.json").write_text(json.dumps(asdict(plan)))
    # Not compressed: the generators map it, and share the memory.
    np.save(folder / "audio.npy", audio)
    np.save(folder / "silent.npy", silent)
    np.save(folder / "streams.npy", np.stack(streams.columns()))


def read_played(folder: Path, part: int) -> Played:
    """What a generator wrote."""
    with np.load(folder / f"played-{part}.npz") as file:
        content: dict[str, Any] = {n: file[n] if file[n].ndim else int(file[n]) for n in file.files}
    return Played(**content)


def play(tape: Tape, connections: list[Connection], due_ns: int, unix_ns: int) -> Played:
    """Send everything at its time.

    Parameters
    ----------
    due_ns, unix_ns
        When slot 0 is due, by the monotonic clock and as Unix time.
    """
    cpu_ns = time.process_time_ns()
    ticks = tape.streams.ticks
    sent_ns = np.zeros((ticks + 256) * SLOTS, np.int64)
    waiting: dict[int, list[Piece]] = defaultdict(list)
    clock, sleep = time.monotonic_ns, time.sleep
    for tick in range(ticks):
        # Made while the last slot of the tick before lasts, so before its own first one is due.
        for piece in tape.tick(tick, unix_ns):
            waiting[piece.slot].append(piece)
        end = (tick + 1) * SLOTS if tick < ticks - 1 else len(sent_ns)
        for slot in sorted(slot for slot in waiting if slot < end):
            wait_ns = due_ns + slot * SLOT_NS - clock()
            if wait_ns > 0:
                sleep(wait_ns / 1e9)
            sent_ns[slot] = clock()
            for piece in waiting.pop(slot):
                connections[piece.tap].send(piece.content, piece.messages)
    unsent = sum(connection.finish(_LAST_WORDS_S) for connection in connections)
    return Played(
        sent_ns=sent_ns,
        due_ns=due_ns,
        delay=tape.delay if tape.delay is not None else np.zeros((0, 0), np.uint8),
        numbers=tape.streams.number,
        messages=tape.messages,
        withheld=tape.withheld,
        suppressed=tape.suppressed,
        dropped=unsent + sum(connection.dropped for connection in connections),
        waited_ns=sum(connection.waited_ns for connection in connections),
        cpu_ns=time.process_time_ns() - cpu_ns,
    )


def main(folder: Path, part: int) -> None:
    """Run one generator; see the module."""
    # Ctrl-C reaches every process of the terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = Plan(**json.loads((folder / "plan.json").read_text()))
    streams = Streams(*np.load(folder / "streams.npy")).share(part, plan.parts)
    tape = Tape(
        streams,
        np.load(folder / "audio.npy", mmap_mode="r"),
        np.load(folder / "silent.npy"),
        Encoding(plan.encoding),
        plan.sample_rate_hz,
        plan.line,
        plan.seed + part,
    )
    connections = [Connection(plan.endpoint, plan.waits, CAPACITY) for _ in range(plan.taps)]
    # Nothing here makes cycles, and a collection would come at a moment of its own choice.
    gc.disable()
    print("connected", flush=True)
    words = sys.stdin.readline().split()
    if not words:
        return
    due_ns = int(words[0])
    played = play(tape, connections, due_ns, time.time_ns() + due_ns - time.monotonic_ns())
    np.savez(folder / f"played-{part}.npz", **asdict(played))
    print("done", flush=True)
    sys.stdin.readline()
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except (SerdError, OSError) as error:
        sys.exit(f"the load generator: {error}")
