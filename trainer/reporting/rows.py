"""Rows of a report: figures of scored utterances, altogether and by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trainer.bootstrap import Spans, calibration_spans, spans_of, uar_difference
from trainer.metrics import (
    Counts,
    Float64,
    Int64,
    averages,
    confusion_matrix,
    f1_scores,
    log_losses,
    precisions,
    recalls,
    reliability,
)
from trainer.predictions import Condition, Predictions, Strings
from trainer.report import (
    Bins,
    ClassFigures,
    Competing,
    Estimate,
    FoldMean,
    Group,
    Loss,
    Number,
    Row,
    Span,
)
from trainer.splits import Part

GROUPS: tuple[Group, ...] = ("fold", "corpus", "sex", "language", "intensity")


@dataclass(frozen=True, slots=True)
class Scored:
    """Utterances of all folds under one condition, with calibrated scores.

    Attributes
    ----------
    speaker
        int64 [utterances], numbered from 0 without gaps.
    group
        names [utterances] by group; "" is unknown.
    scores
        float64 [utterances, labels]; labels that do not compete score 0.
    """

    part: Part
    condition: Condition
    competing: Competing
    labels: tuple[str, ...]
    path: Strings
    speaker: Int64
    group: Mapping[Group, Strings]
    truth: Int64
    scores: Float64

    @property
    def said(self) -> Int64:
        """The label of the top score: int64 [utterances]."""
        return np.asarray(self.scores.argmax(axis=1), np.int64)

    def some(self, chosen: npt.NDArray[np.bool_]) -> Scored:
        """The utterances where `chosen`, bool [utterances]."""
        return replace(
            self,
            path=self.path[chosen],
            speaker=_numbered(self.speaker[chosen]),
            group={name: values[chosen] for name, values in self.group.items()},
            truth=self.truth[chosen],
            scores=self.scores[chosen],
        )


def own_labels(predictions: Sequence[Predictions]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which labels occur in each corpus, over all predictions given: bool [labels] by corpus."""
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for one in predictions:
        for corpus in np.unique(one.corpus):
            there = found.setdefault(str(corpus), np.zeros(len(one.labels), np.bool_))
            there[one.truth[one.corpus == corpus]] = True
    return found


def score(
    folds: Sequence[tuple[str, float, Predictions]],
    own: Mapping[str, npt.NDArray[np.bool_]] | None,
) -> Scored:
    """Score the predictions of some folds together.

    Parameters
    ----------
    folds
        name, temperature and predictions of each, all of one part and condition.
    own
        labels that compete in each corpus; None: all of them.
    """
    scores, names = [], []
    for name, temperature, one in folds:
        allowed = None if own is None else np.stack([own[corpus] for corpus in one.corpus.tolist()])
        scores.append(one.scores(temperature, allowed))
        names.append(np.full(len(one), name))
    parts = [one for _, _, one in folds]
    column = {
        name: np.concatenate([getattr(one, name) for one in parts])
        for name in ("path", "corpus", "speaker", "sex", "language", "intensity", "truth")
    }
    who = np.char.add(np.char.add(column["corpus"], "/"), column["speaker"])
    return Scored(
        part=parts[0].part,
        condition=parts[0].condition,
        competing="all labels" if own is None else "labels of the corpus",
        labels=parts[0].labels,
        path=column["path"],
        speaker=_numbered(who),
        group={
            "fold": np.concatenate(names),
            "corpus": column["corpus"],
            "sex": column["sex"],
            "language": column["language"],
            "intensity": column["intensity"],
        },
        truth=column["truth"],
        scores=np.concatenate(scores),
    )


def rows_of(scored: Scored, groups: Sequence[Group] = GROUPS) -> list[Row]:
    """All utterances in one row, then a row for each name of each group.

    A group that all utterances have the same name in is left out, "corpus" excepted.
    """
    everything = np.ones(len(scored.truth), np.bool_)
    found = [_row(scored, everything, "all", "")]
    for group in groups:
        values = scored.group[group]
        names = [str(name) for name in np.unique(values)]
        if len(names) > 1 or group == "corpus":
            found += [_row(scored, values == name, group, name) for name in names if name]
    return found


