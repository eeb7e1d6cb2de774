"""A network's last layer, fitted anew when the rest has been trained.

While the network learns, its last layer has to follow it, says what a teacher says, and sees large
corpora most. Fitted afterwards to the embeddings as they are, a convex problem, it comes to its
best for all corpora alike; but it knows nothing of the teacher, so the two are averaged.

Source of the idea: Kang et al., Decoupling Representation and Classifier for Long-Tailed
Recognition, 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.audio import to_float
from trainer.batches import TrainingData, sampling_weights
from trainer.checkpoint import BEST, read_checkpoint
from trainer.metrics import Int64
from trainer.models import Crnn, EmotionModel
from trainer.recipe import RefitSettings
from trainer.saving import write_checkpoint

if TYPE_CHECKING:
    from trainer.train import Run

_BATCH = 128
_ITERATIONS = 60


def embed(model: EmotionModel, data: TrainingData, copy: int) -> Tensor:
    """Embeddings of one copy of every training utterance: float32 [utterances, size].

    `model` takes what `data` holds: features, where there are, else audio.
    """
    count = len(data.utterances)
    found = torch.zeros(count, model.embedding_size)
    device = next(model.parameters()).device
    # Like lengths together: padding is paid for.
    order = np.argsort(data.bank.length[copy], kind="stable")
    for rows in np.split(order, range(_BATCH, count, _BATCH)):
        inputs, length = _inputs(data, np.full(len(rows), copy), rows)
        with torch.inference_mode():
            pooled = model.pool(*model.steps(inputs.to(device), length.to(device)))
        found[rows] = pooled.float().cpu()
    return found


def _inputs(data: TrainingData, copies: Int64, rows: Int64) -> tuple[Tensor, Tensor]:
    if data.features is not None:
        values, frames = data.features.take(copies, rows, np.zeros(len(rows), np.int64))
        return torch.from_numpy(values), torch.from_numpy(frames)
    audio = to_float(data.bank.take(copies, rows))
    return torch.from_numpy(audio), torch.from_numpy(data.bank.length[copies, rows])


def fit_linear(
    x: Tensor, truth: Tensor, weight: Tensor, labels: int, penalty: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Weights [labels, size] and bias [labels] of least cross entropy.

    Parameters
    ----------
    x
        float32 [rows, size].
    truth
        int64 [rows].
    weight
        float32 [rows], sum 1: how much each row counts.
    penalty
        on half the squared weights of the standardised `x`, so that scale does not matter.
    """
    mean, deviation = x.mean(dim=0), x.std(dim=0) + 1e-3
    x = (x - mean) / deviation
    matrix = torch.zeros(labels, x.shape[1], requires_grad=True)
    bias = torch.zeros(labels, requires_grad=True)
    solver = torch.optim.LBFGS(
        [matrix, bias], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        solver.zero_grad()
        logits = functional.linear(x, matrix, bias)
        rows = functional.cross_entropy(logits, truth, reduction="none", label_smoothing=smoothing)
        value = (weight * rows).sum() + penalty * (matrix**2).sum() / 2
        # torch leaves this method without types
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    # likewise
    solver.step(loss)  # type: ignore[no-untyped-call]
    found = matrix.detach() / deviation
    return found, bias.detach() - found @ mean


def refit(
    model: Crnn, data: TrainingData, settings: RefitSettings, labels: tuple[str, ...]
) -> None:
    """Move a trained model's last layer to one fitted to its embeddings of whom it trained on."""
    model.eval()
    copies = min(settings.copies, data.bank.length.shape[0])
    x = torch.cat([embed(model, data, copy) for copy in range(copies)])
    truth = torch.tensor([labels.index(u.label) for u in data.utterances]).repeat(copies)
    weight = torch.from_numpy(sampling_weights(data.utterances, settings.balance)).float()
    matrix, bias = fit_linear(
        x,
        truth,
        weight.repeat(copies) / copies,
        len(labels),
        settings.penalty,
        settings.label_smoothing,
    )
    with torch.no_grad():
        model.classify.weight.lerp_(matrix, settings.share)
        model.classify.bias.lerp_(bias, settings.share)


def refit_best(run: Run) -> None:
    """Refit the best weights of a run that is over, and keep them as its best.

    Raises
    ------
    TrainerError
        the checkpoint is gone, or the folder cannot be written.
    """
    settings, model = run.recipe.refit, run.average.module.model
    if settings is None or not isinstance(model, Crnn):
        return
    state = read_checkpoint(run.folder / BEST)
    # A run that was killed after this point and resumed.
    if state.get("refit"):
        return
    run.average.load_state_dict(state["average"])
    refit(model, run.data, settings, run.recipe.label_map.labels)
    state |= {"average": run.average.state_dict(), "refit": True}
    write_checkpoint(run.folder / BEST, state)
