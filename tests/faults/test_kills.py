"""`kill -9`, at any moment, of anybody: every event of the journal arrives once and in order.

`SERD_FAULTS_KILLS` says how many (``make faults``: 200), `SERD_FAULTS_SEED` which.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.fakes import wait_until
from tests.faults.processes import Child, Service, heard

KILLS = int(os.environ.get("SERD_FAULTS_KILLS", "8"))
SEED = int(os.environ.get("SERD_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
STREAMS = 100

# A subscriber may be busy with what it missed for as long as a loaded machine takes.
_PATIENCE_S = 120.0


class _Scene:
    """A daemon, a tap with a hundred calls and a subscriber, each to be killed and started anew."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.journal = folder / "journal.sqlite"
        self.out = folder / "heard"
        self._rng = rng
        overrides = (f"journal.path={self.journal}", "streams.idle_timeout_s=2.0")
        # A ring that holds a second of events: what is older must come from the journal.
        self.service = Service(folder, (*overrides, "publish.keep_events=1000"))
        self.children: dict[str, Child] = {}
        self.until = 0

    def begin(self, who: str) -> None:
        if who == "daemon":
            self.service.start()
        elif who == "tap":
            self.children[who] = Child("tap", self.service.pull, "--streams", STREAMS)
        else:
            self.children[who] = Child(
                "subscriber", self.service.events, self.service.replay, self.out
            )

    def kill(self, who: str) -> None:
        if who == "daemon":
            self.service.kill()
        else:
            self.children[who].kill()

    def kill_at_the_start(self) -> None:
        """Once more, somewhere between its first instruction and being ready."""
        daemon = self.service.start(wait=False)
        lines = self._rng.randrange(4)
        wait_until(lambda: len(daemon.log) >= lines, "the daemon to begin", _PATIENCE_S)
        self.service.kill()

    def size(self) -> int:
        return self.out.stat().st_size if self.out.exists() else 0

    def let_flow(self) -> None:
        """Until a random number of events more were heard: the random moment."""
        wanted = self.size() + self._rng.randrange(100, 40_000)
        wait_until(lambda: self.size() >= wanted, "events to flow", _PATIENCE_S)

    def journalled(self) -> list[int]:
        with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as db:
            return [row[0] for row in db.execute("SELECT cursor FROM events ORDER BY cursor")]

    def caught_up(self) -> bool:
        lines = [line for line in heard(self.out)[-5:] if line["kind"] == "event"]
        return bool(lines) and lines[-1]["cursor"] >= self.until


@contextmanager
def _scene(folder: Path, rng: random.Random) -> Iterator[_Scene]:
    scene = _Scene(folder, rng)
    with scene.service:
        try:
            scene.begin("subscriber")
            scene.begin("tap")
            yield scene
        finally:
            for child in scene.children.values():
                child.kill()


@pytest.mark.timeout(90 + 30 * KILLS)
def test_nothing_is_lost_or_doubled_whoever_is_killed(tmp_path: Path) -> None:
    print(f"SERD_FAULTS_SEED={SEED}")
    rng = random.Random(SEED)
    killed: Counter[str] = Counter()
    with _scene(tmp_path, rng) as scene:
        while killed.total() < KILLS:
            scene.let_flow()
            who = rng.choices(["daemon", "subscriber", "tap"], [5, 4, 1])[0]
            scene.kill(who)
            killed[who] += 1
            if who == "daemon" and rng.random() < 0.2:
                scene.kill_at_the_start()
                killed[who] += 1
            scene.begin(who)
        scene.let_flow()
        scene.children["tap"].kill()
        scene.until = scene.journalled()[-1]
        wait_until(scene.caught_up, "the subscriber to have caught up", _PATIENCE_S)
        scene.children["subscriber"].kill()
        journalled = scene.journalled()
    lines = heard(scene.out)
    print(f"{dict(killed)}, {len(lines)} items")
    assert not [line for line in lines if line["kind"] == "missed"]
    cursors = [line["cursor"] for line in lines if line["kind"] == "event"]
    assert len(set(cursors)) == len(cursors), "doubled"
    assert cursors == sorted(cursors), "out of order"
    lost = sorted({cursor for cursor in journalled if cursor <= cursors[-1]} - set(cursors))
    assert not lost, f"{len(lost)} lost, the first of them {lost[:5]}"
    # What a subscriber was shown exists: it was journalled before it was published.
    assert set(cursors) <= set(journalled)
    restarts = sum(line["kind"] == "restarted" for line in lines)
    assert restarts <= killed["daemon"]
