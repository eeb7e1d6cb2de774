"""A real daemon whose models can be changed, and a subscriber to all that it says."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from serd.runtime.control import ask
from serd.types import Int16Array
from tests.daemon import Json, RunningDaemon, running_daemon
from tests.taps import Collector, Push, blocks

RATE_HZ = 8000

# The tiny models take half a second.
OVERRIDES = (
    "segment.window_s=0.5",
    "segment.hop_s=0.25",
    "segment.max_utterance_s=3.0",
    "inference.workers=2",
    "streams.max_lag_ms=50000",
    "streams.backlog_s=60.0",
)


class Bench:
    """A daemon with a control socket, and a subscriber to all that it says."""

    def __init__(self, daemon: RunningDaemon, control: Path, folder: Path) -> None:
        self.daemon = daemon
        self.control = control
        self.folder = folder
        self.collector = Collector(daemon.events)
        self.push = Push(daemon.tap)

    def ask(self, command: str, **arguments: Any) -> Json:
        return ask(self.control, {"command": command, **arguments}, 60.0)

    def use(self, manifest: Path) -> str:
        return str(self.ask("use", model=str(manifest))["model"])

    def reload(self, manifest: Path) -> None:
        """Have the configuration's file name another model, and the daemon read it."""
        [file] = self.folder.glob("serd-*.toml")
        [before] = re.findall(r'^model = ".*"$', file.read_text(), re.MULTILINE)
        file.write_text(file.read_text().replace(before, f'model = "{manifest}"'))
        self.daemon.process.send_signal(signal.SIGHUP)

    @property
    def in_use(self) -> str:
        return str(self.ask("models")["model"]["identity"])

    def play(self, stream: str, speech: Int16Array) -> list[Json]:
        """Play a recording to its end; what was said of it."""
        self.push.send(blocks(stream, speech, RATE_HZ, 20))
        self.collector.wait_closed([stream])
        return self.of(stream)

    def of(self, stream: str) -> list[Json]:
        return [event for event in self.collector.events if event.get("stream") == stream]

    def children(self) -> list[int]:
        """Processes that the daemon has begun and that still run."""
        return [
            int(status.parent.name)
            for status in Path("/proc").glob("[0-9]*/stat")
            if _parent_of(status) == self.daemon.process.pid
        ]

    def close(self) -> None:
        self.push.close()
        self.collector.close()


@contextmanager
def serving(
    folder: Path,
    manifest: Path,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Bench]:
    """A daemon that begins with a model."""
    control = folder / "control.sock"
    config = f'[inference]\nmodel = "{manifest}"\n'
    settings = [*OVERRIDES, f"daemon.control={control}", "metrics.bind=127.0.0.1:0", *overrides]
    with running_daemon(folder, config, settings, environ) as running:
        made = Bench(running, control, folder)
        yield made
        made.close()


def models_of(events: list[Json]) -> list[str]:
    """The models that judged a stream's segments, each once for every run of segments."""
    return [name for name, _ in groupby(e["model"] for e in events if e["type"] == "emotion")]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    return _parent_of(Path(f"/proc/{pid}/stat")) is not None


def _parent_of(status: Path) -> int | None:
    try:
        state, parent = status.read_text().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else int(parent)
