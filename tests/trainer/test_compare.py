"""Runs side by side: on the same utterances, and never unsaid what is speaker-dependent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.trainer.fake_predictions import fold_of, write_experiment
from trainer.commands.common import EXIT_DATA
from trainer.commands.compare import compare
from trainer.comparison import contenders, difference, on_common_utterances
from trainer.predictions import Predictions
from trainer.protocol_settings import KFold, LeaveOneSpeakerOut, Random

K_FOLD = KFold(folds=3).model_dump()


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(compare, [str(a) for a in arguments])


def _folds(
    speakers: Sequence[str] = ("1", "2", "3"), certainty: float = 2.0, **options: Any
) -> dict[str, list[Predictions]]:
    return {
        f"fold-{s}": fold_of([s], certainty=certainty, seed=int(s), each=20, **options)
        for s in speakers
    }


def _experiment(folder: Path, folds: dict[str, list[Predictions]], model: str = "crnn") -> Path:
    return write_experiment(
        folder, [K_FOLD], {("k-fold", model, name): made for name, made in folds.items()}
    )


@pytest.fixture
def weak(tmp_path: Path) -> Path:
    return _experiment(tmp_path / "weak", _folds(certainty=1.0))


@pytest.fixture
def strong(tmp_path: Path) -> Path:
    return _experiment(tmp_path / "strong", _folds(certainty=2.5))


def test_the_difference_is_told_with_its_interval(weak: Path, strong: Path) -> None:
    result = _call(weak, strong)
    assert result.exit_code == 0, result.output
    assert f"A: {weak} k-fold/crnn, 3 folds by speaker, speaker-independent" in result.output
    assert "UAR less that of A" in result.output
    (first,), (second,) = contenders(weak), contenders(strong)
    found = difference(first, second, "clean")
    assert found is not None
    assert f"{100 * found.value:+.1f}" in result.output
    assert 0.1 < found.by_utterance[0] < found.value
    one, other = first.row("clean"), second.row("clean")
    assert one is not None
    assert other is not None
    assert found.value == pytest.approx((other.uar.value or 0) - (one.uar.value or 0), abs=1e-5)


def test_the_order_of_utterances_does_not_matter(tmp_path: Path, weak: Path) -> None:
    turned = {}
    for name, predictions in _folds(certainty=1.0).items():
        order = np.arange(len(predictions[0]))[::-1]
        turned[name] = [_reordered(p, order) for p in predictions]
    other = _experiment(tmp_path / "turned", turned)
    (first,), (second,) = contenders(weak), contenders(other)
    for condition in ("clean", "telephone-mulaw-8k"):
        found = difference(first, second, condition)
        assert found is not None
        assert (found.value, found.by_utterance) == (0.0, (0.0, 0.0))


def _reordered(p: Predictions, order: np.ndarray) -> Predictions:
    place = np.argsort(order)
    names = ("path", "corpus", "speaker", "sex", "language", "intensity", "truth", "embedding")
    return replace(
        p, **{n: getattr(p, n)[order] for n in names}, owner=place[p.owner].astype(np.int64)
    )


def test_corpora_may_lie_elsewhere(tmp_path: Path, weak: Path) -> None:
    moved = {
        name: [
            replace(p, path=np.char.replace(p.path, "/data/", "/mnt/ravdess/there/")) for p in made
        ]
        for name, made in _folds(certainty=1.0).items()
    }
    assert _call(weak, _experiment(tmp_path / "moved", moved)).exit_code == 0


def test_models_of_one_run_are_compared(tmp_path: Path) -> None:
    folds = {("k-fold", "crnn", k): v for k, v in _folds(certainty=2.5).items()}
    folds |= {("k-fold", "svm", k): v for k, v in _folds().items()}
    run = write_experiment(tmp_path / "x", [K_FOLD], folds)  # type: ignore[arg-type]  # no failure
    result = _call(run)
    assert result.exit_code == 0, result.output
    assert "B svm" in result.output
    by_folder = _call(run / "k-fold" / "crnn", run / "k-fold" / "svm")
    assert by_folder.exit_code == 0, by_folder.output
    alone = _call(run, "--model", "svm")
    assert alone.exit_code == EXIT_DATA
    assert "is alone" in alone.output


def test_other_utterances_are_refused_unless_in_common(tmp_path: Path, weak: Path) -> None:
    fewer = _experiment(tmp_path / "fewer", _folds(("2", "3", "4"), certainty=1.0))
    result = _call(weak, fewer)
    assert result.exit_code == EXIT_DATA
    for words in ("on 80 utterances that", "on 80 others", "160 are common", "--common"):
        assert words in result.output
    result = _call(weak, fewer, "--common")
    assert result.exit_code == 0, result.output
    assert "on the utterances common to all" in result.output
    table = on_common_utterances([*contenders(weak), *contenders(fewer)])
    assert [len(one.tested["clean"].truth) for one in table] == [160, 160]
    found = difference(table[0], table[1], "clean")
    assert found is not None
    assert found.value == 0.0
    nothing = _experiment(tmp_path / "nothing", _folds(("8", "9")))
    assert "no test utterance in common" in _call(weak, nothing, "--common").output


def test_speaker_dependent_figures_are_not_mixed_in_unsaid(tmp_path: Path, weak: Path) -> None:
    random = write_experiment(
        tmp_path / "random",
        [Random().model_dump()],
        {("random", "crnn", "split"): fold_of(["1", "2"], ["3"])},
    )
    result = _call(weak, random)
    assert result.exit_code == EXIT_DATA
    assert f"{random} random/crnn is speaker-dependent" in result.output
    result = _call(weak, random, "--mixed")
    assert result.exit_code == 0, result.output
    assert "Test, SPEAKER-DEPENDENT where it says so" in result.output
    assert "B crnn SPEAKER-DEPENDENT" in result.output
    assert "no difference" in result.output
    assert "in points, paired" not in result.output


def test_protocols_of_one_run_side_by_side(tmp_path: Path) -> None:
    folds: dict[tuple[str, str, str], Any] = {("k-fold", "crnn", k): v for k, v in _folds().items()}
    folds["random", "crnn", "split"] = fold_of(["1", "2"], ["3"])
    run = write_experiment(tmp_path / "x", [K_FOLD, Random().model_dump()], folds)
    assert "is alone" in _call(run).output
    result = _call(run, "--mixed")
    assert result.exit_code == 0, result.output
    assert "A crnn" in result.output
    assert "B crnn SPEAKER-DEPENDENT" in result.output


def test_protocols_get_a_table_each(tmp_path: Path) -> None:
    runs = [
        write_experiment(
            tmp_path / name,
            [K_FOLD, LeaveOneSpeakerOut(name="loso").model_dump()],
            {
                (protocol, "crnn", k): v
                for protocol in ("k-fold", "loso")
                for k, v in _folds(certainty=certainty).items()
            },
        )
        for name, certainty in (("a", 1.0), ("b", 2.0))
    ]
    result = _call(*runs)
    assert result.exit_code == 0, result.output
    assert result.output.count("in points, paired") == 2
    one = _call(*runs, "--protocol", "loso")
    assert one.output.count("in points, paired") == 1
    none = _call(*runs, "--protocol", "nine")
    assert none.exit_code == EXIT_DATA
    assert "holds no test predictions of nine" in none.output


def test_other_labels_are_refused(tmp_path: Path, weak: Path) -> None:
    renamed = {
        name: [replace(p, labels=("a", "b", "c", "d")) for p in made]
        for name, made in _folds().items()
    }
    result = _call(weak, _experiment(tmp_path / "renamed", renamed))
    assert result.exit_code == EXIT_DATA
    assert "tells neutral, calm, happy, sad apart" in result.output


def test_folders_that_are_no_run_are_named(tmp_path: Path, weak: Path) -> None:
    result = _call(tmp_path, weak)
    assert result.exit_code == EXIT_DATA
    assert "no experiment's folder" in result.output
    assert _call(tmp_path / "nowhere").exit_code == 2
