"""The model in the repository: it loads, and its card and manifest tell the same."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from serd.inference.manifest import EmotionManifest, load_emotion_manifest, verify_file
from trainer.audio import load_clips
from trainer.corpora import LABELS, load
from trainer.evaluate import logits_only, predict_clips
from trainer.graph import onnx_predictor
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
    assert logits.shape == (3, 9)
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
    assert f"emperature {manifest.calibration.temperature:g}" in card
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
        assert f"- {part}: {', '.join(speakers) or 'nobody'}" in card


def test_every_figure_has_both_conditions(manifest: EmotionManifest) -> None:
    measured = {(m.corpus, m.protocol) for m in manifest.metrics}
    there = {(m.corpus, m.protocol, m.condition) for m in manifest.metrics}
    assert there >= {(*row, condition) for row in measured for condition in CONDITIONS}
    corpora = {corpus for corpus, _ in measured}
    assert corpora <= set(manifest.training.corpora)
    assert corpora >= {name.split("/")[0] for name in manifest.training.speakers.test}


@pytest.mark.parametrize("corpus", ["savee", "emodb"])
def test_it_knows_whom_it_trained_on_better_than_its_figures_promise_of_others(
    manifest: EmotionManifest, shared: Path, corpus: str
) -> None:
    utterances = load(corpus, shared / "corpora").utterances
    assert {u.speaker_id for u in utterances} <= set(manifest.training.speakers.train)
    hear = logits_only(onnx_predictor(verify_file(manifest)))
    told = {
        (m.corpus, m.condition): m
        for m in manifest.metrics
        if "speaker-dependent" not in m.protocol
    }
    clips = load_clips(utterances)
    for said in predict_clips(hear, clips, "train", manifest.labels, CONDITIONS):
        predicted = said.scores(manifest.calibration.temperature).argmax(axis=1)
        found = uar(confusion_matrix(said.truth, predicted, len(manifest.labels)))
        assert len(said) == told[corpus, said.condition].count
        assert found > told[corpus, said.condition].uar + 0.05
