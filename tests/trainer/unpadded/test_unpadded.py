"""The graph for 8 kHz rows without padding says what the other says of them, resampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainer.audio import Float32
from trainer.backbones.compact import Compact, CompactSettings, save_compact
from trainer.errors import TrainerError
from trainer.evaluate import torch_predictor
from trainer.features import LogMelSettings
from trainer.graph import Int64
from trainer.models import BackboneSettings, CrnnSettings, EmotionModel, LstmSettings, build
from trainer.unpadded.graph import unpadded_predictor, whole_predictor, write_unpadded
from trainer.unpadded.narrowband import SAMPLE_RATE_HZ, narrowed, widened

FRONTEND = LogMelSettings(fmax_hz=3800.0)


def crnn(frontend: LogMelSettings = FRONTEND) -> EmotionModel:
    """A small network whose batch norms have something to fold."""
    torch.manual_seed(0)
    settings = CrnnSettings(channels=(4, 8, 8), time_strides=(2, 2, 1), projection=16, hidden=8)
    model = build(settings, frontend, 4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def speech(lengths: list[int]) -> tuple[Float32, Int64]:
    """Noise that swells and fades, below full scale: [rows, 48000] at 16 kHz, and its lengths."""
    rng = np.random.default_rng(1)
    swell = 0.02 + np.abs(np.sin(np.arange(48_000) / 2_000))
    audio = rng.standard_normal((len(lengths), 48_000)) * swell * 0.1
    return audio.clip(-0.9, 0.9).astype(np.float32), np.array(lengths, np.int64)


@pytest.mark.parametrize("normalise", ["level", "band"])
def test_it_agrees_with_the_other_graph(tmp_path: Path, normalise: str) -> None:
    model = crnn(FRONTEND.model_copy(update={"normalise": normalise}))
    write_unpadded(model, tmp_path / "narrow.onnx")
    audio, length = speech([48_000, 47_998, 30_002, 16_000, 4_802, 512])
    found = unpadded_predictor(tmp_path / "narrow.onnx")(audio, length)
    expected = torch_predictor(model)(*widened(audio, length))
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_rows_of_a_batch_do_not_matter_to_each_other(tmp_path: Path) -> None:
    write_unpadded(crnn(), tmp_path / "narrow.onnx")
    ask = whole_predictor(tmp_path / "narrow.onnx")
    audio, length = speech([20_000] * 5)
    rows = np.stack([narrowed(row, count) for row, count in zip(audio, length, strict=True)])
    together = ask(rows, length)
    for row in range(5):
        np.testing.assert_allclose(ask(rows[row : row + 1], length)[0], together[row], atol=1e-5)


def test_silence_has_logits(tmp_path: Path) -> None:
    write_unpadded(crnn(), tmp_path / "narrow.onnx")
    silence = np.zeros((2, SAMPLE_RATE_HZ), np.float32)
    assert np.isfinite(
        whole_predictor(tmp_path / "narrow.onnx")(silence, np.zeros(2, np.int64))
    ).all()


def compact(folder: Path, bands: int, **changes: object) -> EmotionModel:
    """A backbone on a small compact encoder whose scores differ from sound to sound."""
    torch.manual_seed(0)
    encoder = Compact(CompactSettings(bands=bands, width=24, heads=2, head_size=8, hidden=16))
    encoder.positions.normal_()
    save_compact(encoder, folder / "encoder.pt")
    settings = {
        "encoder": str(folder / "encoder.pt"),
        "layers": (2, 3),
        "combine": "concatenate",
        "pooling": "statistics",
        "normalise": False,
        "dense": (16,),
        **changes,
    }
    model = build(BackboneSettings.model_validate(settings), LogMelSettings(), 4).eval()
    last = list(model.modules())[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=3.0)
    return model


def test_a_compact_encoder_agrees_with_its_other_graph(tmp_path: Path) -> None:
    model = compact(tmp_path, 62)
    write_unpadded(model, tmp_path / "narrow.onnx")
    audio, length = speech([48_000, 47_998, 47_521, 30_002, 16_000, 4_802, 512])
    found = unpadded_predictor(tmp_path / "narrow.onnx")(audio, length)
    expected = torch_predictor(model)(*widened(audio, length))
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_compact_encoder_of_another_kind_has_no_such_form(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="as it is"):
        write_unpadded(compact(tmp_path, 62, normalise=True), tmp_path / "no.onnx")
    with pytest.raises(TrainerError, match="hears more than 8 kHz"):
        write_unpadded(compact(tmp_path, 80), tmp_path / "no.onnx")


def test_what_has_no_such_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="only a CRNN"):
        write_unpadded(build(LstmSettings(hidden=8), FRONTEND, 4), tmp_path / "no.onnx")
    with pytest.raises(TrainerError, match="hears more than 8 kHz"):
        write_unpadded(crnn(LogMelSettings(fmax_hz=7600.0)), tmp_path / "no.onnx")
    with pytest.raises(TrainerError, match="no whole samples"):
        write_unpadded(crnn(LogMelSettings(fmax_hz=3800.0, hop_length=201)), tmp_path / "no.onnx")
