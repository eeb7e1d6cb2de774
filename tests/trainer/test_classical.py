"""Forest and support vector machine: what they learn is what the graph says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.features import FrameSettings, LogMelSettings
from trainer.graph import Predictor, onnx_predictor
from trainer.models import ForestSettings, SvmSettings, is_classical
from trainer.models.classical import FLOOR, Batch, fit_classical

SAMPLES = 8_000
LABELS = 5
PITCH_HZ = {0: 150.0, 2: 400.0, 4: 1200.0}
FRONTEND = FrameSettings(
    features=("mfcc", "zcr", "rms"), n_mfcc=8, n_fft=512, hop_length=256, summary=("mean", "std")
)
SETTINGS: list[ForestSettings | SvmSettings] = [
    ForestSettings(trees=20, min_leaf=1),
    ForestSettings(trees=5, max_depth=3, criterion="entropy", balanced=False),
    SvmSettings(folds=3),
    SvmSettings(kernel="linear", cost=1.0, gamma=0.01),
]


def tones(seed: int, labels: list[int]) -> tuple[Tensor, Tensor]:
    """A tone in noise for each label, and lengths: float32 [rows, SAMPLES], int64 [rows]."""
    rng = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / 16_000
    pitch = np.asarray([PITCH_HZ[label] for label in labels]) * rng.uniform(0.9, 1.1, len(labels))
    audio = 0.2 * np.sin(2 * np.pi * pitch[:, None] * time + rng.uniform(0, 6, (len(labels), 1)))
    audio += 0.03 * rng.standard_normal(audio.shape)
    length = rng.integers(3_000, SAMPLES + 1, len(labels))
    return torch.from_numpy(audio.astype(np.float32)), torch.from_numpy(length)


def batches(labels: tuple[int, ...] = (0, 2, 4), groups: int = 4) -> list[Batch]:
    found = []
    for group in range(groups):
        truth = list(labels) * 4
        audio, length = tones(group, truth)
        who = torch.full((len(truth),), group)
        found.append((audio, length, torch.tensor(truth), who))
    return found


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda s: f"{s.kind}-{SETTINGS.index(s)}")
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return fit_classical(request.param, FRONTEND, batches(), LABELS, 1, SAMPLES)


@pytest.fixture
def predict(model: onnx.ModelProto, tmp_path: Path) -> Predictor:
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    return onnx_predictor(path)


def test_unheard_audio_is_told_apart(predict: Predictor) -> None:
    truth = [0, 2, 4] * 5
    audio, length = tones(99, truth)
    logits = predict(audio.numpy(), length.numpy())
    assert logits.argmax(axis=1).tolist() == truth


def test_logits_are_logarithms_of_probabilities(predict: Predictor) -> None:
    audio, length = tones(98, [0, 2, 4, 4])
    probability = np.exp(predict(audio.numpy(), length.numpy()))
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=LABELS * FLOOR)
    np.testing.assert_allclose(probability[:, [1, 3]], FLOOR, rtol=1e-5)


def test_padding_and_neighbours_do_not_matter(predict: Predictor) -> None:
    audio, length = (value.numpy() for value in tones(97, [0, 2, 4, 0]))
    together = predict(audio, length)
    for row, samples in enumerate(length):
        alone = audio[row : row + 1].copy()
        alone[0, samples:] = 0.7
        found = predict(alone, length[row : row + 1])
        np.testing.assert_allclose(np.exp(found[0]), np.exp(together[row]), atol=1e-4)


def test_the_same_seed_gives_the_same_model() -> None:
    first, again, other = (
        fit_classical(SETTINGS[0], FRONTEND, batches(), LABELS, seed, SAMPLES).SerializeToString()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[2]], ids=["forest", "svm"])
def test_two_labels_are_enough(settings: ForestSettings | SvmSettings, tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    onnx.save(fit_classical(settings, FRONTEND, batches((0, 4)), LABELS, 1, SAMPLES), str(path))
    audio, length = tones(95, [0, 4, 4])
    logits = onnx_predictor(path)(audio.numpy(), length.numpy())
    assert logits.argmax(axis=1).tolist() == [0, 4, 4]


def test_features_in_time_are_refused() -> None:
    for frontend in (LogMelSettings(), FrameSettings()):
        with pytest.raises(TrainerError, match=r"frontend\.summary"):
            fit_classical(ForestSettings(), frontend, batches(), LABELS, 0, SAMPLES)


def test_too_little_to_fit_on_is_said() -> None:
    with pytest.raises(TrainerError, match="one label"):
        fit_classical(ForestSettings(), FRONTEND, batches((2,)), LABELS, 0, SAMPLES)
    with pytest.raises(TrainerError, match="two training speakers"):
        fit_classical(SvmSettings(), FRONTEND, batches(groups=1), LABELS, 0, SAMPLES)
    lonely = batches(groups=3)
    audio, length, truth, who = lonely[0]
    lonely[0] = (audio, length, torch.where(truth == 0, 3, truth), who)
    with pytest.raises(TrainerError, match="holds all rows of a label"):
        fit_classical(SvmSettings(), FRONTEND, lonely, LABELS, 0, SAMPLES)
    with pytest.raises(TypeError, match="not a generator"):
        fit_classical(ForestSettings(), FRONTEND, iter(batches()), LABELS, 0, SAMPLES)


def test_they_are_classical() -> None:
    assert all(is_classical(settings) for settings in SETTINGS)
