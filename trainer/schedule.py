"""What an epoch's place and the scores so far decide: learning rate, best epoch, end."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.recipe import TrainSettings


def learning_rate(
    settings: TrainSettings, step: int, steps: int | None = None, cut: float = 1.0
) -> float:
    """Linear warm-up, then half a cosine to zero, or level times `cut`; `step` counts from 0.

    `steps` are those of an epoch, where the settings leave them open.
    """
    steps = steps or settings.steps
    warmup = settings.warmup_epochs * steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule != "cosine":
        return settings.learning_rate * cut
    progress = (step - warmup) / max(1.0, settings.epochs * steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(slots=True)
class Progress:
    """How far a run is, and what the epochs so far decide about the next."""

    epoch: int = 0
    best_uar: float = -1.0
    best_epoch: int = 0
    cut: float = 1.0
    cut_epoch: int = 0

    def judge(self, score: float | None, settings: TrainSettings) -> bool:
        """Take in an epoch's score; whether it is the best so far.

        Without a score (nobody validates) every epoch is better than the one before.
        """
        best = score is None or score > self.best_uar
        if best:
            self.best_uar, self.best_epoch = -1.0 if score is None else score, self.epoch
        elif settings.schedule == "plateau":
            since = self.epoch - max(self.best_epoch, self.cut_epoch)
            if since >= settings.plateau_patience:
                self.cut *= settings.plateau_factor
                self.cut_epoch = self.epoch
        return best

    def is_over(self, settings: TrainSettings) -> bool:
        """Whether the last epoch is reached, or too many have been no better than the best."""
        stale = self.epoch - self.best_epoch
        return self.epoch >= settings.epochs or 0 < settings.patience <= stale
