"""The model around an encoder, on tiny made-up weights: no downloads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the teacher extra is not installed")

from pydantic import TypeAdapter, ValidationError

from tests.trainer.backbones.made_up_encoders import KINDS, audio_of, model_of
from trainer.backbones.frozen import embed, identity
from trainer.errors import TrainerError
from trainer.graph import largest_difference, onnx_predictor, write_onnx
from trainer.models import Backbone, BackboneSettings, ModelSettings
from trainer.pcm import Float32
from trainer.recipe import parse_recipes
from trainer.train import Student, average_of

_FIXED: dict[str, Any] = {"combine": "concatenate", "pooling": "statistics"}
_EXPERTS: dict[str, Any] = _FIXED | {
    "layers": (1, 3),
    "stride": 2,
    "experts": ("emodb", "savee"),
}


@pytest.mark.parametrize("kind", [*KINDS, "strided"])
@pytest.mark.parametrize("pooling", ["attention", "statistics"])
def test_rows_depend_on_themselves_alone(kind: str, pooling: str, folders: dict[str, Path]) -> None:
    stride = 3 if kind == "strided" else 1
    model = model_of(folders[kind.replace("strided", "whisper")], pooling=pooling, stride=stride)
    audio, length = audio_of(2, 20_000), torch.tensor([20_000, 9_000])
    other = audio.clone()
    other[1, 9_000:] = 9.0
    with torch.inference_mode():
        together = model(audio, length)
        assert torch.allclose(model(other, length), together, atol=1e-6)
        alone = model(audio[1:, :12_000], length[1:])
        tiny = model(audio[:1, :150], torch.tensor([150]))
    assert torch.isfinite(tiny).all()
    assert torch.allclose(alone[0], together[1], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("kind", [*KINDS, "strided"])
def test_the_graph_computes_the_same(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    combine = "concatenate" if kind in ("whisper", "hubert") else "mix"
    settings = _EXPERTS if kind == "strided" else {"combine": combine}
    model = model_of(folders[kind.replace("strided", "whisper")], **settings)
    if model.experts is not None:
        model.experts.weight.normal_(0, 0.1)
        model.experts.gate_weight.normal_(0, 0.1)
    with torch.no_grad():
        model.standardise.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
    path = tmp_path / "model.onnx"
    write_onnx(model, path, samples=16_000)
    audio = audio_of(8).numpy()
    length = np.array([16_000, 15_999, 400, 700, 3_201, 8_000, 12_345, 1], np.int64)

    def ours(audio: Float32, length: np.ndarray[Any, np.dtype[np.int64]]) -> Float32:
        with torch.inference_mode():
            return model(torch.from_numpy(audio), torch.from_numpy(length)).numpy()  # type: ignore[no-any-return]

    assert largest_difference(ours, onnx_predictor(path), audio, length) < 1e-5


def test_a_frozen_encoder_stays_as_it_came(folders: dict[str, Path]) -> None:
    model = model_of(folders["wavlm"]).train()
    assert not any(module.training for module in model.encoder.modules())
    before = copy.deepcopy(model.state_dict())
    _step(model)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("classify") for name in changed)
    assert "mixture" in changed
    assert not any(name.startswith("encoder") for name in changed)


def test_the_last_layers_learn_more_slowly(folders: dict[str, Path]) -> None:
    model = model_of(folders["hubert"], layers=(1, 2), fine_tune=1, fine_tune_rate=0.01).train()
    assert model.encoder.depth == 2
    training = [block.training for block in model.encoder.blocks]
    assert training == [False, True]
    before = copy.deepcopy(model.state_dict())
    _step(model)
    moved = {
        name: float((values - before[name]).abs().max())
        for name, values in model.state_dict().items()
        if values.is_floating_point()
    }
    assert all(m == 0 for name, m in moved.items() if name.startswith("encoder.blocks.0."))
    tuned = max(m for name, m in moved.items() if name.startswith("encoder.blocks.1."))
    head = max(m for name, m in moved.items() if name.startswith("classify."))
    assert 0 < tuned < 0.05 * head
    still = [m for n, m in moved.items() if n.startswith("encoder") and ".blocks." not in n]
    assert not any(still)


def _step(model: Backbone) -> None:
    optimiser = torch.optim.AdamW(
        [
            {"params": group["params"], "lr": 1e-2 * group["scale"]}
            for group in model.parameter_groups()
        ],
        weight_decay=0.01,
    )
    logits = model(audio_of(4), torch.tensor([16_000, 12_000, 8_000, 16_000]))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def test_a_copy_is_independent(folders: dict[str, Path]) -> None:
    model = model_of(folders["wav2vec2"], fine_tune=2)
    other = copy.deepcopy(model)
    assert [id(b) for b in other.tuned] == [id(b) for b in other.encoder.blocks[-2:]]
    assert not {id(b) for b in other.tuned} & {id(b) for b in model.tuned}


def test_the_mixture_starts_even_and_one_layer_needs_none(folders: dict[str, Path]) -> None:
    mixed = model_of(folders["whisper"], normalise=False)
    audio, length = audio_of(1), torch.tensor([16_000])
    with torch.inference_mode():
        outputs, _ = mixed.encoder(audio, length, (0, 1, 3))
        x, mask = mixed.steps(audio, length)
    assert mask.shape == (1, 50)
    assert torch.allclose(x, outputs.mean(dim=1), atol=1e-5)
    side_by_side = model_of(folders["whisper"], combine="concatenate")
    assert side_by_side.step_size == 3 * mixed.step_size == 96
    assert side_by_side.embedding_size == 192


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_experts_have_their_share_and_the_head_learns_alone(
    share: float, folders: dict[str, Path]
) -> None:
    model = model_of(folders["whisper"], **_EXPERTS, expert_share=share)
    assert model.experts is not None
    model.experts.weight.normal_(0, 0.1)
    embedding = torch.randn(5, model.embedding_size)
    with torch.inference_mode():
        scores = torch.softmax(model.head(embedding), dim=1)
        own = torch.exp(model.experts(embedding))
        experts, model.experts = model.experts, None
        alone = torch.softmax(model.head(embedding), dim=1)
        model.experts = experts
        experts.bias[0] = float("nan")
        learning = model.train().head(embedding)
    assert torch.allclose(scores, share * own + (1 - share) * alone, atol=1e-5)
    assert torch.isfinite(learning).all()


def test_experts_want_embeddings_that_are_kept(folders: dict[str, Path]) -> None:
    model = model_of(folders["whisper"], **_EXPERTS)
    with pytest.raises(TrainerError, match=r"model\.experts.*leave out train\.mixup"):
        model.fit_experts(None, (), ("neutral",))
    with pytest.raises(ValidationError, match="pooling = 'statistics'"):
        BackboneSettings(experts=("emodb",), pooling="attention")


def test_experts_are_of_the_recipes_corpora(tmp_path: Path) -> None:
    values = {
        "name": "mine",
        "corpora": {"emodb": {}, "savee": {}},
        "model": {"kind": "backbone", "experts": ["emodb", "nobody"], **_FIXED},
    }
    with pytest.raises(TrainerError, match=r"'nobody' is none of emodb, savee"):
        parse_recipes(values, tmp_path / "mine.toml")


def test_the_average_leaves_out_what_does_not_learn(folders: dict[str, Path]) -> None:
    model = model_of(folders["whisper"])
    student = Student(model, None)
    average = average_of(student, 0.5)
    average.update_parameters(student)
    frozen = next(model.encoder.parameters())
    learning = next(model.classify.parameters())
    with torch.no_grad():
        frozen.add_(1)
        learning.add_(1)
    average.update_parameters(student)
    mean: Any = average.module
    assert torch.allclose(next(mean.model.encoder.parameters()), frozen - 1, atol=1e-6)
    assert not torch.allclose(next(mean.model.classify.parameters()), learning - 1)


def test_embeddings_are_those_of_the_model_in_the_order_given(folders: dict[str, Path]) -> None:
    model = model_of(folders["whisper"], pooling="statistics")
    audio = audio_of(40, 9_600)
    length = torch.from_numpy(np.random.default_rng(0).integers(400, 9_600, 40))
    with torch.inference_mode():
        expected = model.pool(*model.steps(audio, length))
        logits = model(audio, length)
    found = embed(model, audio.numpy(), length.numpy())
    assert found.shape == (40, model.embedding_size)
    assert np.allclose(found, expected.numpy(), atol=1e-4)
    with torch.inference_mode():
        assert torch.allclose(model.head(torch.from_numpy(found)), logits, atol=1e-3)
    assert embed(model, audio[:0].numpy(), length[:0].numpy()).shape == (0, model.embedding_size)


def test_an_embedding_is_fixed_where_nothing_before_the_head_learns(
    folders: dict[str, Path],
) -> None:
    fixed = _FIXED
    model = model_of(folders["wavlm"], **fixed)
    assert model.settings.is_embedding_fixed
    assert model_of(folders["wavlm"], layers=(2,), pooling="statistics").settings.is_embedding_fixed
    assert identity(model) == identity(model_of(folders["wavlm"], **fixed))
    assert identity(model) != identity(model_of(folders["wavlm"], **fixed, normalise=False))
    whispers = [model_of(folders["whisper"], **fixed, stride=count) for count in (1, 2)]
    assert identity(whispers[0]) != identity(whispers[1])
    for change in ({"fine_tune": 1}, {"combine": "mix"}, {"pooling": "attention"}):
        assert not model_of(folders["wavlm"], **(fixed | change)).settings.is_embedding_fixed
    audio, length = audio_of(4), torch.full((4,), 16_000)
    with torch.inference_mode():
        expected = model.pool(*model.steps(audio, length))
        assert torch.equal(model.train().pool(*model.steps(audio, length)), expected)
        other = model_of(folders["wavlm"]).train()
        assert not torch.equal(other.steps(audio, length)[0], other.steps(audio, length)[0])


def test_settings_are_checked() -> None:
    adapter: TypeAdapter[ModelSettings] = TypeAdapter(ModelSettings)
    assert adapter.validate_python({"kind": "backbone"}) == BackboneSettings()
    wrong: dict[str, Any]
    for wrong in (
        {"layers": []},
        {"layers": [2, 1]},
        {"layers": [-1]},
        {"fine_tune_rate": 0},
        {"layers": [1, 2], "fine_tune": 3},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python({"kind": "backbone", **wrong})


@pytest.mark.parametrize(
    "learning",
    [
        'combine = "concatenate"\npooling = "statistics"',
        'combine = "concatenate"\npooling = "statistics"\nexperts = ["emodb"]\nstride = 2',
        "fine_tune = 1",
    ],
    ids=["from kept embeddings", "with experts", "with its last layer"],
)
def test_it_is_trained_like_any_model(
    learning: str, folders: dict[str, Path], made_up: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from trainer.cli import main

    recipe = tmp_path / "backbone.toml"
    recipe.write_text(
        f"""
name = "backbone"
seed = 3
labels = {{neutral = "neutral", sad = "sad", angry = "angry"}}
[corpora.emodb]
validation = ["08"]
test = ["09"]
[model]
kind = "backbone"
encoder = "{folders["whisper"]}"
layers = [1, 3]
dense = [8]
{learning}
[augment]
copies = 1
[train]
epochs = 2
steps = 2
batch_size = 4
""",
        "utf-8",
    )
    given = ["train", str(recipe), "--out", str(tmp_path / "run"), "--data", str(made_up)]
    result = CliRunner().invoke(main, [*given, "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "run").rglob("predictions.npz"))
