"""Cross-fitted calibration on scores whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainer.crossfit import Method, corpus_weights, cross_fit, fit, fit_vector, held_folds
from trainer.errors import TrainerError
from trainer.metrics import Float64
from trainer.predictions import Predictions, softmax

LABELS = ("neutral", "happy", "sad", "angry")


def said(
    seed: int,
    utterances: int = 800,
    scale: Float64 | float = 1.0,
    bias: Float64 | float = 0.0,
    speakers: int = 4,
) -> Predictions:
    """Labels drawn from softmax(logits * scale + bias), one or two segments an utterance."""
    rng = np.random.default_rng(seed)
    owner = np.sort(np.concatenate([np.arange(utterances), rng.integers(0, utterances, 300)]))
    base = rng.normal(0, 2, (utterances, len(LABELS)))
    scores = softmax(base * scale + bias)
    truth = (scores.cumsum(axis=1) < rng.random((utterances, 1))).sum(axis=1)
    names = np.asarray([f"s{i % speakers}" for i in range(utterances)])
    blank = np.full(utterances, "")
    return Predictions(
        part="test",
        condition="clean",
        labels=LABELS,
        path=np.asarray([f"{i}.wav" for i in range(utterances)]),
        corpus=np.full(utterances, "made-up"),
        speaker=names,
        sex=blank,
        language=blank,
        truth=truth.astype(np.int64),
        owner=owner,
        length=rng.integers(8_000, 48_000, len(owner)),
        logits=base[owner].astype(np.float32),
        embedding=np.zeros((utterances, 0), np.float32),
    )


def test_good_scores_are_left_alone() -> None:
    found = cross_fit([[said(seed)] for seed in range(4)])
    assert found.scaling.method == "none"
    assert found.scaling.temperature == 1.0
    assert found.kept.segments < 0.03
    assert len(found.by_fold) == 4


@pytest.mark.parametrize("temperature", [0.6, 2.0])
def test_a_temperature_is_found_and_mends_the_error(temperature: float) -> None:
    found = cross_fit([[said(seed, scale=1 / temperature)] for seed in range(4)])
    assert found.scaling.method == "temperature"
    assert found.scaling.temperature == pytest.approx(temperature, rel=0.08)
    assert found.kept.segments < 0.03 < found.errors["none"].segments
    assert found.kept.utterances < 0.03 < found.errors["none"].utterances


def test_vector_scaling_wins_where_labels_differ() -> None:
    scale, bias = np.asarray([1.5, 0.4, 0.8, 1.0]), np.asarray([1.0, -1.0, 0.0, 0.0])
    found = cross_fit([[said(seed, scale=scale, bias=bias)] for seed in range(4)])
    assert found.scaling.method == "vector"
    assert found.scaling.temperature == 1.0
    assert found.kept.uar >= found.errors["temperature"].uar
    assert found.kept.log_likelihood < found.errors["temperature"].log_likelihood
    logits = np.asarray([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(
        found.scaling(logits), logits * found.scaling.scale + found.scaling.bias
    )


def test_the_error_is_that_of_the_fold_left_out() -> None:
    """Two folds, each fitted on the other, which is of another temperature."""
    sharp, flat = said(1, 3000, scale=0.4), said(2, 3000, scale=2.5)
    found = cross_fit([[sharp], [flat]])
    assert found.errors["temperature"].segments > 0.2
    assert found.errors["temperature"].segments > found.errors["none"].segments
    assert found.scaling.method == "none"


def test_a_corpus_weighs_the_same_whatever_its_size() -> None:
    weight = corpus_weights(np.asarray(["a", "b", "a", "a"]))
    np.testing.assert_allclose(weight, [2 / 3, 2.0, 2 / 3, 2 / 3])


def _as_corpus(p: Predictions, name: str) -> Predictions:
    return replace(p, corpus=np.full(len(p), name))


def test_a_large_corpus_does_not_decide_alone() -> None:
    """A large corpus wants its scores sharpened and a small one flattened: the mean is wanted."""
    found = [
        cross_fit(
            [
                [
                    _as_corpus(said(seed, many, scale=2.0), "large"),
                    _as_corpus(said(seed + 10, few, scale=0.5), "small"),
                ]
                for seed in range(3)
            ]
        ).scaling.temperature
        for many, few in ((3000, 600), (600, 600))
    ]
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_conditions_count_together() -> None:
    clean, far = said(1, scale=0.5), said(2, scale=0.5)
    both = cross_fit([[clean, far], [said(3, scale=0.5), said(4, scale=0.5)]])
    assert both.scaling.temperature == pytest.approx(2.0, rel=0.08)


def test_what_is_kept_is_right_often_enough() -> None:
    found = cross_fit([[said(seed, scale=0.7)] for seed in range(4)], precision=0.7, most=0.6)
    assert found.precision == pytest.approx(0.7, abs=0.02)
    assert 0.4 <= found.coverage < 1
    assert 0 < found.abstain_below < 1


def test_the_gradient_of_vector_scaling_leads_to_a_minimum() -> None:
    p = said(5, 4000, scale=np.asarray([1.5, 0.5, 1.0, 1.0]))
    logits, truth = p.logits.astype(np.float64), p.truth[p.owner]
    found = fit_vector(logits, truth, penalty=0.0)
    np.testing.assert_allclose(found.scale, [1.5, 0.5, 1.0, 1.0], rtol=0.15)

    def likelihood(scale: Float64) -> float:
        scores = softmax(logits * scale + found.bias)
        return float(-np.log(scores[np.arange(len(truth)), truth]).mean())

    for row in range(4):
        for step in (-0.05, 0.05):
            other = found.scale.copy()
            other[row] += step
            assert likelihood(other) > likelihood(found.scale)


def test_a_label_without_rows_is_not_silenced() -> None:
    p = said(6, 2000)
    there = p.truth != 3
    logits, truth = p.rows(there).logits.astype(np.float64), p.rows(there).truth
    truth = truth[p.rows(there).owner]
    assert fit_vector(logits, truth).bias[3] > -3
    methods: tuple[Method, ...] = ("none", "temperature", "vector")
    for method in methods:
        assert np.isfinite(fit(method, logits, truth)(logits)).all()


def test_speakers_stay_whole_in_folds() -> None:
    p = said(7, speakers=7)
    found = held_folds([p, p], folds=3)
    assert len(found) == 3
    seen = [set(fold[0].speaker.tolist()) for fold in found]
    assert set.union(*seen) == set(p.speaker.tolist())
    assert sum(len(s) for s in seen) == 7
    assert sum(len(fold[1]) for fold in found) == len(p)
    assert len(held_folds([said(8, speakers=2)], folds=5)) == 2
    alone = held_folds([said(9, speakers=1)], folds=5)
    assert sorted(len(fold[0]) for fold in alone) == [160] * 5


def test_caution_never_sharpens() -> None:
    folds = [[said(seed, scale=2.0)] for seed in range(4)]
    assert cross_fit(folds).scaling.temperature == pytest.approx(0.5, rel=0.1)
    cautious = cross_fit(folds, cautious=True)
    assert cautious.scaling.temperature == 1.0
    assert set(cautious.errors) == {"none", "temperature"}
    flat = cross_fit([[said(seed, scale=0.5)] for seed in range(4)], cautious=True)
    assert flat.scaling.temperature == pytest.approx(2.0, rel=0.1)


def test_one_fold_is_not_enough() -> None:
    with pytest.raises(TrainerError, match="two folds"):
        cross_fit([[said(1)]])
