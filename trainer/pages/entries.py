"""What a page shows of one protocol and model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.metrics import Reliability
from trainer.pages.markup import Block, Cell, Figures, Fold, Heading, Notice, Table, Text
from trainer.pages.tables import (
    CONDITION_NAMES,
    group_table,
    mark_of,
    share,
    shown_part,
)
from trainer.pages.tree import Experiment, FoldRun
from trainer.plots.calibration import reliability_chart
from trainer.plots.classes import classes_chart
from trainer.plots.confusion import confusion_chart
from trainer.plots.curves import curve_charts
from trainer.plots.projection import projection_charts, subset
from trainer.plots.style import Chart, slug
from trainer.predictions import CONDITIONS, Predictions
from trainer.report import Bins, Entry, Group
from trainer.splits import PARTS

_GROUPS: tuple[Group, ...] = ("fold", "corpus", "sex", "language", "intensity")
_MOST_NAMED = 6


def measured_blocks(entry: Entry, name: str, note: str) -> list[Block]:
    """Figures and tables of an entry of the report."""
    blocks: list[Block] = [Text(f"{entry.description}. Labels: {', '.join(entry.labels)}.")]
    if entry.speaker_dependent:
        blocks.append(
            Notice(
                "Speaker-dependent: the speakers that are tested have also trained. These figures "
                "say how well the model knows voices that it has heard, not how it does on new "
                "ones.",
                "warning",
            )
        )
    part = shown_part(entry)
    if not entry.rows:
        blocks.append(Notice("Nobody was held out, so there is nothing to measure on."))
        return blocks
    if part == "validation":
        blocks.append(
            Notice(
                "Not tested yet: these figures are of the validation part, on which the epoch was "
                "chosen.",
                "warning",
            )
        )
    blocks += [Heading("Errors and confidence"), Figures(_entry_charts(entry, name, note))]
    blocks.append(Heading("By group"))
    for group in _GROUPS:
        table = group_table(entry, group)
        if table is not None:
            blocks.append(table)
    tables = _calibration_tables(entry)
    return blocks + ([Heading("Telephone, folds, abstention"), *tables] if tables else [])


def _entry_charts(entry: Entry, name: str, note: str) -> list[Chart]:
    part = shown_part(entry)
    charts = []
    diagrams = {}
    for condition in CONDITIONS:
        row = entry.row(condition, part=part)
        if row is None:
            continue
        words = CONDITION_NAMES[condition]
        charts.append(
            confusion_chart(
                slug("confusion", name, words),
                f"Confusion, {words}",
                note,
                np.asarray(row.confusion, np.int64),
                entry.labels,
            )
        )
        if row.bins is not None:
            diagrams[words] = _reliability(row.bins)
    row = entry.row(part=part)
    if row is not None and row.classes:
        charts.append(classes_chart(slug("classes", name), "By class, clean", note, row))
    if diagrams:
        charts.append(reliability_chart(slug("reliability", name), "Reliability", note, diagrams))
    return charts


def _reliability(bins: Bins) -> Reliability:
    def numbers(values: Sequence[float | None]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray([np.nan if v is None else v for v in values], np.float64)

    return Reliability(
        np.asarray(bins.count, np.int64), numbers(bins.confidence), numbers(bins.accuracy)
    )


def _named(speakers: Sequence[str]) -> str:
    if len(speakers) > _MOST_NAMED or not speakers:
        return f"{len(speakers)} speakers" if speakers else "–"
    several = len({speaker.partition("/")[0] for speaker in speakers}) > 1
    return ", ".join(s if several else s.partition("/")[2] or s for s in speakers)


def speaker_table(runs: Sequence[FoldRun]) -> Table | None:
    """Who trains, validates and is tested in each fold; None where no fold tells."""
    found = {run.fold: run.speakers() for run in runs}
    rows = [
        (fold, *(_named(parts.get(part, [])) for part in PARTS))
        for fold, parts in found.items()
        if parts
    ]
    caption = f"Speakers of each part, by name up to {_MOST_NAMED}."
    return Table(("fold", *PARTS), rows, caption, words=4) if rows else None


def _calibration_tables(entry: Entry) -> list[Block]:
    tables = (_loss_table(entry), _fold_table(entry), _abstention_table(entry))
    return [table for table in tables if table is not None]


def _loss_table(entry: Entry) -> Table | None:
    rows = [
        (
            Cell(loss.name or "all", mark=mark_of(entry)),
            Cell(loss.competing),
            Cell(f"{loss.points.value:.1f}", _points(loss.points.by_utterance)),
        )
        for loss in entry.losses
        if loss.points.value is not None
    ]
    caption = "Points of UAR lost over the telephone; interval by paired bootstrap."
    head = ("corpus", "labels that compete", "points")
    return Table(head, rows, caption, words=2) if rows else None


def _fold_table(entry: Entry) -> Table | None:
    rows = [
        (
            Cell(CONDITION_NAMES[mean.condition], mark=mark_of(entry)),
            Cell(mean.competing),
            _plus_minus(mean.uar, mean.uar_deviation),
            _plus_minus(mean.accuracy, mean.accuracy_deviation),
        )
        for mean in entry.fold_means
    ]
    head = ("condition", "labels that compete", "UAR %", "accuracy %")
    caption = "Mean of the folds ± their standard deviation."
    return Table(head, rows, caption, words=2) if rows else None


def _abstention_table(entry: Entry) -> Table | None:
    calibration = entry.calibration
    if calibration is None or not calibration.abstention:
        return None
    rows = [
        (
            Cell(CONDITION_NAMES[one.condition], mark=mark_of(entry)),
            str(one.segments),
            _percent(one.coverage),
            _percent(one.accuracy_kept),
            _percent(one.accuracy_all),
        )
        for one in calibration.abstention
    ]
    caption = (
        "Segments, when the model abstains under its fold's threshold. For a model that ships: "
        f"temperature {calibration.temperature:g}, abstain below {calibration.abstain_below:g}; "
        "expected calibration error on test segments "
        f"{_three(calibration.test_error_before)} without and "
        f"{_three(calibration.test_error_after)} with the folds' temperatures."
    )
    head = ("condition", "segments", "kept %", "accuracy of kept %", "accuracy of all %")
    return Table(head, rows, caption)


def _points(span: tuple[float | None, float | None] | None) -> str:
    if span is None or span[0] is None or span[1] is None:
        return ""
    return f"{span[0]:.1f} to {span[1]:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _plus_minus(value: float | None, deviation: float | None) -> Cell:
    return Cell(_percent(value), "" if deviation is None else f"± {_percent(deviation)}")


def curve_blocks(name: str, note: str, runs: Sequence[FoldRun]) -> list[Block]:
    """Curves of the folds that have a log."""
    logs = {run.fold: log for run in runs if (log := run.log()) is not None}
    if not logs:
        return [Notice("No curves: there is no log.csv (a classical model is fitted in one step).")]
    return [Figures(curve_charts(name, note, logs))]


def projection_blocks(
    name: str,
    note: str,
    folds: Sequence[tuple[FoldRun, list[Predictions]]],
    seed: int,
) -> list[Block]:
    """Embeddings of one fold, that with the most test utterances: folds are different networks."""
    found = [
        (len(p), run.fold, p)
        for run, predictions in folds
        for p in predictions
        if p.condition == "clean" and p.part == "test" and p.embedding.shape[1] > 1 and len(p) > 4
    ]
    if not found:
        return [Notice("No projection of the embeddings: the predictions hold none.")]
    _, fold, chosen = max(found, key=lambda item: item[0])
    rows = subset(len(chosen), seed)
    emotion = np.asarray(chosen.labels)[chosen.truth[rows]]
    corpus = chosen.corpus[rows]
    groups = [("emotion", chosen.labels, emotion)]
    if len(set(corpus.tolist())) > 1:
        groups.append(("corpus", tuple(np.unique(corpus).tolist()), corpus))
    else:
        speaker = chosen.speaker[rows]
        groups.append(("speaker", tuple(np.unique(speaker).tolist()), speaker))
    caption = (
        f"{note}, fold {fold}: {len(rows)} test utterances, clean, by the model's "
        "embedding before its last layer."
    )
    charts = projection_charts(
        slug("embedding", name), caption, chosen.embedding[rows], groups, seed
    )
    if not charts:
        return [Notice("No projection of the embeddings: they are too few or not finite.")]
    return [Figures(charts)]


def entry_fold(
    experiment: Experiment, protocol: str, model: str, name: str, *, seed: int, is_open: bool
) -> Fold:
    """Everything of a protocol and model behind one title; `name` is in its figures' names."""
    runs = experiment.of(protocol, model)
    folds = [(run, run.predictions()) for run in runs]
    entry = next(
        (e for e in experiment.entries() if (e.protocol, e.model) == (protocol, model)), None
    )
    blocks: list[Block] = []
    title, mark, note = f"{protocol} · {model}", "", f"{protocol}, {model}"
    if entry is not None:
        mark = mark_of(entry)
        note += f", {mark}" if mark else ""
        blocks.extend(measured_blocks(entry, name, note))
        row = entry.row(part=shown_part(entry))
        if row is not None:
            title += f" · UAR {share(row.uar)} %"
    else:
        blocks.append(Notice("Not in report.json: `serd-trainer evaluate` measures it."))
    for run in runs:
        if run.reason or run.state == "failed":
            why = run.reason or "no reason was kept"
            blocks.append(Notice(f"Fold {run.fold}: {run.state}, {why}", "warning"))
    speakers = speaker_table(runs)
    if speakers is not None:
        blocks += [Heading("Speakers"), speakers]
    blocks += [Heading("Training"), *curve_blocks(name, note, runs)]
    blocks += [Heading("Embeddings"), *projection_blocks(name, note, folds, seed)]
    return Fold(title, blocks, mark, is_open)
