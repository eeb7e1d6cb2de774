"""Measures the daemon beside other programs that do its work, on the same calls, in one go.

    python -m tests.bench.peers [--seconds S] [--json] [--quick] [--only NAME]...

See the README in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from serd.bench.material import Material
from serd.errors import SerdError
from tests.bench.peers import ours, theirs
from tests.bench.peers.agreement import agreement
from tests.bench.peers.calls import make_calls
from tests.bench.peers.judge import cut_network, shipped_manifest
from tests.bench.peers.registry import AROUND, BASELINE, PEERS, Peer, missing, version
from tests.bench.peers.report import (
    OURS,
    Entry,
    Report,
    as_json,
    our_entry,
    peer_entry,
    print_table,
    processors,
)
from tests.bench.peers.trial import Trial, search

_STREAMS_OFFLINE = 128
_BUSY = 0.25
_INSTALL = "pip install -r tests/bench/peers/requirements.txt"

# First guesses at what is held live, as a share of what the processor time alone allows for: where
# threads pass audio from hand to hand it takes several times the work itself.
_GUESS_OURS = 0.4
_GUESS_THEIRS = 0.2


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _trial(name: str, trial: Trial) -> Trial:
    _say(f"  {name}, {trial}")
    return trial


class Harness:
    """One run over all programs.

    Parameters
    ----------
    calls
        What every program is given.
    network
        The emotion network behind its front end, for the peers.
    tolerance, attempts
        See `search`.
    """

    def __init__(
        self, calls: Material, network: Path | None, tolerance: float, attempts: int
    ) -> None:
        self._calls = calls
        self._network = network
        self._tolerance = tolerance
        self._attempts = attempts
        self._segments: list[theirs.Segments] = []

    def ours(self) -> Entry:
        """Measure the daemon; must come first."""
        entry = our_entry()
        _say("serd: as fast as it goes")
        entry.cores, self._segments = ours.run_offline(self._calls, _STREAMS_OFFLINE)
        entry.live = search(
            lambda count: _trial(OURS, ours.run_live(self._calls, count)),
            self._guess(_GUESS_OURS, entry.cores),
            self._tolerance,
            self._attempts,
        )
        return entry

    def theirs(self, one: Peer, *, live: bool) -> Entry:
        """Measure a peer; what keeps it from running is told in the entry."""
        entry = peer_entry(one)
        absent = missing(one)
        if absent:
            entry.problem = f"not installed ({', '.join(absent)}): {_INSTALL}"
            return entry
        assert self._network is not None, "what it is cut with is installed"
        try:
            self._measure(one, entry, self._network, live=live)
        except (RuntimeError, OSError) as error:
            entry.problem = str(error)
        return entry

    def _measure(self, one: Peer, entry: Entry, network: Path, *, live: bool) -> None:
        _say(f"{one.name}: as fast as it goes")
        offline = theirs.run_offline(one, network, self._calls)
        entry.cores = offline.cores
        entry.parts = {"features": offline.features, "network": offline.network}
        entry.agreement = agreement(self._segments, offline.segments)
        if live:
            entry.live = search(
                lambda count: _trial(one.name, theirs.run_live(one, network, self._calls, count)),
                self._guess(_GUESS_THEIRS, offline.cores),
                self._tolerance,
                self._attempts,
            )

    def _guess(self, share: float, cores: float) -> int:
        return max(1, round(share * processors() / cores))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [one.name for one in PEERS]
    parser.add_argument("--seconds", type=float, default=6.0, help="of audio a trial plays")
    parser.add_argument("--json", action="store_true", help="everything, instead of the table")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"coarser, and live only for {BASELINE} and serd: minutes fewer",
    )
    parser.add_argument("--attempts", type=int, default=2, help="trials that decide a failure")
    parser.add_argument("--only", action="append", choices=names, help="this peer; may be repeated")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if load > _BUSY * processors():
        _say(
            f"The machine is not idle (load {load:.1f}): processor time is shared out by threads, "
            "so what is held live says little."
        )
    calls = make_calls(options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        network: Path | None = None
        if all(version(name) for name in AROUND):
            network = Path(folder) / "network.onnx"
            cut_network(shipped_manifest(), network)
        harness = Harness(calls, network, 0.4 if options.quick else 0.15, options.attempts)
        entries = [harness.ours()]
        for one in PEERS:
            if one.name in (options.only or names):
                live = one.live and (not options.quick or one.name == BASELINE)
                entries.append(harness.theirs(one, live=live))
    report = Report(options.seconds, options.quick, processors(), load, entries)
    if options.json:
        print(json.dumps(as_json(report), indent=1))
    else:
        print_table(report, Console())


if __name__ == "__main__":
    try:
        main()
    except SerdError as error:
        sys.exit(f"serd itself failed: {error}")
