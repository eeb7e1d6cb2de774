"""How a model is opened, and what it must stand before it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serd.errors import ModelError
from serd.inference.candidate import Candidate, digest, rehearse
from tests.inference import broken
from tests.inference.tiny import write


def candidate(manifest: Path, window_s: float = 0.5) -> Candidate:
    return Candidate(str(manifest), "cpu", 1, (1, 2), "float32", window_s)


def test_a_sound_model_is_opened_as_asked(tmp_path: Path) -> None:
    model = candidate(broken.sound(tmp_path, "sound")).open()
    rehearse(model)
    assert model.batch_sizes == (1, 2)
    assert model.provider == "CPUExecutionProvider"


def test_a_model_that_cannot_take_the_segments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        candidate(broken.sound(tmp_path, "sound"), window_s=3.0).open()
    assert refused.value.code == "window_too_long"


def test_a_model_whose_answers_are_no_numbers_fails_its_rehearsal(tmp_path: Path) -> None:
    model = candidate(broken.nothing_finite(tmp_path, "broken")).open()
    with pytest.raises(ModelError) as refused:
        rehearse(model)
    assert refused.value.code == "model_not_finite"


def test_the_digest_is_of_all_that_the_manifest_says(tmp_path: Path) -> None:
    path = broken.sound(tmp_path, "sound")
    found = digest(candidate(path).open().manifest)
    assert digest(candidate(path).open().manifest) == found
    manifest = json.loads(path.read_text())
    manifest["calibration"]["temperature"] = 2.5
    write(path, manifest)
    assert digest(candidate(path).open().manifest) != found
