"""Calibration by cross-fitting: fitted on some folds' speakers, measured on another's.

The error that is told belongs to speakers that the calibration was not fitted on, as those are
whom a daemon hears; the calibration that is kept is then fitted on all. Each corpus counts alike in
a fit, whatever its size: a daemon's callers resemble none of them more than another, and left to
their sizes the two largest would decide which labels are favoured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import optimize

from trainer.calibrate import fit_temperature, fit_threshold
from trainer.errors import TrainerError
from trainer.metrics import (
    Float64,
    Int64,
    corpus_mean,
    expected_calibration_error,
)
from trainer.predictions import Predictions, average_segments, softmax

Method = Literal["none", "temperature", "vector"]
METHODS: tuple[Method, ...] = get_args(Method)

GAIN = 0.01
"""Part of the likelihood's logarithm that a method must win over a simpler one to be taken."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """logits * scale + bias, each float64 [labels]: a temperature is a scale alike for all."""

    method: Method
    scale: Float64
    bias: Float64

    def __call__(self, logits: Float64) -> Float64:
        """Calibrated logits, [..., labels]."""
        return np.asarray(logits * self.scale + self.bias, np.float64)

    @property
    def temperature(self) -> float:
        """One over the scale; of vector scaling, whose scale the graph carries itself, 1."""
        return 1.0 if self.method == "vector" else float(1 / self.scale[0])


@dataclass(frozen=True, slots=True)
class Errors:
    """What a method is worth on folds that it was not fitted on.

    Attributes
    ----------
    log_likelihood
        negative, mean over segments, each corpus counting alike.
    segments, utterances
        expected calibration error of segments, and of utterances as their average.
    uar
        of utterances, mean over corpora.
    """

    log_likelihood: float
    segments: float
    utterances: float
    uar: float


@dataclass(frozen=True, slots=True)
class CrossFitted:
    """The method that won, fitted on all folds, and what every method was worth.

    Attributes
    ----------
    abstain_below
        a top score under this is reported as abstained.
    coverage, precision
        share of segments kept by it, and how often those are right.
    by_fold
        what each fold was measured with: the method fitted on all others.
    errors
        of each method; "none" is the model as it came.
    """

    scaling: Scaling
    by_fold: tuple[Scaling, ...]
    abstain_below: float
    coverage: float
    precision: float
    errors: dict[Method, Errors]

    @property
    def kept(self) -> Errors:
        """The errors of the method that was taken."""
        return self.errors[self.scaling.method]


