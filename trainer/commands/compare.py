"""`serd-trainer compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.commands.common import clear_errors

if TYPE_CHECKING:
    from rich.table import Table

    from trainer.bootstrap import Difference
    from trainer.comparison import Contender


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path)
)
@click.option("--protocol", help="Only the protocol of this name.")
@click.option("--model", help="Only the model of this name.")
@click.option("--common", is_flag=True, help="On the test utterances that all of them share.")
@click.option("--mixed", is_flag=True, help="Speaker-dependent figures and others in one table.")
@clear_errors
def compare(
    runs: tuple[Path, ...], protocol: str | None, model: str | None, common: bool, mixed: bool
) -> None:
    """Test figures of several RUNs side by side, and how sure their differences are.

    RUN is an experiment's folder, or RUN/PROTOCOL or RUN/PROTOCOL/MODEL in it. Every other is
    held against the first: the difference of UAR on the same utterances, with a paired
    bootstrap interval. Runs tested on different utterances are refused, unless --common
    leaves those that only some of them were tested on out.
    """
    from trainer.comparison import (
        check_comparable,
        contenders,
        on_common_utterances,
        same_utterances,
        tables,
    )

    found = [contenders(run, protocol, model) for run in runs]
    for table in tables(found, mixed):
        check_comparable(table, mixed)
        if common:
            table = on_common_utterances(table)
        for dependent in (False, True):
            same_utterances([one for one in table if one.speaker_dependent == dependent])
        _print(table, common)


def _print(table: Sequence[Contender], common: bool) -> None:
    from trainer.reporting.text import show, wide_console

    console = wide_console()
    over = ", on the utterances common to all" if common else ""
    letters = [chr(ord("A") + i) if i < 26 else f"A{i}" for i in range(len(table))]
    console.print()
    for letter, one in zip(letters, table, strict=True):
        console.print(
            f"{letter}: {one.name}, {_protocol(one)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    dependent = {one.speaker_dependent for one in table}
    title = "Test" if dependent == {False} else "Test, SPEAKER-DEPENDENT where it says so"
    note = (
        "Intervals of 95 %: s drawn over speakers, u over utterances. telephone, file, own: UAR; "
        "own where only the labels of the corpus compete, else all do."
    )
    show(console, f"{title}{over}; in %", _figures(letters, table), note)
    if len(dependent) > 1:
        console.print(
            "SPEAKER-DEPENDENT figures are of voices that the model has trained on; no difference "
            "between them and the others is told.",
            markup=False,
        )
    others = [
        (letter, one)
        for letter, one in zip(letters[1:], table[1:], strict=True)
        if one.speaker_dependent == table[0].speaker_dependent
    ]
    if others:
        title = f"UAR less that of A, in points, paired{over}"
        show(console, title, _differences(table[0], others))


def _protocol(one: Contender) -> str:
    from trainer.protocol_settings import describe

    mark = "SPEAKER-DEPENDENT " if one.speaker_dependent else ""
    return f"{mark}{describe(one.protocol)}"


def _figures(letters: Sequence[str], table: Sequence[Contender]) -> Table:
    from rich.markup import escape

    from trainer.reporting.text import interval, percent, table_of

    found = table_of(("", "spk.", "count", "UAR", "95 %", "acc.", "F1", "telephone", "file", "own"))
    for letter, one in zip(letters, table, strict=True):
        row, far, file, own = (
            one.row("clean"),
            one.row("telephone-mulaw-8k"),
            one.row("whole-file"),
            one.row("clean", own=True),
        )
        assert row is not None
        mark = " SPEAKER-DEPENDENT" if one.speaker_dependent else ""
        found.add_row(
            escape(f"{letter} {one.model}{mark}"),
            str(row.speakers),
            str(row.count),
            percent(row.uar.value),
            interval(row, row.uar),
            percent(row.accuracy.value),
            percent(row.f1.value),
            *(percent(r.uar.value) if r is not None else "" for r in (far, file, own)),
        )
    return found


def _differences(first: Contender, others: Sequence[tuple[str, Contender]]) -> Table:
    from rich.markup import escape

    from trainer.comparison import difference
    from trainer.predictions import CONDITIONS
    from trainer.reporting.text import table_of

    found = table_of(("", *(name for c in CONDITIONS for name in (c, "95 %"))))
    for letter, other in others:
        cells = []
        for condition in CONDITIONS:
            cells += _difference(difference(first, other, condition), first)
        found.add_row(escape(f"{letter} {other.model}"), *cells)
    return found


def _difference(found: Difference | None, first: Contender) -> list[str]:
    from trainer.report import ENOUGH_SPEAKERS

    if found is None:
        return ["", ""]
    speakers = int(first.tested["clean"].speaker.max()) + 1
    span, over = found.by_utterance, "u"
    if speakers >= ENOUGH_SPEAKERS and found.by_speaker is not None:
        span, over = found.by_speaker, "s"
    return [f"{100 * found.value:+.1f}", f"{100 * span[0]:+.1f} to {100 * span[1]:+.1f} {over}"]
