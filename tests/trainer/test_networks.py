"""Every neural kind with every front end it takes: masks, gradients, refusals, the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.features import FrameSettings, FrontendSettings, LogMelSettings
from trainer.graph import onnx_predictor, write_onnx
from trainer.models import (
    Cnn1dSettings,
    Cnn2dSettings,
    ConformerSettings,
    CrnnSettings,
    EmotionModel,
    ForestSettings,
    GruSettings,
    LstmSettings,
    ModelSettings,
    build,
    is_classical,
)

SAMPLES = 16_000
LABELS = 5

FRONTENDS: dict[str, FrontendSettings] = {
    "log-mel": LogMelSettings(n_mels=16, hop_length=320),
    "frames": FrameSettings(
        features=("mfcc", "mfcc_delta", "zcr", "rms"), n_mfcc=6, n_fft=512, hop_length=320
    ),
    "summary": FrameSettings(
        features=("mfcc", "chroma", "zcr"), n_mfcc=8, n_fft=1024, summary=("mean", "std")
    ),
}
MODELS: dict[str, ModelSettings] = {
    "crnn": CrnnSettings(channels=(4, 8), time_strides=(2, 1), projection=8, hidden=8),
    "cnn1d": Cnn1dSettings(channels=(8, 12), pool=5, dense=(10,)),
    "cnn1d-even": Cnn1dSettings(channels=(8, 12), pool=2, pool_stride=3, batch_norm=False),
    "cnn2d": Cnn2dSettings(channels=(4, 6, 8), time_pools=(2, 1, 2), depth=2, projection=8),
    "lstm": LstmSettings(hidden=6, layers=2, pooling="last"),
    "lstm-ahead": LstmSettings(hidden=6, bidirectional=False, pooling="last", channels=(8,)),
    "gru": GruSettings(hidden=6, layers=1, channels=(8, 8), pooling="attention", dense=(9,)),
    "gru-mean": GruSettings(hidden=6, layers=1, pooling="mean"),
    "conformer": ConformerSettings(width=12, heads=2, blocks=2, kernel=5),
    "transformer": ConformerSettings(width=12, heads=2, blocks=1, convolution=False),
}
PAIRS = [
    *((model, frontend) for model in MODELS for frontend in ("log-mel", "frames")),
    ("cnn1d", "summary"),
    ("cnn1d-even", "summary"),
]
NO_SEQUENCE = [name for name in MODELS if not name.startswith("cnn1d")]


def tone(seed: int, rows: int = 1) -> Tensor:
    """Noise and a tone that differ from row to row: float32 [rows, SAMPLES]."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(SAMPLES) / 16_000
    pitch = 100 + 400 * torch.rand(rows, 1, generator=generator)
    noise = torch.randn(rows, SAMPLES, generator=generator)
    return 0.2 * torch.sin(2 * torch.pi * pitch * time) + 0.05 * noise


def made(name: str, frontend: str) -> EmotionModel:
    """A model in evaluation mode whose norms leak what padding they are given."""
    torch.manual_seed(0)
    model = build(MODELS[name], FRONTENDS[frontend], LABELS)
    model.frontend.fit([(tone(7, 4), torch.tensor([16_000, 9_000, 12_000, 16_000]))])
    for module in model.modules():
        # Fresh norms hide leaks of padding behind a zero mean.
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    return model.eval()


@pytest.fixture(scope="module", params=PAIRS, ids="-on-".join)
def model(request: pytest.FixtureRequest) -> EmotionModel:
    return made(*request.param)


@hypothesis_settings(max_examples=10)
@given(length=st.integers(1, SAMPLES), seed=st.integers(0, 50))
def test_padding_does_not_matter(model: EmotionModel, length: int, seed: int) -> None:
    audio = tone(seed)
    zeros, noise = audio.clone(), audio.clone()
    zeros[:, length:] = 0
    noise[:, length:] = tone(seed + 1)[:, length:]
    lengths = torch.tensor([length])
    with torch.inference_mode():
        expected = model(audio, lengths)
        assert torch.isfinite(expected).all()
        assert torch.allclose(model(zeros, lengths), expected, atol=2e-5)
        assert torch.allclose(model(noise, lengths), expected, atol=2e-5)
        longer = nn.functional.pad(zeros, (0, 9_000))
        assert torch.allclose(model(longer, lengths), expected, atol=2e-5)


