"""The model in the repository: it loads, and its card and manifest tell the same."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from serd.inference.manifest import EmotionManifest, load_emotion_manifest, verify_file
from trainer.audio import load_clips
from trainer.corpora import LABELS, load
from trainer.evaluate import CONDITIONS, cut_segments, results, segment_logits, utterance_scores
from trainer.export import onnx_predictor


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
    test_part = card.split("## Figures")[1].split("Validation speakers")[0]
    rows = re.findall(
        r"^\| (\w+) \| (\d+) \| ([\d.]+) \| [\d.]+ to [\d.]+ \| ([\d.]+) \| ([\d.]+) \|",
        test_part,
        re.MULTILINE,
    )
    told = {
        (corpus, condition): (int(count), float(uar))
        for corpus, count, clean, _, far in rows
        for condition, uar in zip(CONDITIONS, (clean, far), strict=True)
    }
    assert told == {(m.corpus, m.condition): (m.count, m.uar) for m in manifest.metrics}
    for part in ("train", "validation", "test"):
        speakers = getattr(manifest.training.speakers, part)
        assert f"- {part}: {', '.join(speakers)}" in card


def test_every_corpus_has_both_conditions(manifest: EmotionManifest) -> None:
    corpora = {name.split("/")[0] for name in manifest.training.speakers.test}
    assert {(m.corpus, m.condition) for m in manifest.metrics} == {
        (corpus, condition) for corpus in corpora for condition in CONDITIONS
    }
    assert corpora == set(manifest.training.corpora)


@pytest.mark.parametrize("corpus", ["savee", "emodb"])
def test_the_figures_can_be_had_again(manifest: EmotionManifest, shared: Path, corpus: str) -> None:
    test = manifest.training.speakers.test
    held = [u for u in load(corpus, shared / "corpora").utterances if u.speaker_id in test]
    clips = load_clips(held)
    predict = onnx_predictor(verify_file(manifest))
    for condition in CONDITIONS:
        segments = cut_segments(clips, range(len(clips)), condition)
        scores = utterance_scores(
            segment_logits(predict, segments), segments, manifest.calibration.temperature
        )
        (found,) = results(scores, segments, condition)
        (told,) = (m for m in manifest.metrics if m.corpus == corpus and m.condition == condition)
        assert found.count == told.count
        # one utterance of the smallest class either way, where processors round differently
        assert found.uar == pytest.approx(told.uar, abs=0.03)
