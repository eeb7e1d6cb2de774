"""A linear expert for each corpus, and a gate that tells which of them to ask.

Corpora differ in language, room and manner of acting. One network for all learns what they share,
and of a small one little else. A linear classifier of a corpus's own labels adds what holds there
alone. The gate recognises the corpus by the embedding: nobody has to say where a recording is from,
and for one from elsewhere it mixes the experts by likeness.

Gate and experts are convex problems, each fitted for itself and in one go.

Source of the mixture: Jacobs et al., Adaptive Mixtures of Local Experts, 1991.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.errors import TrainerError
from trainer.metrics import Int64

# The score of a label that a corpus does not have.
_ABSENT = -1e4

# Of half the squared weights, against the sum of the losses of utterances.
_PENALTY = 10.0
_ITERATIONS = 60

# Corpora are far easier to tell apart than labels.
_GATE_UTTERANCES = 250
_GATE_ITERATIONS = 60


class Experts(nn.Module):
    """Embeddings float32 [batch, size] to logarithms of probabilities [batch, labels]."""

    mean: Tensor
    deviation: Tensor
    gate_weight: Tensor
    gate_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, size: int, corpora: int, labels: int) -> None:
        super().__init__()
        self.corpora, self.labels = corpora, labels
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_buffer("gate_weight", torch.zeros(size, corpora))
        self.register_buffer("gate_bias", torch.zeros(corpora))
        self.register_buffer("weight", torch.zeros(size, corpora * labels))
        self.register_buffer("bias", torch.zeros(corpora * labels))

    def forward(self, embedding: Tensor) -> Tensor:
        """See the class."""
        x = (embedding - self.mean) / self.deviation
        scores = torch.matmul(x, self.weight) + self.bias
        own = torch.log_softmax(scores.reshape(-1, self.corpora, self.labels), dim=2)
        gate = torch.log_softmax(torch.matmul(x, self.gate_weight) + self.gate_bias, dim=1)
        return torch.logsumexp(own + gate[:, :, None], dim=1)

    def fit(
        self, values: npt.NDArray[np.floating], rows: Int64, label: Int64, corpus: Int64
    ) -> None:
        """Fit gate and experts.

        Parameters
        ----------
        values
            embeddings [copies, stored utterances, size].
        rows
            int64 [utterances], the place of each among those stored.
        label, corpus
            int64 [utterances]; the corpus -1 is nobody's.

        Raises
        ------
        TrainerError
            no utterance is of a corpus that has an expert.
        """
        there = [int(c) for c in np.unique(corpus) if c >= 0]
        if not there:
            raise TrainerError("model.experts: nothing of these corpora is trained on.")
        first = torch.from_numpy(np.asarray(values[0, rows], np.float32))
        self.mean.copy_(first.mean(dim=0))
        self.deviation.copy_(_deviation(first))
        self.gate_bias.fill_(_ABSENT)
        self.bias.fill_(_ABSENT)
        some = np.concatenate([_spread(np.flatnonzero(corpus == c)) for c in there])
        truth = np.searchsorted(there, corpus[some])
        fitted = _fit_standardised(values, rows[some], truth, _GATE_ITERATIONS)
        self._place(self.gate_weight, self.gate_bias, there, fitted)
        for c in there:
            own = np.flatnonzero(corpus == c)
            labels, truth = np.unique(label[own], return_inverse=True)
            places = [c * self.labels + int(k) for k in labels]
            fitted = _fit_standardised(values, rows[own], truth, _ITERATIONS)
            self._place(self.weight, self.bias, places, fitted)

    def _place(self, weight: Tensor, bias: Tensor, places: Sequence[int], fitted: _Fitted) -> None:
        """Take over what was fitted under a standardisation of its own."""
        here, there = weight.device, fitted.weight
        scaled = there / fitted.deviation[:, None]
        weight[:, places] = (scaled * self.deviation.cpu()[:, None]).to(here)
        bias[places] = (fitted.bias + (self.mean.cpu() - fitted.mean) @ scaled).to(here)


class _Fitted(NamedTuple):
    """A classifier of embeddings, standardised by what it was fitted on."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor


def _fit_standardised(
    values: npt.NDArray[np.floating], rows: Int64, truth: Int64, iterations: int
) -> _Fitted:
    x = torch.from_numpy(np.asarray(values[:, rows], np.float32))
    mean, deviation = x[0].mean(dim=0), _deviation(x[0])
    x -= mean
    x /= deviation
    wanted = torch.from_numpy(np.tile(truth, len(x)))
    found = fit_logistic(x.flatten(0, 1), wanted, _PENALTY / len(rows), iterations)
    return _Fitted(mean, deviation, *found)


def _deviation(x: Tensor) -> Tensor:
    return x.std(dim=0, unbiased=False) + 1e-3


def _spread(rows: Int64) -> Int64:
    """Some of the rows, evenly."""
    return rows[:: -(-len(rows) // _GATE_UTTERANCES)]


def fit_logistic(
    x: Tensor, truth: Tensor, penalty: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Logistic regression: weights [size, classes] and biases [classes].

    Parameters
    ----------
    x
        float32 [rows, size], standardised.
    truth
        int64 [rows], classes counted from 0.
    penalty
        of half the squared weights, against the mean of the losses.
    iterations
        of L-BFGS, at most.
    """
    classes = int(truth.max()) + 1
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        history_size=10,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        search.zero_grad()
        found = functional.cross_entropy(x @ weight + bias, truth)
        found = found + penalty / 2 * (weight * weight).sum()
        # torch leaves these methods without types
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