def fit_vector(
    logits: Float64, truth: Int64, penalty: float = 0.01, weight: Float64 | None = None
) -> Scaling:
    """A scale and a bias for each label, of least negative log-likelihood.

    `penalty` holds the scales together and the biases near 0, so that a label that is rare here
    is not silenced. `weight` is of each segment, see `fit`.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    count, labels = logits.shape
    wanted = np.zeros((count, labels))
    wanted[np.arange(count), truth] = 1.0
    share = np.full(count, 1 / count) if weight is None else weight / weight.sum()

    def loss(values: Float64) -> tuple[float, Float64]:
        scale, bias = values[:labels], values[labels:]
        scores = softmax(logits * scale + bias)
        apart = scale - scale.mean()
        likelihood = -share @ np.log(np.maximum(scores[np.arange(count), truth], 1e-12))
        error = (scores - wanted) * share[:, None]
        gradient = np.concatenate(
            [(error * logits).sum(axis=0) + 2 * penalty * apart, error.sum(axis=0)]
        )
        gradient[labels:] += 2 * penalty * bias
        return float(likelihood + penalty * ((apart**2).sum() + (bias**2).sum())), gradient

    alike = 1 / fit_temperature(logits, truth, weight)
    start = np.concatenate([np.full(labels, alike), np.zeros(labels)])
    found = optimize.minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.05, 20.0)] * labels + [(None, None)] * labels,
    )
    return Scaling("vector", found.x[:labels], found.x[labels:])


def fit(
    method: Method,
    logits: Float64,
    truth: Int64,
    cautious: bool = False,
    weight: Float64 | None = None,
) -> Scaling:
    """The method's scaling of segments: logits float64 [segments, labels], truth [segments].

    `cautious`: a temperature may flatten scores, not sharpen them. `weight` [segments] says how
    much each segment counts; left out: all alike.
    """
    labels = logits.shape[1]
    if method == "vector":
        return fit_vector(logits, truth, weight=weight)
    temperature = 1.0
    if method == "temperature":
        temperature = round(fit_temperature(logits, truth, weight), 3)
    if cautious:
        temperature = max(1.0, temperature)
    return Scaling(method, np.full(labels, 1 / temperature), np.zeros(labels))


def held_folds(predictions: Sequence[Predictions], folds: int = 5) -> list[list[Predictions]]:
    """One split's predictions, divided into folds by speaker, for `cross_fit`.

    Where there is but one speaker, by utterance.

    Parameters
    ----------
    predictions
        of the same utterances, one a condition.
    """
    first = predictions[0]
    who = np.char.add(np.char.add(first.corpus, "/"), first.speaker)
    if len(np.unique(who)) < 2:
        who = first.path
    names = np.unique(who)
    count = min(folds, len(names))
    return [[p.rows(np.isin(who, names[i::count])) for p in predictions] for i in range(count)]


def cross_fit(
    folds: Sequence[Sequence[Predictions]],
    cautious: bool = False,
    precision: float = 0.75,
    most: float = 0.15,
) -> CrossFitted:
    """Choose a method by what it is worth on folds that it was not fitted on, then fit it on all.

    Vector scaling is taken where it wins clearly and costs no UAR.

    Parameters
    ----------
    folds
        what each fold's model said of speakers that it had not heard, one a condition; only the
        daemon's conditions belong here, not "whole-file".
    cautious
        for speakers who also chose the epoch, and so flatter the model: no vector scaling, and
        scores may be flattened by what is seen here, not sharpened.
    precision, most
        of the threshold, see `trainer.calibrate.fit_threshold`.

    Raises
    ------
    TrainerError
        there are fewer than two folds.
    """
    if len(folds) < 2 or not all(len(p) for fold in folds for p in fold):
        raise TrainerError(
            "Calibration by cross-fitting needs predictions of two folds or more, or two "
            "validation utterances."
        )
    errors: dict[Method, Errors] = {}
    scores: dict[Method, Float64] = {}
    fitted: dict[Method, tuple[Scaling, ...]] = {}
    truth = np.concatenate([_segments(fold)[1] for fold in folds])
    for method in METHODS[: 2 if cautious else None]:
        fitted[method] = tuple(
            _fit_on(method, _others(folds, i), cautious) for i in range(len(folds))
        )
        errors[method], scores[method] = _measure(folds, fitted[method])
    chosen = _choose(errors)
    threshold = round(fit_threshold(scores[chosen], truth, precision, most), 3)
    top = scores[chosen].max(axis=1)
    right = scores[chosen].argmax(axis=1) == truth
    kept = top >= threshold
    return CrossFitted(
        scaling=_fit_on(chosen, [p for fold in folds for p in fold], cautious),
        by_fold=fitted[chosen],
        abstain_below=threshold,
        coverage=float(kept.mean()),
        precision=float(right[kept].mean()) if kept.any() else 0.0,
        errors=errors,
    )


def _choose(errors: dict[Method, Errors]) -> Method:
    chosen: Method = "none"
    for method, ours in errors.items():
        theirs = errors[chosen]
        wins = ours.log_likelihood < (1 - GAIN) * theirs.log_likelihood
        if wins and (method == "temperature" or ours.uar >= theirs.uar):
            chosen = method
    return chosen


def _others(folds: Sequence[Sequence[Predictions]], left_out: int) -> list[Predictions]:
    return [p for i, fold in enumerate(folds) if i != left_out for p in fold]


def _fit_on(method: Method, predictions: Sequence[Predictions], cautious: bool) -> Scaling:
    logits, truth = _segments(predictions)
    corpus = np.concatenate([p.corpus[p.owner] for p in predictions])
    return fit(method, logits, truth, cautious, corpus_weights(corpus))


def _segments(predictions: Sequence[Predictions]) -> tuple[Float64, Int64]:
    logits = np.concatenate([p.logits.astype(np.float64) for p in predictions])
    return logits, np.concatenate([p.truth[p.owner] for p in predictions])


def corpus_weights(corpus: npt.NDArray[np.str_]) -> Float64:
    """Weights under which each corpus counts alike: [rows] to float64 [rows], mean 1."""
    _, place, count = np.unique(corpus, return_inverse=True, return_counts=True)
    return np.asarray(len(corpus) / (len(count) * count[place]), np.float64)


def _measure(
    folds: Sequence[Sequence[Predictions]], scalings: Sequence[Scaling]
) -> tuple[Errors, Float64]:
    """Each fold under the scaling fitted on the others; and the scores of all segments."""
    segment_scores, utterance_scores, owner_truth, truth = [], [], [], []
    owner_corpus, corpus = [], []
    for fold, scaling in zip(folds, scalings, strict=True):
        for p in fold:
            scores = softmax(scaling(p.logits.astype(np.float64)))
            segment_scores.append(scores)
            utterance_scores.append(average_segments(scores, p.length, p.owner, len(p)))
            owner_truth.append(p.truth[p.owner])
            truth.append(p.truth)
            owner_corpus.append(p.corpus[p.owner])
            corpus.append(p.corpus)
    segments, utterances = np.concatenate(segment_scores), np.concatenate(utterance_scores)
    of_segments, of_utterances = np.concatenate(owner_truth), np.concatenate(truth)
    chance = segments[np.arange(len(of_segments)), of_segments]
    weight = corpus_weights(np.concatenate(owner_corpus))
    return (
        Errors(
            log_likelihood=float(-(weight * np.log(np.maximum(chance, 1e-12))).mean()),
            segments=_error(segments, of_segments),
            utterances=_error(utterances, of_utterances),
            uar=corpus_mean(
                of_utterances, utterances.argmax(axis=1), np.concatenate(corpus), segments.shape[1]
            ),
        ),
        segments,
    )


def _error(scores: Float64, truth: Int64) -> float:
    return expected_calibration_error(scores.max(axis=1), scores.argmax(axis=1) == truth)