@hypothesis_settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, SAMPLES), min_size=2, max_size=5))
def test_rows_do_not_matter_to_each_other(model: EmotionModel, lengths: list[int]) -> None:
    audio = tone(3, len(lengths))
    with torch.inference_mode():
        together = model(audio, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = model(audio[row : row + 1], torch.tensor([length]))
            assert torch.allclose(alone[0], together[row], atol=2e-5)


def test_content_within_the_length_matters(model: EmotionModel) -> None:
    audio, length = tone(0), torch.tensor([8_000])
    with torch.inference_mode():
        changed = audio.clone()
        changed[:, 3_000:7_500] = 0.05 * torch.randn(4_500)
        logits = model(audio, length)
        assert not torch.allclose(logits, model(changed, length), atol=1e-4)
        assert not torch.allclose(logits, model(audio, length // 2), atol=1e-4)


def test_stages_have_the_sizes_that_are_told(model: EmotionModel) -> None:
    audio, length = tone(1, 3), torch.tensor([SAMPLES, 9_000, 500])
    with torch.inference_mode():
        x, mask = model.steps(audio, length)
        embedding = model.pool(x, mask)
        logits = model.head(embedding)
    assert x.shape == (3, mask.shape[1], model.step_size)
    assert mask.dtype == x.dtype == torch.float32
    assert (mask.sum(dim=1) >= 1).all()
    assert embedding.shape == (3, model.embedding_size)
    assert logits.shape == (3, LABELS)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(("name", "frontend"), PAIRS)
def test_every_weight_learns(name: str, frontend: str) -> None:
    model = made(name, frontend).train()
    logits = model(tone(4, 8), torch.linspace(4_000, SAMPLES, 8).long())
    nn.functional.cross_entropy(logits, torch.arange(8) % LABELS).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_onnx_agrees_in_any_batch(model: EmotionModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(model, path, samples=SAMPLES)
    audio, length = tone(9, 6), torch.tensor([SAMPLES, 12_345, 8_000, 3_000, 200, 1])
    with torch.inference_mode():
        expected = model(audio, length).numpy()
    predict = onnx_predictor(path)
    for rows in (1, 2, 6):
        found = predict(audio[:rows].numpy(), length[:rows].numpy())
        assert np.abs(found - expected[:rows]).max() < 1e-4


@pytest.mark.parametrize("name", NO_SEQUENCE)
def test_a_summary_is_refused_by_what_needs_time(name: str) -> None:
    with pytest.raises(TrainerError, match=r"frontend\.summary"):
        build(MODELS[name], FRONTENDS["summary"], LABELS)


def test_the_kind_chooses_the_settings() -> None:
    adapter: TypeAdapter[ModelSettings] = TypeAdapter(ModelSettings)
    assert adapter.validate_python({}) == CrnnSettings()
    assert adapter.validate_python({"kind": "lstm", "hidden": 7}) == LstmSettings(hidden=7)
    assert adapter.validate_python({"kind": "forest"}) == ForestSettings()
    with pytest.raises(ValidationError, match="rnn"):
        adapter.validate_python({"kind": "rnn"})
    with pytest.raises(ValidationError, match="extra"):
        adapter.validate_python({"kind": "gru", "heads": 3})
    for settings in MODELS.values():
        assert adapter.validate_python(settings.model_dump(mode="json")) == settings
        assert not is_classical(settings)


def test_a_forest_is_no_network() -> None:
    with pytest.raises(TrainerError, match="fitted"):
        build(ForestSettings(), FRONTENDS["summary"], LABELS)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("conformer", {"width": 10, "heads": 4}),
        ("conformer", {"kernel": 4}),
        ("cnn1d", {"kernel": 4}),
        ("cnn1d", {"channels": ()}),
        ("cnn2d", {"channels": (4, 8), "time_pools": (2,)}),
        ("crnn", {"channels": (4, 8), "time_strides": (2,)}),
        ("lstm", {"pooling": "max"}),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ModelSettings).validate_python({"kind": kind, **wrong})
