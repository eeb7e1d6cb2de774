"""The network: a row depends on its own valid samples alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.features import FrontendSettings
from trainer.models import Crnn, CrnnSettings, build
from trainer.models.crnn import SpecAugment

SAMPLES = 16_000


@pytest.fixture(scope="module")
def model() -> Crnn:
    torch.manual_seed(0)
    settings = CrnnSettings(channels=(8, 16, 16), time_strides=(2, 2, 1), projection=16, hidden=12)
    model = build(settings, FrontendSettings(n_mels=32), 8)
    # Fresh batch norms hide leaks of padding behind a zero mean.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.normal_(module.bias)
    return model.eval()


def _audio(seed: int, rows: int = 1) -> Tensor:
    return 0.1 * torch.randn(rows, SAMPLES, generator=torch.Generator().manual_seed(seed))


@given(length=st.integers(1, SAMPLES), seed=st.integers(0, 50))
def test_padding_does_not_matter(model: Crnn, length: int, seed: int) -> None:
    audio = _audio(seed)
    zeros, noise = audio.clone(), audio.clone()
    zeros[:, length:] = 0
    noise[:, length:] = _audio(seed + 1)[:, length:]
    lengths = torch.tensor([length])
    with torch.inference_mode():
        expected = model(audio, lengths)
        assert torch.allclose(model(zeros, lengths), expected, atol=1e-5)
        assert torch.allclose(model(noise, lengths), expected, atol=1e-5)
        longer = torch.nn.functional.pad(zeros, (0, 9_000))
        assert torch.allclose(model(longer, lengths), expected, atol=1e-5)


@given(lengths=st.lists(st.integers(1, SAMPLES), min_size=2, max_size=6))
def test_rows_do_not_matter_to_each_other(model: Crnn, lengths: list[int]) -> None:
    audio = _audio(3, len(lengths))
    with torch.inference_mode():
        together = model(audio, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = model(audio[row : row + 1], torch.tensor([length]))
            assert torch.allclose(alone[0], together[row], atol=1e-5)


def test_content_within_the_length_matters(model: Crnn) -> None:
    audio, length = _audio(0), torch.tensor([8_000])
    with torch.inference_mode():
        changed = audio.clone()
        changed[:, 6_000:7_500] = 0
        assert not torch.allclose(model(audio, length), model(changed, length), atol=1e-3)
        assert not torch.allclose(model(audio, length), model(audio, length // 2), atol=1e-3)


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
