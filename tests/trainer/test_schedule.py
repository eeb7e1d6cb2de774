"""Schedules: learning rates, and when a run is over."""

from __future__ import annotations

import pytest

from trainer.recipe import TrainSettings
from trainer.schedule import Progress, learning_rate


def test_training_stops_when_it_gets_no_better() -> None:
    settings = TrainSettings(epochs=50, patience=3)
    progress = Progress()
    for score in (0.3, 0.5, 0.4, 0.5, 0.2):
        assert not progress.is_over(settings)
        progress.epoch += 1
        progress.judge(score, settings)
    assert progress.is_over(settings)
    assert (progress.best_epoch, progress.best_uar) == (2, 0.5)
    assert not progress.is_over(TrainSettings(epochs=50))
    assert progress.is_over(TrainSettings(epochs=5))


def test_the_rate_is_cut_on_a_plateau() -> None:
    settings = TrainSettings(
        epochs=50, schedule="plateau", plateau_patience=2, plateau_factor=0.1, warmup_epochs=0
    )
    progress, cuts = Progress(), []
    for score in (0.5, 0.4, 0.4, 0.4, 0.4, 0.6, 0.1):
        progress.epoch += 1
        progress.judge(score, settings)
        cuts.append(progress.cut)
    assert cuts == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert learning_rate(settings, 99, 10, progress.cut) == pytest.approx(1.5e-5)


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    settings = TrainSettings(epochs=10, steps=10, learning_rate=1.0, warmup_epochs=2)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[19] == pytest.approx(1.0)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 0.01
