"""The page of an experiment: figures first, then each model, then sound, data and recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.pages.corpus import label_order
from trainer.pages.entries import entry_fold
from trainer.pages.markup import Block, Figures, Notice, Page, Section, Table, Tiles
from trainer.pages.provenance import (
    data_blocks,
    recipe_blocks,
    recordings_of,
    seed_of,
    version_blocks,
)
from trainer.pages.sounds import example_blocks, feature_blocks
from trainer.pages.tables import CONDITION_NAMES, pooled_table, share, shown_part
from trainer.pages.tree import Experiment, Key
from trainer.plots.overview import Score, overview_chart
from trainer.plots.style import Chart, slug
from trainer.predictions import CONDITIONS
from trainer.report import Entry

if TYPE_CHECKING:
    from trainer.prepare import Places


def experiment_page(experiment: Experiment, data: Places | None, progress: bool = False) -> Page:
    """Everything of an experiment, as data; `data` is where its corpora and a cache are."""
    entries = experiment.entries()
    recordings, notes = recordings_of(
        experiment, data.shared / "corpora" if data is not None else None
    )
    heard = {r.label for r in recordings}
    labels = list(entries[0].labels) if entries else label_order(heard)
    cache = data.cache if data is not None else None
    seed = seed_of(experiment)
    keys = experiment.keys()
    details: list[Block] = [
        entry_fold(experiment, protocol, model, name, seed=seed, is_open=i == 0)
        for i, ((protocol, model), name) in enumerate(zip(keys, _names(keys), strict=True))
    ]
    return Page(
        title=experiment.name,
        kicker="Experiment",
        lead=_lead(experiment, entries),
        sections=[
            Section("results", "Results", _results(experiment, entries)),
            Section(
                "models", "Models", details or [Notice("No model has been trained in this folder.")]
            ),
            Section("examples", "Examples", example_blocks(recordings, labels)),
            Section(
                "features",
                "Features by emotion",
                feature_blocks(recordings, labels, cache, progress),
            ),
            Section("data", "Data", data_blocks(recordings, notes)),
            Section("recipe", "Recipe", recipe_blocks(experiment)),
            Section("versions", "Versions and seeds", version_blocks(experiment)),
        ],
    )


def _names(keys: Sequence[Key]) -> list[str]:
    """A name for files of each key: names that differ only in their signs get a number."""
    found: list[str] = []
    for i, key in enumerate(keys):
        name = slug(*key)
        while name in found:
            name += f"-{i}"
        found.append(name)
    return found


def _lead(experiment: Experiment, entries: Sequence[Entry]) -> str:
    keys = experiment.keys()
    protocols = list(dict.fromkeys(protocol for protocol, _ in keys))
    models = list(dict.fromkeys(model for _, model in keys))
    parts = []
    if models:
        parts.append(f"{_count(len(models), 'model')} ({', '.join(models)})")
    if protocols:
        parts.append(f"{_count(len(protocols), 'protocol')} ({', '.join(protocols)})")
    if entries:
        parts.append(f"{len(entries[0].labels)} labels")
    return "; ".join(parts) + "." if parts else "Nothing has been trained yet."


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _results(experiment: Experiment, entries: Sequence[Entry]) -> list[Block]:
    blocks: list[Block] = [Notice(note, "warning") for note in experiment.notes]
    measured = [entry for entry in entries if entry.rows]
    tiles = _tiles(experiment, measured)
    if tiles:
        blocks.append(Tiles(tiles))
    blocks.extend(_unfinished(experiment))
    if not measured:
        blocks.append(Notice("Nothing has been measured."))
        return blocks
    if any(entry.speaker_dependent for entry in measured):
        blocks.append(
            Notice(
                "Figures marked speaker-dependent are of speakers that the model has trained on: "
                "they are no measure of how it does on others.",
                "warning",
            )
        )
    chart = _overview(measured)
    if chart is not None:
        blocks.append(Figures([chart]))
    blocks.append(pooled_table(measured))
    return blocks


def _tiles(experiment: Experiment, entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    tiles: list[tuple[str, str, str]] = []
    apart = [entry for entry in entries if not entry.speaker_dependent] or list(entries)
    scored = [
        (row.uar.value, entry)
        for entry in apart
        if (row := entry.row(part=shown_part(entry))) is not None and row.uar.value is not None
    ]
    if scored:
        _, best = max(scored, key=lambda item: item[0])
        note = f"{best.protocol}, {best.model}"
        if best.speaker_dependent:
            note += ", speaker-dependent"
        if shown_part(best) == "validation":
            note += ", validation"
        for condition in CONDITIONS:
            row = best.row(condition, part=shown_part(best))
            if row is not None:
                tiles.append((f"UAR, {CONDITION_NAMES[condition]}", f"{share(row.uar)} %", note))
        row = best.row(part=shown_part(best))
        if row is not None and row.ece.value is not None:
            tiles.append(("calibration error, clean", f"{row.ece.value:.3f}", note))
    if experiment.runs:
        states = Counter(run.state for run in experiment.runs)
        done = states.pop("done", 0) or states.pop("unknown", 0)
        rest = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        tiles.append(("folds done", f"{done} of {len(experiment.runs)}", rest))
    return tiles


def _unfinished(experiment: Experiment) -> list[Block]:
    rows = [
        (run.protocol, run.model, run.fold, run.state, run.reason)
        for run in experiment.runs
        if run.state not in {"done", "unknown"}
    ]
    named = {row[:3] for row in rows}
    if experiment.report is not None:
        rows += [
            (one.protocol, one.model, one.fold, "no predictions", one.reason)
            for one in experiment.report.unfinished
            if (one.protocol, one.model, one.fold) not in named
        ]
    if not rows:
        return []
    head = ("protocol", "model", "fold", "state", "reason")
    return [
        Notice(f"{_count(len(rows), 'fold')} without figures.", "warning"),
        Table(head, rows, words=5),
    ]


def _overview(entries: Sequence[Entry]) -> Chart | None:
    scores = []
    for condition in CONDITIONS:
        for entry in entries:
            row = entry.row(condition, part=shown_part(entry))
            if row is None or row.uar.value is None:
                continue
            name = f"{entry.protocol}, {entry.model}"
            if entry.speaker_dependent:
                name += "\n(speaker-dependent)"
            low, high = row.shown(row.uar) or (None, None)
            span = (
                row.uar.value if low is None else low,
                row.uar.value if high is None else high,
            )
            scores.append(Score(name, CONDITION_NAMES[condition], row.uar.value, span))
    if not scores:
        return None
    chance = 1 / max(2, len(entries[0].labels))
    return overview_chart("overview", "UAR at a glance", scores, chance)
