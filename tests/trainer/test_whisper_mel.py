"""Whisper's features, all of them or the lowest: the same powers by either transform."""

from __future__ import annotations

import pytest
import torch

from trainer.backbones.whisper_mel import N_FFT, FewBins, WhisperMel
from trainer.features.spectrum import PowerSpectrum


def _rumble(rows: int, samples: int) -> torch.Tensor:
    """Noise whose loudest bands are among the lowest."""
    noise = torch.randn(rows, samples + 40, generator=torch.Generator().manual_seed(0))
    return 0.1 * noise.unfold(1, 41, 1).mean(dim=2) + 1e-3 * noise[:, 40:]


def test_few_bins_are_the_lowest_of_all() -> None:
    frames = torch.randn(2, 7, N_FFT, generator=torch.Generator().manual_seed(1))
    every = PowerSpectrum(N_FFT)(frames)
    torch.testing.assert_close(FewBins(N_FFT, 101)(frames), every[:, :, :101], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("bands", [20, 62, 79])
def test_the_lowest_bands_are_those_of_all(bands: int) -> None:
    audio, length = _rumble(2, 16_000), torch.tensor([16_000, 9_999])
    every, frames = WhisperMel(80)(audio, length)
    some, counted = WhisperMel(80, bands)(audio, length)
    assert torch.equal(frames, counted)
    assert frames.tolist() == [100, 62]
    torch.testing.assert_close(some, every[:, :, :bands], atol=1e-4, rtol=1e-4)


def test_how_high_it_hears() -> None:
    assert WhisperMel(80).highest_hz == pytest.approx(7960)
    assert WhisperMel(80, 62).highest_hz == 4000


def test_a_row_in_a_longer_buffer_hears_the_same() -> None:
    audio, length = _rumble(1, 16_000), torch.tensor([8_000])
    features = WhisperMel(80, 62)
    short, _ = features(audio[:, :8_000], length)
    long, _ = features(audio, length)
    torch.testing.assert_close(long[:, :50], short, atol=1e-6, rtol=0)
    assert long[:, 50:].abs().max() == 0
