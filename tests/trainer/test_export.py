"""Export: parity, manifest, card, and the refusals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from serd.inference.manifest import load_emotion_manifest, verify_file
from trainer.audio import load_clips
from trainer.corpora import LABELS, load
from trainer.errors import TrainerError
from trainer.evaluate import Segments, cut_segments
from trainer.export import export, onnx_predictor, parity, write_onnx
from trainer.models import Crnn, build
from trainer.recipe import Recipe, load_recipe
from trainer.report import Figure, Report

SPEAKERS = {"train": ["emodb/03"], "validation": ["emodb/08"], "test": ["emodb/09"]}


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(str(tiny_recipe))


@pytest.fixture
def model(recipe: Recipe) -> Crnn:
    torch.manual_seed(0)
    return build(recipe.model, recipe.frontend, len(LABELS)).eval()


@pytest.fixture
def segments(made_up: Path) -> Segments:
    clips = load_clips(load("emodb", made_up / "corpora").utterances[:9])
    return cut_segments(clips, range(9), "clean")


def _report(with_test: bool) -> Report:
    figures = [
        Figure(
            part=part,
            corpus="emodb",
            condition=condition,
            uar=uar,
            accuracy=0.5,
            count=9,
            interval=(0.4, 0.7),
            confusion=np.eye(8, dtype=int).tolist(),
        )
        for part in (("validation", "test") if with_test else ("validation",))
        for condition, uar in (("clean", 0.61234), ("telephone-mulaw-8k", 0.59876))
    ]
    return Report(
        epoch=3,
        temperature=1.2,
        abstain_below=0.3,
        error_before=0.1,
        error_after=0.05,
        coverage=0.9,
        figures=figures,
    )


def test_serd_reads_what_is_exported(
    model: Crnn, recipe: Recipe, segments: Segments, tmp_path: Path
) -> None:
    written = export(model, recipe, _report(True), segments, SPEAKERS, tmp_path, 2, "A note.")
    manifest = load_emotion_manifest(written.manifest)
    assert verify_file(manifest) == written.onnx
    assert manifest.file.sha256 == hashlib.sha256(written.onnx.read_bytes()).hexdigest()
    assert manifest.labels == LABELS
    assert manifest.version == 2
    assert manifest.calibration.temperature == 1.2
    assert [m.uar for m in manifest.metrics] == [0.6123, 0.5988]
    assert manifest.training.speakers.test == ("emodb/09",)
    card = written.card.read_text("utf-8")
    assert "A note." in card
    assert "| emodb | 9 | 0.6123 | 0.400 to 0.700 | 0.5000 | 0.5988 | +1.4 points |" in card
    assert manifest.file.sha256 in card
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("tiny.")) == [
        "tiny.json",
        "tiny.md",
        "tiny.onnx",
        "tiny.toml",
    ]


def test_the_graph_takes_any_batch_and_agrees(
    model: Crnn, segments: Segments, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(model, path)
    assert parity(model, path, segments) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {value.name: value.shape for value in session.get_inputs()}
    assert inputs == {"audio": ["batch", 48_000], "length": ["batch"]}
    predict = onnx_predictor(path)
    noise = segments.audio.copy()
    for row, length in enumerate(segments.length):
        noise[row, length:] = 0.5
    clean = predict(segments.audio, segments.length)
    assert np.abs(predict(noise, segments.length) - clean).max() < 1e-5


def test_parity_is_a_gate(
    model: Crnn, recipe: Recipe, segments: Segments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "tiny.onnx"
    kept.write_bytes(b"the one before")

    def write_another(_: Crnn, path: Path) -> None:
        torch.manual_seed(1)
        write_onnx(build(recipe.model, recipe.frontend, len(LABELS)), path)

    monkeypatch.setattr("trainer.export.write_onnx", write_another)
    with pytest.raises(TrainerError, match=r"differ by .* nothing was exported"):
        export(model, recipe, _report(True), segments, SPEAKERS, tmp_path / "out")
    assert kept.read_bytes() == b"the one before"
    assert list((tmp_path / "out").iterdir()) == [kept]


def test_without_test_figures_there_is_no_export(
    model: Crnn, recipe: Recipe, segments: Segments, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match="evaluate RUN --test"):
        export(model, recipe, _report(False), segments, SPEAKERS, tmp_path)


def test_speakers_in_two_parts_are_refused(
    model: Crnn, recipe: Recipe, segments: Segments, tmp_path: Path
) -> None:
    crossed = SPEAKERS | {"test": ["emodb/03"]}
    with pytest.raises(TrainerError, match="serd refuses the manifest"):
        export(model, recipe, _report(True), segments, crossed, tmp_path)
    assert not (tmp_path / "tiny.json").exists()
