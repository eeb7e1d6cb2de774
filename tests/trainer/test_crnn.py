"""The shipped kind of network: its weights keep their names; SpecAugment."""

from __future__ import annotations

import torch

from trainer.features import LogMelSettings
from trainer.models import CrnnSettings, build
from trainer.models.spec_augment import SpecAugment


def test_checkpoints_made_before_still_load() -> None:
    state = build(CrnnSettings(), LogMelSettings(), 8).state_dict()
    assert sum(value.numel() for value in state.values()) == 553_197
    assert {name.split(".")[0] for name in state} == {
        "blocks",
        "project",
        "forward_gru",
        "backward_gru",
        "attention",
        "classify",
    }
    assert state["blocks.0.conv.weight"].shape == (32, 1, 5, 5)
    assert state["blocks.3.norm.running_mean"].shape == (128,)
    assert state["project.0.weight"].shape == (192, 512)
    assert state["attention.2.weight"].shape == (1, 64)


def test_spec_augment_works_in_training_only() -> None:
    augment = SpecAugment(CrnnSettings())
    features = torch.ones(16, 64, 200)
    frames = torch.full((16,), 200)
    assert augment.eval()(features, frames) is features
    torch.manual_seed(1)
    masked = augment.train()(features, frames)
    assert masked.shape == features.shape
    hidden = (masked == 0).float()
    # whole bands or whole frames, some but not most
    assert 0.01 < float(hidden.mean()) < 0.5
    whole = (hidden.mean(dim=2) == 1).any(dim=1) | (hidden.mean(dim=1) == 1).any(dim=1)
    assert whole.float().mean() > 0.9


def test_spec_augment_spares_short_rows() -> None:
    settings = CrnnSettings(spec_mel_masks=0, spec_time_masks=1, spec_time_width=100)
    features = torch.ones(64, 8, 200)
    masked = SpecAugment(settings).train()(features, torch.full((64,), 20))
    assert float((masked[:, 0, :] == 0).sum(dim=1).max()) <= 5
    assert (masked[:, :, 20:] == 1).all()
