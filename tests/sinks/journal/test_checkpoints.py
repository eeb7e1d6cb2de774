"""Checkpoints keep the log short while the writer goes on, and stop it from growing for ever."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from serd.protocol.replay import StoredEvent
from serd.sinks.journal import checkpoints
from serd.sinks.journal.checkpoints import Checkpointer
from serd.sinks.journal.files import Marked
from serd.sinks.journal.store import Batch, Store

FIRST = 1 << 40
PAYLOAD = b'"' + b"x" * 4000 + b'"'


def test_the_log_begins_anew_however_long_the_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_CHECKPOINT_BYTES", 1 << 18)
    monkeypatch.setattr(checkpoints, "_LONG_BYTES", 1 << 20)
    path = tmp_path / "j"
    # Not started: what the thread does in time is a matter of luck.
    checkpointer = Checkpointer(path)
    with closing(Store(path, Marked("r", FIRST, FIRST - 1), None)) as store:
        for number in range(200):
            events = [
                StoredEvent(FIRST + 20 * number + n, b"emotion.a", PAYLOAD) for n in range(20)
            ]
            checkpointer.grown(store.append([Batch(events, 0)]), store.checkpoint)
        # 16 MiB went through it.
        assert path.with_name("j-wal").stat().st_size < 3 << 20
        assert path.stat().st_size > 10 << 20


def test_a_journal_that_is_gone_is_not_made_by_a_checkpoint(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "j")
    checkpointer.start()
    checkpointer.grown(1 << 30, lambda: False)
    checkpointer.stop()
    assert not list(tmp_path.iterdir())
