"""A report in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.predictions import CONDITIONS, Condition
from trainer.report import (
    Competing,
    Entry,
    Estimate,
    ExperimentReport,
    Group,
    Number,
    Row,
)

_OTHERS: tuple[Condition, ...] = ("telephone-mulaw-8k", "whole-file")
_COLUMNS = (
    "test",
    "spk.",
    "count",
    "UAR",
    "95 %",
    "acc.",
    "F1",
    "tel.",
    "loss",
    "file",
    "file acc.",
)
COMPETITIONS: tuple[Competing, ...] = ("all labels", "labels of the corpus")


def percent(value: Number) -> str:
    """A share in percent with one digit, "–" for none."""
    return "–" if value is None else f"{100 * value:.1f}"


def heading(entry: Entry) -> str:
    """The title of an entry, with *speaker-dependent* shouted where it is."""
    warning = "SPEAKER-DEPENDENT: test speakers have trained. " if entry.speaker_dependent else ""
    return warning + entry.title


def print_report(report: ExperimentReport, console: Console | None = None) -> None:
    """Print every table of a report."""
    console = console or wide_console()
    for entry in report.entries:
        if entry.row() is None and entry.row(part="validation") is None:
            console.print(f"\n{heading(entry)}: nothing was held out", markup=False)
        for competing in COMPETITIONS:
            if any(row.competing == competing for row in entry.rows):
                show(
                    console,
                    f"{heading(entry)}; {competing} compete; in %",
                    _overview(entry, competing),
                    _notes(entry, competing),
                )
        row = entry.row()
        if row is not None:
            title = f"{heading(entry)}; clean, {row.competing} compete, by label; in %"
            show(console, title, _classes(row))
        for line in _calibration(entry):
            console.print(line, markup=False, highlight=False)
    for fold in report.unfinished:
        console.print(
            f"{fold.protocol}/{fold.model}/{fold.fold}: no figures, {fold.reason}", markup=False
        )


def wide_console() -> Console:
    """Standard output, with room for a table where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def show(console: Console, title: str, table: Table, notes: str = "") -> None:
    """A table between its title and its notes, whose lines may be wider than it is."""
    console.print(f"\n{title}", markup=False, highlight=False, style="bold", soft_wrap=True)
    console.print(table)
    if notes:
        console.print(notes, markup=False, highlight=False)


