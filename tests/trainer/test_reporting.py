"""Reports from predictions: pooled, by group, calibrated by fold, and named for what they are."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.trainer.fake_predictions import LABELS, fold_of, said_of, write_experiment
from trainer.errors import TrainerError
from trainer.metrics import confusion_matrix, uar
from trainer.predictions import join
from trainer.protocol_settings import All, HeldOut, KFold, Random
from trainer.report import (
    Entry,
    ExperimentReport,
    load_experiment_report,
    save_report,
)
from trainer.reporting.build import build_report, entry_of
from trainer.reporting.calibration import calibrate_folds
from trainer.reporting.rows import losses_of, own_labels, rows_of, score
from trainer.reporting.text import print_report


def _printed(report: ExperimentReport) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=180))
    return out.getvalue()


@pytest.fixture(scope="module")
def entry() -> Entry:
    """Three folds of RAVDESS and EMO-DB, the latter without the label calm."""
    folds = {}
    for i in range(3):
        both = [
            fold_of([str(2 * i), str(2 * i + 1)], [str((2 * i + 2) % 6)], seed=i),
            fold_of([f"1{i}"], [f"1{(i + 1) % 3}"], seed=9 + i, corpus="emodb", truths=(0, 2, 3)),
        ]
        folds[f"fold-{i + 1}"] = [join(pair) for pair in zip(*both, strict=True)]
    return entry_of(KFold(folds=3), "crnn", folds)


def test_everything_is_pooled_over_folds(entry: Entry) -> None:
    row = entry.row()
    assert row is not None
    assert (row.count, row.speakers) == (165, 9)
    assert np.sum(row.confusion) == 165
    assert [(c.label, c.count) for c in row.classes] == list(
        zip(LABELS, (45, 30, 45, 45), strict=True)
    )
    assert row.uar.value == pytest.approx(np.mean([c.recall.value for c in row.classes]), abs=1e-6)
    confusion = np.asarray(row.confusion)
    assert row.accuracy.value == pytest.approx(np.trace(confusion) / 165, abs=1e-6)
    assert row.bins is not None
    assert sum(row.bins.count) == 165
    assert row.ece.by_utterance is not None
    low, high = row.shown(row.uar) or (None, None)
    assert row.interval_over == "speakers"
    assert low is not None
    assert high is not None
    assert low < (row.uar.value or 0) < high


def test_groups_divide_the_whole(entry: Entry) -> None:
    expected = {
        "fold": [("fold-1", 55), ("fold-2", 55), ("fold-3", 55)],
        "corpus": [("emodb", 45), ("ravdess", 120)],
        "language": [("de", 45), ("en", 120)],
        "sex": [("female", 75), ("male", 90)],
        "intensity": [("normal", 99), ("strong", 66)],
    }
    for group, names in expected.items():
        rows = entry.select(group=group)  # type: ignore[arg-type]  # the keys are groups
        assert [(row.name, row.count) for row in rows] == names
        total = np.sum([row.confusion for row in rows], axis=0)
        whole = entry.row()
        assert whole is not None
        assert total.tolist() == whole.confusion


def test_every_condition_is_there_and_the_telephone_costs(entry: Entry) -> None:
    for condition in ("clean", "telephone-mulaw-8k", "whole-file"):
        assert entry.row(condition) is not None
    near, far = entry.row(), entry.row("telephone-mulaw-8k")
    assert near is not None
    assert far is not None
    (loss,) = [x for x in entry.losses if x.group == "all" and x.competing == "all labels"]
    assert near.uar.value is not None
    assert far.uar.value is not None
    assert loss.points.value == pytest.approx(100 * (near.uar.value - far.uar.value), abs=1e-4)
    assert loss.points.by_speaker is not None
    assert {x.name for x in entry.losses if x.group == "corpus"} == {"emodb", "ravdess"}


def test_only_the_corpus_own_labels_compete(entry: Entry) -> None:
    every, own = (
        entry.row(competing=competing, group="corpus", name="emodb")
        for competing in ("all labels", "labels of the corpus")
    )
    assert every is not None
    assert own is not None
    assert own.competing == "labels of the corpus"
    assert np.asarray(every.confusion)[:, 1].sum() > 0
    assert np.asarray(own.confusion)[:, 1].sum() == 0
    assert (own.uar.value or 0) >= (every.uar.value or 0)
    same = [
        entry.row(competing=competing, group="corpus", name="ravdess")
        for competing in ("all labels", "labels of the corpus")
    ]
    assert same[0] is not None
    assert same[1] is not None
    assert same[0].confusion == same[1].confusion


def test_no_second_competition_where_it_makes_no_difference() -> None:
    entry = entry_of(KFold(folds=3), "crnn", {"fold-1": fold_of(["1"]), "fold-2": fold_of(["2"])})
    assert {row.competing for row in entry.rows} == {"all labels"}
    row = entry.row(competing="labels of the corpus")
    assert row is not None
    assert row.competing == "all labels"


def test_mean_and_deviation_over_folds(entry: Entry) -> None:
    (mean,) = [m for m in entry.fold_means if (m.condition, m.competing) == ("clean", "all labels")]
    values = [row.uar.value or 0.0 for row in entry.select(group="fold")]
    assert mean.uar == pytest.approx(np.mean(values), abs=1e-6)
    assert mean.uar_deviation == pytest.approx(np.std(values, ddof=1), abs=1e-6)


def test_scores_are_calibrated_by_fold_before_they_are_averaged() -> None:
    first, second = said_of(["1"], seed=1), said_of(["2"], seed=2)
    scored = score([("a", 0.5, first), ("b", 4.0, second)], None)
    assert scored.scores[: len(first)] == pytest.approx(first.scores(0.5))
    assert scored.scores[len(first) :] == pytest.approx(second.scores(4.0))
    row = rows_of(scored)[0]
    expected = uar(confusion_matrix(scored.truth, scored.said, 4))
    assert row.uar.value == pytest.approx(expected, abs=1e-6)


def test_own_labels_are_those_of_all_predictions() -> None:
    parts = [
        said_of(["1"], "emodb", truths=(0, 2)),
        said_of(["2"], "emodb", truths=(3,)),
        said_of(["1"], "tess", truths=(1,)),
    ]
    found = own_labels(parts)
    assert found["emodb"].tolist() == [True, False, True, True]
    assert found["tess"].tolist() == [False, True, False, False]


def test_no_loss_is_told_of_other_utterances() -> None:
    clean = score([("a", 1.0, said_of(["1", "2"]))], None)
    other = score([("a", 1.0, said_of(["2", "1"], condition="telephone-mulaw-8k"))], None)
    assert losses_of(clean, other) == []


def test_a_fold_is_calibrated_on_its_validation() -> None:
    folds = {"a": fold_of(["1"], ["2"], seed=1), "b": fold_of(["3"], ["4"], seed=2)}
    found = calibrate_folds(folds)
    assert [one.source for one in found] == ["validation", "validation"]
    assert found[0].temperature == 1.0
    four, eight = (
        calibrate_folds(folds | {"a": [replace(p, logits=by * p.logits) for p in folds["a"]]})
        for by in (4, 8)
    )
    assert four[0].temperature > 1.5
    assert eight[0].temperature == pytest.approx(2 * four[0].temperature, rel=0.01)
    assert four[1] == found[1]


def test_without_validation_the_other_folds_calibrate_and_never_its_own_test() -> None:
    folds = {name: fold_of([name], seed=int(name)) for name in ("1", "2", "3")}
    found = calibrate_folds(folds)
    assert {one.source for one in found} == {"test of the other folds"}
    sharper = [replace(p, logits=3 * p.logits) for p in folds["1"]]
    other = calibrate_folds(folds | {"1": sharper})
    assert other[0] == found[0]
    assert other[1] != found[1]


def test_alone_and_without_validation_nothing_is_calibrated() -> None:
    (one,) = calibrate_folds({"split": fold_of(["1"])})
    assert (one.source, one.temperature, one.abstain_below) == ("none", 1.0, 0.0)
    entry = entry_of(Random(validation_share=0), "crnn", {"split": fold_of(["1"])})
    assert entry.calibration is not None
    assert entry.calibration.source == "test"
    assert entry.calibration.test_error_before == entry.calibration.test_error_after
    text = _printed(ExperimentReport(name="x", entries=[entry]))
    assert "Not calibrated" in text
    assert "at the threshold" not in text


def test_temperature_and_abstention_are_worth_what_they_are(entry: Entry) -> None:
    figures = entry.calibration
    assert figures is not None
    assert figures.source == "validation"
    assert figures.test_nll_before is not None
    assert [one.condition for one in figures.abstention] == ["clean", "telephone-mulaw-8k"]
    for one in figures.abstention:
        assert one.coverage is not None
        assert 0.7 < one.coverage <= 1
        assert (one.accuracy_kept or 0) >= (one.accuracy_all or 0)


def test_overconfident_scores_are_put_right() -> None:
    folds = {
        str(i): [replace(p, logits=5 * p.logits) for p in fold_of([str(i)], [str(i + 5)], seed=i)]
        for i in range(4)
    }
    figures = entry_of(KFold(folds=4), "crnn", folds).calibration
    assert figures is not None
    assert figures.temperature > 2
    assert (figures.test_error_after or 1) < 0.5 * (figures.test_error_before or 0)
    assert (figures.test_nll_after or 9) < (figures.test_nll_before or 0)
    assert figures.error_after < 0.5 * figures.error_before


def test_validation_alone_makes_a_report() -> None:
    entry = entry_of(HeldOut(), "crnn", {"split": fold_of([], ["1", "2"])})
    assert entry.row() is None
    assert entry.row(part="validation") is not None
    assert {row.part for row in entry.rows} == {"validation"}
    assert "validation, corpus ravdess" in _printed(ExperimentReport(name="x", entries=[entry]))


def _tables(text: str) -> list[str]:
    return [line for line in text.splitlines() if "compete" in line and "; " in line]


@pytest.mark.parametrize("settings", [KFold(folds=3), Random()])
def test_every_table_says_what_protocol_it_is_of(entry: Entry, settings: KFold | Random) -> None:
    folds = {"split": fold_of(["1"], ["2"])}
    found = entry_of(settings, "crnn", folds) if settings.kind == "random" else entry
    text = _printed(ExperimentReport(name="x", entries=[found]))
    tables = _tables(text)
    assert len(tables) >= 2
    for line in tables:
        assert settings.name in line
        assert ("SPEAKER-DEPENDENT" in line) == (settings.kind == "random")
        assert ("speaker-independent" in line) == (settings.kind == "k-fold")


def test_an_experiment_becomes_a_report_and_back(tmp_path: Path) -> None:
    folder = write_experiment(
        tmp_path / "mine",
        [KFold(folds=3, name="five").model_dump(), All().model_dump()],
        {
            ("five", "crnn", "fold-1"): fold_of(["1"], ["2"]),
            ("five", "crnn", "fold-2"): "the loss diverged",
            ("five", "svm", "fold-1"): fold_of(["1"], ["2"], certainty=1.0),
            ("all", "crnn", "everyone"): [],
            ("of another recipe", "crnn", "fold-1"): fold_of(["1"]),
        },
    )
    (folder / "all/crnn/everyone/predictions.npz").unlink()
    report = build_report(folder)
    assert [(e.protocol, e.model) for e in report.entries] == [("five", "crnn"), ("five", "svm")]
    assert [(u.fold, u.reason) for u in report.unfinished] == [("fold-2", "the loss diverged")]
    save_report(report, folder)
    assert load_experiment_report(folder) == report
    text = _printed(report)
    assert "five/crnn/fold-2: no figures, the loss diverged" in text
    assert report.entry("five", "svm").model == "svm"
    with pytest.raises(TrainerError, match="no figures of five/gru; there are five/crnn, five/svm"):
        report.entry("five", "gru")


def test_the_mean_over_corpora_counts_each_alike(entry: Entry) -> None:
    values = [row.uar.value or 0.0 for row in entry.select(group="corpus")]
    text = _printed(ExperimentReport(name="x", entries=[entry]))
    assert f"Mean over corpora, UAR: clean {100 * np.mean(values):.1f}," in text


def _no_experiment(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


def _no_json(folder: Path) -> None:
    _no_experiment(folder)
    (folder / "experiment.json").write_text("{")


def _unknown_kind(folder: Path) -> None:
    write_experiment(folder, [{"kind": "loso"}], {("loso", "crnn", "a"): []})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_no_experiment, "is this the folder of an experiment"),
        (_no_json, "not an experiment of this trainer"),
        (_unknown_kind, "not an experiment of this trainer: .*'loso'"),
    ],
)
def test_what_is_no_experiment_is_named(
    make: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    make(tmp_path / "x")
    with pytest.raises(TrainerError, match=f"(?s){sentence}"):
        build_report(tmp_path / "x")


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"report\.json does not exist"):
        load_experiment_report(tmp_path)
    (tmp_path / "report.json").write_text('{"version": 2, "names": "x"}')
    with pytest.raises(TrainerError, match=r"report\.json is not a report"):
        load_experiment_report(tmp_path)
    with pytest.raises(TrainerError, match="cannot be written"):
        save_report(ExperimentReport(name="x", entries=[]), tmp_path / "nowhere")
