"""Runs that have their conversations in common: one, several, or a search for the most streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from serd.bench.figures import Report
from serd.bench.material import Material, prepare
from serd.bench.report import report
from serd.bench.run import Settings, observe
from serd.bench.search import confirm, find_most
from serd.bench.table import verdict
from serd.config.schema import Config

_MOST_STREAMS = 100_000


class Session:
    """Measures with everything in common but the number of streams and the length.

    Parameters
    ----------
    settings
        Of a run.
    config, config_path, overrides
        Of the daemon; `config` is what the other two amount to.
    recordings
        Speech to make conversations of; the shipped one when there are none.
    bound_ms
        Bound of the 99th percentile of the latency.
    console
        Where progress is shown.
    """

    def __init__(
        self,
        settings: Settings,
        config: Config,
        config_path: Path | None,
        overrides: Sequence[str],
        recordings: Sequence[Path],
        bound_ms: float,
        console: Console,
    ) -> None:
        self._settings = settings
        self._config = config
        self._config_path = config_path
        self._overrides = overrides
        self._recordings = recordings
        self._bound_ms = bound_ms
        self._console = console

    def single(self) -> Report:
        """One run."""
        return self._measure(self._settings, self._prepare(self._settings))

    def curve(self, streams: Sequence[int]) -> list[Report]:
        """A run for each number of streams."""
        material = self._prepare(self._settings)
        return [
            self._told(self._measure(replace(self._settings, streams=number), material))
            for number in streams
        ]

    def find_most(self) -> tuple[int, list[Report]]:
        """The most streams that hold, confirmed by a run of twice the length; and every run."""
        seconds = self._settings.seconds
        material = self._prepare(replace(self._settings, seconds=2 * seconds))
        reports: list[Report] = []

        def holds(seconds: float, streams: int) -> bool:
            settings = replace(self._settings, streams=streams, seconds=seconds)
            reports.append(self._told(self._measure(settings, material)))
            return reports[-1].valid and reports[-1].held

        most = find_most(partial(holds, seconds), self._settings.streams, _MOST_STREAMS)
        self._console.print(f"{most} streams once more, for twice as long", style="dim")
        return confirm(partial(holds, 2 * seconds), most), reports

    def _prepare(self, longest: Settings) -> Material:
        with self._console.status("Making conversations …"):
            return prepare(
                self._config,
                longest.encoding,
                self._recordings,
                longest.longest_s,
                longest.seed,
            )

    def _measure(self, settings: Settings, material: Material) -> Report:
        with _progress(self._console, settings) as on_progress:
            observed = observe(
                settings,
                material,
                self._config_path,
                self._overrides,
                self._config.streams.max_streams,
                on_progress,
            )
        return report(settings, material, observed, self._bound_ms)

    def _told(self, found: Report) -> Report:
        self._console.print(verdict(found))
        return found


@contextmanager
def _progress(console: Console, settings: Settings) -> Iterator[Callable[[str, float], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    bar = Progress(
        TextColumn(f"{settings.total} streams, {{task.description}}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)
