"""Encoders that `transformers` has saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.backbones.made_up_encoders import KINDS, made_up


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    for kind in KINDS:
        made_up(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in KINDS}
