"""The journal that a configuration asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from serd.clock import Clock
from serd.config.schema import Config
from serd.sinks.journal.writer import QUEUE_EVENTS, Journal, JournalOptions
from serd.sinks.ring import EventRing

FILE_NAME: Final = "events.sqlite"

_log = structlog.get_logger(__name__)


def journal_path(configured: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where the journal is, or None for no journal.

    Parameters
    ----------
    configured
        ``journal.path``: a path, "" for none, or ``auto`` for `FILE_NAME` in the state directory of
        a systemd service (``STATE_DIRECTORY``, see systemd.exec(5)), and none elsewhere.
    environ
        Where ``STATE_DIRECTORY`` is looked up.
    """
    if configured != "auto":
        return Path(configured) if configured else None
    folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(folder) / FILE_NAME if folder else None


def open_journal(config: Config, clock: Clock, run_id: str) -> Journal | None:
    """Take the journal for this daemon; None if it has none.

    Raises
    ------
    JournalError
        It is another daemon's, or cannot be one.
    """
    section = config.journal
    path = journal_path(section.path)
    if path is None:
        _log.info(
            "journal.none",
            why="journal.path is empty"
            if not section.path
            else "journal.path is auto, and there is no STATE_DIRECTORY",
            effect=f"the newest {config.publish.keep_events} events can be asked for again,"
            " until the daemon ends",
        )
        return None
    journal = Journal(
        JournalOptions(
            path,
            owner=config.daemon.name,
            ttl_h=section.ttl_h,
            max_mib=section.max_mib,
            synchronous=section.synchronous,
        ),
        clock,
        run_id,
    )
    first = journal.open()
    _log.info("journal.open", path=str(path), first_cursor=first)
    return journal


def make_ring(config: Config, journal: Journal | None) -> EventRing:
    """The events in memory: with a journal, at least those that may still be on their way there."""
    keep = config.publish.keep_events
    return EventRing(keep if journal is None else max(keep, 2 * QUEUE_EVENTS))
