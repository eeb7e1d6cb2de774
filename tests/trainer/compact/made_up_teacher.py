"""A Whisper with weights from a generator, and recipes that name it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.compact.settings import EncoderRecipe

WIDTH, HIDDEN, MELS = 16, 24, 16


def save_teacher(folder: Path) -> Path:
    """Write it into `folder`."""
    hf: Any = importlib.import_module("transformers")
    tokens = {f"{what}_token_id": 1 for what in ("pad", "bos", "eos", "decoder_start")}
    config = hf.WhisperConfig(
        num_mel_bins=MELS,
        d_model=WIDTH,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=HIDDEN,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=HIDDEN,
        vocab_size=50,
        # So that layers differ, as those do that have learnt something.
        init_std=0.3,
        **tokens,
    )
    torch.manual_seed(0)
    hf.WhisperModel(config).save_pretrained(folder)
    return folder


@dataclass(frozen=True, slots=True)
class MakeRecipe:
    """Recipes for the made-up corpus, with this teacher."""

    teacher: Path

    def values(self, **tables: dict[str, Any]) -> dict[str, Any]:
        """What a TOML file would say; `tables` go over what is here."""
        values: dict[str, Any] = {
            "name": "tiny",
            "seed": 3,
            "corpora": {"emodb": {}},
            "augment": {"copies": 2},
            "teacher": {"encoder": str(self.teacher), "layers": [1, 2, 3]},
            "sizes": {"stride": 2, "hidden": 12, "depth": 1},
            "train": {"steps": 6, "batch_size": 8, "log_steps": 2, "precision": "fp32"},
        }
        for name, table in tables.items():
            values[name] = {**values[name], **table}
        return values

    def __call__(self, **tables: dict[str, Any]) -> EncoderRecipe:
        """A recipe; see `values`."""
        return EncoderRecipe.model_validate(self.values(**tables))
