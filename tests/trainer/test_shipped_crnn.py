"""The model in the repository: it loads, and its card and manifest tell the same."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from serd.inference.manifest import EmotionManifest, load_emotion_manifest, verify_file
from trainer.audio import load_clips
from trainer.corpora import load
from trainer.evaluate import logits_only, predict_clips
from trainer.graph import onnx_predictor
from trainer.labels import EIGHT as LABELS
from trainer.metrics import confusion_matrix, uar
from trainer.predictions import DAEMON_CONDITIONS as CONDITIONS


@pytest.fixture(scope="module")
def manifest(repository: Path) -> EmotionManifest:
    return load_emotion_manifest(repository / "serd" / "models" / "serd-crnn.json")


def test_it_loads_and_scores(manifest: EmotionManifest) -> None:
    path = verify_file(manifest)
    assert path.stat().st_size < 10e6
    assert manifest.labels == LABELS
    logits = onnx_predictor(path)(np.zeros((3, 48_000), np.float32), np.array([48_000, 9_000, 0]))
    assert logits.shape == (3, 8)
    assert np.isfinite(logits).all()


def test_padding_and_neighbours_do_not_matter(manifest: EmotionManifest) -> None:
    predict = onnx_predictor(verify_file(manifest))
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal((4, 48_000))).astype(np.float32)
    length = np.array([48_000, 30_000, 8_000, 400])
    together = predict(audio, length)
    for row, samples in enumerate(length):
        alone = np.zeros((1, 48_000), np.float32)
        alone[0, :samples] = audio[row, :samples]
        assert np.abs(predict(alone, length[row : row + 1])[0] - together[row]).max() < 1e-4


def test_the_card_tells_what_the_manifest_tells(manifest: EmotionManifest) -> None:
    path = manifest.path
    assert path is not None
    card = path.with_suffix(".md").read_text("utf-8")
    assert manifest.file.sha256 in card
    assert f"Temperature {manifest.calibration.temperature:g}" in card
    assert f"top score of {manifest.calibration.abstain_below:g}" in card
    figures = re.split("Validation speakers, used|## Calibration", card.split("## Figures")[1])[0]
    rows = re.findall(
        r"^\| (\w+) \| (\d+) \| ([\d.]+) \| [\d.]+ to [\d.]+ \| ([\d.]+) \| ([\d.]+) \|",
        figures,
        re.MULTILINE,
    )
    told = [
        (corpus, condition, int(count), float(uar))
        for corpus, count, clean, _, far in rows
        for condition, uar in zip(CONDITIONS, (clean, far), strict=True)
    ]
    assert sorted(told) == sorted(
        (m.corpus, m.condition, m.count, m.uar)
        for m in manifest.metrics
        if m.condition in CONDITIONS
    )
    for part in ("train", "validation", "test"):
        speakers = getattr(manifest.training.speakers, part)
        assert f"- {part}: {', '.join(speakers)}" in card


def test_every_figure_has_both_conditions(manifest: EmotionManifest) -> None:
    measured = {(m.corpus, m.protocol) for m in manifest.metrics}
    there = {(m.corpus, m.protocol, m.condition) for m in manifest.metrics}
    assert there >= {(*row, condition) for row in measured for condition in CONDITIONS}
    corpora = {corpus for corpus, _ in measured}
    assert corpora <= set(manifest.training.corpora)
    assert corpora >= {name.split("/")[0] for name in manifest.training.speakers.test}


@pytest.mark.parametrize("corpus", ["savee", "emodb"])
def test_the_figures_can_be_had_again(manifest: EmotionManifest, shared: Path, corpus: str) -> None:
    test = manifest.training.speakers.test
    utterances = load(corpus, shared / "corpora").utterances
    held = [u for u in utterances if u.speaker_id in test and u.label in manifest.labels]
    hear = logits_only(onnx_predictor(verify_file(manifest)))
    for said in predict_clips(hear, load_clips(held), "test", manifest.labels, CONDITIONS):
        predicted = said.scores(manifest.calibration.temperature).argmax(axis=1)
        told = {(m.corpus, m.condition): m for m in manifest.metrics}[corpus, said.condition]
        assert len(said) == told.count
        # one utterance of the smallest class either way, where processors round differently
        found = uar(confusion_matrix(said.truth, predicted, len(manifest.labels)))
        assert found == pytest.approx(told.uar, abs=0.03)
