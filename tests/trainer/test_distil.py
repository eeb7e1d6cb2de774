"""What a student loses by saying other things than its teacher."""

from __future__ import annotations

import pytest
import torch

from trainer.distil import STEP_SAMPLES, feature_loss, score_loss


def test_the_teachers_own_scores_cost_nothing() -> None:
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert float(score_loss(logits, logits, 2.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(score_loss(logits, -logits, 2.0)) > 0.1


def test_features_beyond_the_length_cost_nothing() -> None:
    teacher = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0))
    length = torch.tensor([10 * STEP_SAMPLES, 48_000])
    guess = teacher.clone()
    guess[0, 10:] += 5
    assert float(feature_loss(guess, teacher, length)) == pytest.approx(0.0, abs=1e-6)
    guess[0, 9] += 1
    assert float(feature_loss(guess, teacher, length)) == pytest.approx(1 / 40)
    # a student with finer steps is brought to the teacher's
    fine = teacher.repeat_interleave(2, dim=1)
    assert float(feature_loss(fine, teacher, length)) == pytest.approx(0.0, abs=1e-6)
