"""Pretrained encoders with tiny made-up weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.features import LogMelSettings
from trainer.models import Backbone, BackboneSettings, build

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


def made_up(kind: str) -> Any:
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


KINDS = ("whisper", "wav2vec2", "wav2vec2-large", "hubert", "wavlm", "moonshine")


def audio_of(rows: int, samples: int = 16_000, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(seed))


def model_of(folder: Path, labels: int = 4, **settings: Any) -> Backbone:
    torch.manual_seed(1)
    given: dict[str, Any] = {"layers": (0, 1, 3), "dense": (8,)} | settings
    model = build(BackboneSettings(encoder=str(folder), **given), LogMelSettings(), labels)
    assert isinstance(model, Backbone)
    return model.eval()
