"""Experts by corpus: what they are for, and what they must never do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.errors import TrainerError
from trainer.metrics import Float64, Int64
from trainer.models.experts import Experts, fit_logistic
from trainer.pcm import Float32

_SIZE = 12


def _made_up(seed: int, utterances: int = 240) -> tuple[Float32, Int64, Int64]:
    """Two copies; the corpora lie apart, and what says label 1 in one says label 0 in the other."""
    rng = np.random.default_rng(seed)
    corpus = rng.integers(2, size=utterances)
    sign = rng.integers(2, size=utterances)
    label = np.where(corpus == 0, sign, 1 - sign)
    # Label 2 is of the first corpus alone.
    label[(corpus == 0) & (rng.random(utterances) < 0.3)] = 2
    values = rng.standard_normal((2, utterances, _SIZE)) * 0.3
    values[:, :, 0] += 2 * sign - 1
    values[:, :, 1] += 8 * corpus
    values[:, label == 2, 2] += 3
    return values.astype(np.float32) * 5 + 7, label, corpus


def _fitted(seed: int = 0, corpora: int = 2) -> Experts:
    values, label, corpus = _made_up(seed)
    experts = Experts(_SIZE, corpora, 4)
    experts.fit(values, np.arange(len(label)), label, corpus)
    return experts.eval()


def _scores(experts: Experts, values: Float32) -> Float64:
    with torch.inference_mode():
        return torch.exp(experts(torch.from_numpy(values))).double().numpy()


def test_corpora_that_contradict_each_other_are_both_learnt_and_need_not_be_named() -> None:
    values, label, _ = _made_up(1)
    assert (_scores(_fitted(), values[0]).argmax(axis=1) == label).mean() > 0.97
    together, bias = fit_logistic(
        torch.from_numpy((values[0] - 7) / 5), torch.from_numpy(label), 0.01, 100
    )
    alone = ((values[0] - 7) / 5) @ together.numpy() + bias.numpy()
    assert (alone.argmax(axis=1) == label).mean() < 0.8


def test_scores_are_probabilities_and_a_label_of_no_corpus_has_none() -> None:
    values, _, corpus = _made_up(2)
    scores = _scores(_fitted(), values[0])
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert scores[:, 3].max() == 0
    assert scores[corpus == 1, 2].max() < 0.05


def test_rows_are_those_of_the_training_part_alone() -> None:
    values, label, corpus = _made_up(3)
    rows = np.flatnonzero(np.arange(len(label)) % 3 > 0)
    spoilt = values.copy()
    spoilt[:, np.arange(len(label)) % 3 == 0] = 1e6
    found = Experts(_SIZE, 2, 4), Experts(_SIZE, 2, 4)
    for experts, given in zip(found, (values, spoilt), strict=True):
        experts.fit(given, rows, label[rows], corpus[rows])
    for name, tensor in found[0].state_dict().items():
        assert torch.equal(tensor, found[1].state_dict()[name])


def test_a_corpus_that_is_not_trained_on_is_never_asked() -> None:
    values, label, _ = _made_up(0)
    three = _fitted(corpora=3)
    assert np.allclose(_scores(three, values[0]), _scores(_fitted(), values[0]), atol=1e-6)
    with pytest.raises(TrainerError, match=r"model\.experts"):
        three.fit(values, np.arange(len(label)), label, np.full(len(label), -1))


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(4)
    x = rng.standard_normal((90, 5)).astype(np.float32)
    truth = (x[:, 0] + 0.5 * rng.standard_normal(90) > 0).astype(np.int64) + (x[:, 1] > 1)
    theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(x, truth)
    weight, bias = fit_logistic(torch.from_numpy(x), torch.from_numpy(truth), 2 / 90, 200)
    ours = torch.softmax(torch.from_numpy(x) @ weight + bias, dim=1).numpy()
    assert np.allclose(ours, theirs.predict_proba(x), atol=2e-3)
