"""What the harness found, as JSON and as a table of ratios."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from serd.bench.process import machine
from tests.bench.peers.agreement import Agreement
from tests.bench.peers.registry import AROUND, BASELINE, Peer, version
from tests.bench.peers.trial import Found

OURS = "serd"


@dataclass
class Entry:
    """One program.

    Attributes
    ----------
    problem
        Why it was not measured, or not to the end; empty if it was.
    cores
        Processor seconds for a second of a channel, as fast as it goes: of a peer's detector,
        features and network in a single thread; of ours, of the whole daemon.
    parts
        What of it is librosa's, and what the network's.
    """

    name: str
    what: str
    versions: dict[str, str | None]
    problem: str = ""
    cores: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    live: Found | None = None
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Report:
    """Everything of one run; `entries` begin with ours."""

    seconds: float
    quick: bool
    processors: int
    load: float
    entries: list[Entry]


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "machine": {**machine(), "load_before": report.load},
        "seconds": report.seconds,
        "quick": report.quick,
        "versions": {name: version(name) for name in (*AROUND, "soxr")},
        "programs": [_program(entry, report) for entry in report.entries],
    }


def _program(entry: Entry, report: Report) -> dict[str, Any]:
    ours = report.entries[0]
    described: dict[str, Any] = {
        "name": entry.name,
        "what": entry.what,
        "baseline": entry.name == BASELINE,
        "versions": entry.versions,
        "problem": entry.problem or None,
        "cores_a_channel": entry.cores,
        "parts": entry.parts,
        "cores_a_channel_against_ours": _ratio(entry.cores, ours.cores),
        "channels_by_processor_time": report.processors / entry.cores if entry.cores else None,
        "live": None,
        "agreement": None,
    }
    if entry.live is not None:
        described["live"] = {
            "streams": entry.live.streams,
            "ours_against_it": _ratio(_streams(ours), _streams(entry)),
            "cores_a_channel": _live_cores(entry),
            "cores_a_channel_against_ours": _ratio(_live_cores(entry), _live_cores(ours)),
            "trials": [trial.as_json() for trial in entry.live.trials],
        }
    if entry.agreement is not None:
        described["agreement"] = {**asdict(entry.agreement), "labels": entry.agreement.labels}
    return described


def _streams(entry: Entry) -> int | None:
    return entry.live.streams if entry.live else None


def _live_cores(entry: Entry) -> float | None:
    best = entry.live.best if entry.live else None
    return best.cores / best.streams if best else None


def _ratio(value: float | None, of: float | None) -> float | None:
    return round(value / of, 3) if value is not None and of else None


def print_table(report: Report, console: Console) -> None:
    """Ratios to ours, one line a program."""
    ours = report.entries[0]
    table = Table(box=box.SIMPLE, title=f"{machine()['cpu']}, {report.processors} processors")
    table.add_column("program", no_wrap=True)
    for title in (
        "CPU a\nchannel\n×",
        "the same,\nlive\n×",
        "held\nlive",
        "serd\nholds\n×",
        "shared\nsegments",
        "same\nlabel",
    ):
        table.add_column(title, justify="right")
    for entry in report.entries:
        table.add_row(entry.name, *_cells(entry, ours))
    console.print(table)
    for entry in report.entries:
        if entry.problem:
            console.print(f"{entry.name}: {entry.problem}", markup=False)


def _cells(entry: Entry, ours: Entry) -> list[str]:
    work = _ratio(entry.cores, ours.cores)
    live = _ratio(_live_cores(entry), _live_cores(ours))
    more = _ratio(_streams(ours), _streams(entry))
    common = labels = "–"
    if entry.agreement and entry.agreement.segments:
        common = f"{entry.agreement.matching / entry.agreement.segments:.0%}"
        if entry.agreement.labels is not None:
            labels = f"{entry.agreement.labels:.0%}"
    return [
        "–" if work is None else f"{work:.2f}",
        "–" if live is None else f"{live:.2f}",
        "–" if entry.live is None else str(entry.live.streams),
        "–" if more is None else f"{more:.1f}",
        common,
        labels,
    ]


def our_entry() -> Entry:
    """An empty entry for the daemon."""
    return Entry(OURS, "serd, the daemon", {OURS: version(OURS)})


def peer_entry(one: Peer) -> Entry:
    """An empty entry for a peer."""
    return Entry(one.name, one.what, {needed: version(needed) for needed in one.needs})