def fold_mean(rows: Sequence[Row]) -> FoldMean | None:
    """Mean and standard deviation over the rows of folds; None for fewer than two."""
    if len(rows) < 2:
        return None
    columns = [
        np.asarray([np.nan if v is None else v for v in values])
        for values in ([r.uar.value for r in rows], [r.accuracy.value for r in rows])
    ]
    (uar, uar_deviation), (accuracy, accuracy_deviation) = (
        (number(np.mean(column)), number(np.std(column, ddof=1))) for column in columns
    )
    return FoldMean(
        condition=rows[0].condition,
        competing=rows[0].competing,
        uar=uar,
        uar_deviation=uar_deviation,
        accuracy=accuracy,
        accuracy_deviation=accuracy_deviation,
    )


def losses_of(clean: Scored, telephone: Scored) -> list[Loss]:
    """Points of UAR that the telephone costs, on all utterances and by corpus.

    None are told of utterances that are not the same, in the same order.
    """
    if not np.array_equal(clean.path, telephone.path):
        return []
    corpus = clean.group["corpus"]
    chosen: list[tuple[Group, str, npt.NDArray[np.bool_]]] = [
        ("all", "", np.ones(len(corpus), np.bool_)),
        *(("corpus", str(name), corpus == name) for name in np.unique(corpus)),
    ]
    found = []
    for group, name, rows in chosen:
        difference = uar_difference(
            clean.truth[rows],
            telephone.said[rows],
            clean.said[rows],
            _numbered(clean.speaker[rows]),
            len(clean.labels),
        )
        points = Estimate(
            value=number(100 * difference.value),
            by_utterance=_span(difference.by_utterance, 100),
            by_speaker=_span(difference.by_speaker, 100),
        )
        found.append(Loss(competing=clean.competing, group=group, name=name, points=points))
    return found


def number(value: npt.ArrayLike) -> Number:
    """A float of six digits after the point, None for nan."""
    plain = float(np.asarray(value, np.float64))
    return None if np.isnan(plain) else round(plain, 6)


def _numbered(values: npt.NDArray[np.generic]) -> Int64:
    _, place = np.unique(values, return_inverse=True)
    return np.asarray(place, np.int64)


def _span(pair: tuple[float, float] | None, factor: float = 1.0) -> Span | None:
    return None if pair is None else (number(factor * pair[0]), number(factor * pair[1]))


def _estimate(name: str, value: npt.ArrayLike, spans: Spans) -> Estimate:
    speakers = spans.by_speaker
    return Estimate(
        value=number(value),
        by_utterance=_span(spans.by_utterance.get(name)),
        by_speaker=None if speakers is None else _span(speakers.get(name)),
    )


def _figures(confusion: Counts) -> dict[str, Float64]:
    """Averages, and the figures of each label as `recall 0` and so on."""
    found = averages(confusion)
    by_label = {"precision": precisions, "recall": recalls, "f1": f1_scores}
    for name, figure in by_label.items():
        values = figure(confusion)
        found |= {f"{name} {i}": values[..., i] for i in range(values.shape[-1])}
    return found


def _row(scored: Scored, rows: npt.NDArray[np.bool_], group: Group, name: str) -> Row:
    truth, scores = scored.truth[rows], scored.scores[rows]
    said, speaker = scored.said[rows], _numbered(scored.speaker[rows])
    labels = len(scored.labels)
    confusion = confusion_matrix(truth, said, labels)
    whole = group in ("all", "corpus")
    figures = _figures if whole else averages
    values, spans = figures(confusion), spans_of(truth, said, speaker, labels, figures)
    right, top = said == truth, scores.max(axis=1)
    diagram = reliability(top, right)
    doubt = (
        calibration_spans(scores, truth, speaker)
        if whole
        else Spans(by_utterance={}, by_speaker=None)
    )
    return Row(
        part=scored.part,
        condition=scored.condition,
        competing=scored.competing,
        group=group,
        name=name,
        count=len(truth),
        speakers=int(speaker.max()) + 1,
        **{key: _estimate(key, values[key], spans) for key in averages(confusion)},
        ece=_estimate("ece", diagram.error, doubt),
        nll=_estimate("nll", log_losses(scores, truth).mean(), doubt),
        confusion=confusion.tolist(),
        classes=[
            ClassFigures(
                label=label,
                count=int(confusion[i].sum()),
                precision=_estimate(f"precision {i}", values[f"precision {i}"], spans),
                recall=_estimate(f"recall {i}", values[f"recall {i}"], spans),
                f1=_estimate(f"f1 {i}", values[f"f1 {i}"], spans),
            )
            for i, label in enumerate(scored.labels)
            if whole and confusion[i].sum()
        ],
        bins=Bins(
            count=diagram.count.tolist(),
            confidence=[number(v) for v in diagram.confidence],
            accuracy=[number(v) for v in diagram.accuracy],
        )
        if whole
        else None,
    )
