from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from serd.errors import ModelError
from serd.inference.manifest import EmotionManifest, load_emotion_manifest
from serd.inference.signature import check_signature
from tests.inference.tiny import LABELS, SAMPLES, emotion_manifest, write


class FakeTensor(NamedTuple):
    name: str
    type: str
    shape: list[int | str | None]


AUDIO = FakeTensor("audio", "tensor(float)", ["batch", SAMPLES])
LENGTH = FakeTensor("length", "tensor(int64)", ["batch"])
LOGITS = FakeTensor("logits", "tensor(float)", ["batch", len(LABELS)])


@pytest.fixture
def manifest(tmp_path: Path) -> EmotionManifest:
    return load_emotion_manifest(write(tmp_path / "tiny.json", emotion_manifest()))


@pytest.mark.parametrize("batch", ["batch", "n", None])
def test_a_graph_as_described_is_taken(manifest: EmotionManifest, batch: str | None) -> None:
    check_signature(
        manifest,
        [LENGTH._replace(shape=[batch]), AUDIO._replace(shape=[batch, SAMPLES])],
        [FakeTensor("embedding", "tensor(float)", [batch, 64]), LOGITS],
    )


def test_a_free_length_is_taken(manifest: EmotionManifest) -> None:
    free = AUDIO._replace(shape=["batch", "samples"])
    check_signature(manifest, [free, LENGTH], [LOGITS._replace(shape=["batch", None])])


@pytest.mark.parametrize(
    ("audio", "length", "logits", "said"),
    [
        (AUDIO._replace(name="wave"), LENGTH, LOGITS, "input.audio: the graph has no 'audio' (it"),
        (AUDIO, LENGTH._replace(name="len"), LOGITS, "input.length: the graph has no 'length'"),
        (AUDIO, LENGTH, LOGITS._replace(name="out"), "output.logits: the graph has no 'logits'"),
        (AUDIO._replace(type="tensor(int16)"), LENGTH, LOGITS, "input.audio: 'audio' is tensor(in"),
        (AUDIO, LENGTH._replace(type="tensor(int32)"), LOGITS, "input.length: 'length' is tens"),
        (AUDIO, LENGTH, LOGITS._replace(type="tensor(float16)"), "output.logits: 'logits' is te"),
        (AUDIO._replace(shape=["b", 48000]), LENGTH, LOGITS, "input.samples: is 8000 here"),
        (AUDIO._replace(shape=["b", 1, SAMPLES]), LENGTH, LOGITS, "input.audio: 'audio' has shape"),
        (AUDIO._replace(shape=[1, SAMPLES]), LENGTH, LOGITS, "input.audio: 'audio' has a fixed"),
        (AUDIO, LENGTH._replace(shape=[]), LOGITS, "input.length: 'length' has shape []"),
        (AUDIO, LENGTH, LOGITS._replace(shape=["b", 8]), "labels: is 4 here, 'logits' has 8"),
    ],
)
def test_a_graph_that_differs_is_refused_by_field(
    manifest: EmotionManifest,
    audio: FakeTensor,
    length: FakeTensor,
    logits: FakeTensor,
    said: str,
) -> None:
    with pytest.raises(ModelError) as caught:
        check_signature(manifest, [audio, length], [logits])
    assert caught.value.code == "model_signature"
    assert f"{manifest.path}: {said}" in caught.value.message


def test_an_input_that_the_manifest_does_not_know_is_refused(manifest: EmotionManifest) -> None:
    state = FakeTensor("state", "tensor(float)", [2, "batch", 8])
    with pytest.raises(ModelError, match="input: the graph also wants state"):
        check_signature(manifest, [AUDIO, LENGTH, state], [LOGITS])