def table_of(columns: Sequence[str]) -> Table:
    """An empty table with its first column to the left and the others to the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    return table


def interval(row: Row, estimate: Estimate) -> str:
    """The interval to show, in percent; "s" over speakers, "u" over utterances."""
    span = row.shown(estimate)
    if span is None or None in span:
        return ""
    return f"{percent(span[0])}–{percent(span[1])} {row.interval_over[0]}"


def _overview(entry: Entry, competing: Competing) -> Table:
    table = table_of(_COLUMNS)
    groups: tuple[Group, ...] = ("all", "corpus", "sex", "language", "intensity", "fold")
    for group in groups:
        for row in entry.select(competing=competing, group=group):
            table.add_row(*_cells(entry, row))
    for row in entry.select(competing=competing, group="corpus", part="validation"):
        table.add_row(*_cells(entry, row))
    return table


def _notes(entry: Entry, competing: Competing) -> str:
    means = [
        f"{name} {percent(value)} ± {percent(deviation)}"
        for mean in entry.fold_means
        if mean.condition == "clean" and mean.competing == competing
        for name, value, deviation in (
            ("UAR", mean.uar, mean.uar_deviation),
            ("accuracy", mean.accuracy, mean.accuracy_deviation),
        )
    ]
    over = "Mean and deviation over folds: " + ", ".join(means) + ".\n" if means else ""
    return (
        over
        + _mean_over_corpora(entry, competing)
        + (
            "Intervals of 95 %: s drawn over speakers, u over utterances. "
            "tel.: UAR over the telephone, and the loss in points; file: UAR of whole files."
        )
    )


def _mean_over_corpora(entry: Entry, competing: Competing) -> str:
    """UAR of each corpus, averaged over the corpora; nothing where there is one."""
    means = []
    for condition in CONDITIONS:
        values = [r.uar.value for r in entry.select(condition, competing, "corpus")]
        known = [value for value in values if value is not None]
        if len(known) > 1:
            means.append(f"{condition} {percent(sum(known) / len(known))}")
    return f"Mean over corpora, UAR: {', '.join(means)}.\n" if means else ""


def _cells(entry: Entry, row: Row) -> list[str]:
    far, whole = (
        entry.row(condition, row.competing, row.group, row.name, row.part) for condition in _OTHERS
    )
    loss = ""
    if far is not None and row.uar.value is not None and far.uar.value is not None:
        loss = f"{100 * (row.uar.value - far.uar.value):+.1f}"
    name = f"{row.group} {row.name}".strip()
    return [
        escape(name if row.part == "test" else f"{row.part}, {name}"),
        str(row.speakers),
        str(row.count),
        percent(row.uar.value),
        interval(row, row.uar),
        percent(row.accuracy.value),
        percent(row.f1.value),
        percent(far.uar.value) if far is not None else "",
        loss,
        percent(whole.uar.value) if whole is not None else "",
        percent(whole.accuracy.value) if whole is not None else "",
    ]


def _classes(row: Row) -> Table:
    table = table_of(("label", "count", "precision", "recall", "95 %", "F1"))
    for one in row.classes:
        table.add_row(
            escape(one.label),
            str(one.count),
            percent(one.precision.value),
            percent(one.recall.value),
            interval(row, one.recall),
            percent(one.f1.value),
        )
    return table


def _plain(value: Number) -> str:
    return "–" if value is None else f"{value:.3f}"


def _calibration(entry: Entry) -> list[str]:
    figures = entry.calibration
    if figures is None:
        return []
    sources = sorted({one.source for one in figures.folds})
    if sources == ["none"]:
        lines = [
            "Not calibrated: nobody validates, and there is no other fold. Expected calibration "
            f"error of test segments {_plain(figures.test_error_before)}, negative log-likelihood "
            f"{_plain(figures.test_nll_before)}."
        ]
    else:
        lines = [
            f"Calibration of each fold fitted on: {', '.join(sources)}. Expected calibration error "
            f"of test segments {_plain(figures.test_error_before)} before, "
            f"{_plain(figures.test_error_after)} after; negative log-likelihood "
            f"{_plain(figures.test_nll_before)} before, {_plain(figures.test_nll_after)} after."
        ]
        lines += [
            f"{one.condition}: {percent(one.coverage)} % of {one.segments} segments are at the "
            f"threshold or above; of those {percent(one.accuracy_kept)} % are right, of all "
            f"{percent(one.accuracy_all)} %."
            for one in figures.abstention
        ]
    lines.append(
        f"For shipping, fitted on all {figures.source} predictions: temperature "
        f"{figures.temperature:g}, abstain below {figures.abstain_below:g}."
    )
    row = entry.row()
    if row is not None:
        lines.append(
            f"Utterances, clean: expected calibration error {_with_span(row, row.ece)}, "
            f"negative log-likelihood {_with_span(row, row.nll)}."
        )
    for loss in entry.losses:
        if loss.group == "all" and loss.points.value is not None:
            span = loss.points.by_utterance or (None, None)
            if None not in span:
                lines.append(
                    f"The telephone costs {loss.points.value:+.1f} points of UAR "
                    f"({span[0]:+.1f} to {span[1]:+.1f}), {loss.competing} competing."
                )
    return lines


def _with_span(row: Row, estimate: Estimate) -> str:
    span = row.shown(estimate)
    if span is None or None in span:
        return _plain(estimate.value)
    return f"{_plain(estimate.value)} ({_plain(span[0])} to {_plain(span[1])})"
