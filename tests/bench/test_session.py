from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from serd.bench.charts import curve_chart
from serd.bench.figures import Report
from serd.bench.material import Material
from serd.bench.run import Settings
from serd.bench.session import Session
from serd.bench.table import probes, table, verdict
from serd.config.schema import Config
from tests.bench.test_report import MATERIAL, SETTINGS, Scene

PLAIN = Scene().report()


class Made(Session):
    """Runs that hold up to a number of streams; longer ones up to another."""

    def __init__(self, settings: Settings, most: int, most_of_long: int) -> None:
        console = Console(file=io.StringIO(), width=200)
        super().__init__(settings, Config(), None, (), (), 250.0, console)
        self.shown = console.file
        self.runs: list[tuple[int, float]] = []
        self._most = most
        self._most_of_long = most_of_long

    def _prepare(self, longest: Settings) -> Material:
        return MATERIAL

    def _measure(self, settings: Settings, material: Material) -> Report:
        self.runs.append((settings.streams, settings.seconds))
        long = settings.seconds > self._settings.seconds
        held = settings.streams <= (self._most_of_long if long else self._most)
        return replace(
            PLAIN, streams=settings.streams, held=held, problems=() if held else ("too much",)
        )


def test_the_search_ends_with_a_run_of_twice_the_length() -> None:
    session = Made(replace(SETTINGS, streams=50), most=730, most_of_long=700)
    most, reports = session.find_most()
    assert 660 <= most <= 700
    assert session.runs[-1] == (most, 2 * SETTINGS.seconds)
    assert len(reports) == len(session.runs)
    assert reports[-1].held


def test_the_curve_is_a_run_for_each_number() -> None:
    session = Made(SETTINGS, most=10, most_of_long=10)
    reports = session.curve([1, 10, 100])
    assert [(report.streams, report.held) for report in reports] == [
        (1, True),
        (10, True),
        (100, False),
    ]
    assert session.shown.getvalue().count("held: nothing lost") == 2  # type: ignore[attr-defined]
    chart = curve_chart(reports)
    assert "live channels" in chart
    assert chart.count("<polyline") == 5


class TestWords:
    def shown(self, report: Report) -> str:
        console = Console(file=io.StringIO(), width=200)
        console.print(table(report))
        console.print(probes([report, report]))
        console.print(verdict(report))
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]  # as made above

    def test_a_run_that_held(self) -> None:
        text = self.shown(PLAIN)
        assert "6 streams held: nothing lost" in text
        assert "75% of it in onnxruntime" in text
        assert "100 KiB a stream beyond the first" in text

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"held": False, "problems": ("3 messages lost",)}, "not held: 3 messages lost"),
            ({"valid": False}, "the load generator could not keep up"),
        ],
    )
    def test_a_run_that_did_not(self, change: dict[str, object], words: str) -> None:
        assert words in self.shown(replace(PLAIN, **change))  # type: ignore[arg-type]

    def test_a_surge(self) -> None:
        report = Scene(replace(SETTINGS, surge=4)).report()
        text = self.shown(report)
        assert "4 more streams; shed: 0 streams" in text
        assert "0.0 s after it left" in text
