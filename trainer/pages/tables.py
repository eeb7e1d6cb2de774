"""Tables of a report: everything pooled, and by group."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.pages.markup import Cell, Table
from trainer.predictions import CONDITIONS
from trainer.report import Entry, Estimate, Group, Row
from trainer.splits import Part

CONDITION_NAMES: dict[str, str] = {
    "clean": "clean",
    "telephone-mulaw-8k": "telephone",
    "whole-file": "whole file",
}
SPEAKER_DEPENDENT = "speaker-dependent"


def shown_part(entry: Entry) -> Part:
    """The test part, or the validation part where nothing was tested."""
    return "test" if any(row.part == "test" for row in entry.rows) else "validation"


def mark_of(entry: Entry) -> str:
    """The warning that goes with every figure of an entry whose test speakers trained."""
    return SPEAKER_DEPENDENT if entry.speaker_dependent else ""


def share(estimate: Estimate) -> str:
    """A share in per cent, one decimal."""
    return "–" if estimate.value is None else f"{100 * estimate.value:.1f}"


def with_interval(row: Row, estimate: Estimate, factor: float = 100, digits: int = 1) -> Cell:
    """A figure and the interval to show of it."""
    if estimate.value is None:
        return Cell("–")
    text = f"{factor * estimate.value:.{digits}f}"
    low, high = row.shown(estimate) or (None, None)
    if low is None or high is None:
        return Cell(text)
    return Cell(text, f"{factor * low:.{digits}f}–{factor * high:.{digits}f}")


def pooled_table(entries: Sequence[Entry]) -> Table:
    """A row for each entry, condition and competition."""
    several = any(row.competing != "all labels" for e in entries for row in e.rows)
    rows: list[list[Cell | str]] = []
    for entry in entries:
        part = shown_part(entry)
        for condition in CONDITIONS:
            for row in entry.rows:
                if (row.part, row.condition, row.group) != (part, condition, "all"):
                    continue
                name = entry.protocol if part == "test" else f"{entry.protocol}, validation"
                rows.append(
                    [
                        Cell(name, mark=mark_of(entry)),
                        entry.model,
                        CONDITION_NAMES[condition],
                        *([row.competing] if several else []),
                        with_interval(row, row.uar),
                        with_interval(row, row.accuracy),
                        with_interval(row, row.f1),
                        with_interval(row, row.ece, 1, 3),
                        str(row.count),
                        str(row.speakers),
                    ]
                )
    head = (
        *("protocol", "model", "condition"),
        *(("labels that compete",) if several else ()),
        *("UAR %", "accuracy %", "F1 %", "ECE", "utterances", "speakers"),
    )
    caption = (
        "Utterances of all folds' test parts together. Intervals: 95 %, bootstrap over speakers "
        "where there are enough of them, otherwise over utterances. UAR: mean recall; F1: mean "
        "over classes; ECE: expected calibration error."
    )
    return Table(head, rows, caption, words=4 if several else 3)


def group_table(entry: Entry, group: Group) -> Table | None:
    """UAR by the names of a group under each condition; None where there is no such row."""
    part = shown_part(entry)
    found = {
        condition: {row.name: row for row in entry.select(condition, group=group, part=part)}
        for condition in CONDITIONS
    }
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    if not names:
        return None
    rows: list[list[Cell | str]] = []
    for name in names:
        there = [by_name[name] for by_name in found.values() if name in by_name]
        cells: list[Cell | str] = [Cell(name, mark=mark_of(entry))]
        for by_name in found.values():
            row = by_name.get(name)
            cells.append("–" if row is None else with_interval(row, row.uar))
        first = there[0]
        cells += [share(first.accuracy), share(first.f1), with_interval(first, first.ece, 1, 3)]
        cells.append(str(first.count))
        rows.append(cells)
    head = (
        group,
        *(f"UAR % {CONDITION_NAMES[condition]}" for condition in CONDITIONS),
        *("accuracy %", "F1 %", "ECE", "utterances"),
    )
    return Table(head, rows, f"By {group}; accuracy, F1 and ECE: clean.")
