"""Export: parity, manifest, card, variants, and the refusals."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from serd.inference.manifest import (
    load_emotion_manifest,
    verify_file,
    verify_unpadded_file,
)
from serd.inference.model import EmotionModel as ServedModel
from tests.trainer.made_up_tree import grow
from trainer.crossfit import CrossFitted, Scaling, cross_fit
from trainer.errors import TrainerError
from trainer.evaluate import Segments
from trainer.export import export, hear
from trainer.features import FrameSettings, FrontendSettings, LogMelSettings
from trainer.graph import onnx_predictor, write_onnx
from trainer.models import (
    Cnn1dSettings,
    Cnn2dSettings,
    ConformerSettings,
    CrnnSettings,
    EmotionModel,
    ForestSettings,
    GruSettings,
    LstmSettings,
    ModelSettings,
    SvmSettings,
    build,
)
from trainer.models.classical import fit_classical
from trainer.origin import Origin, read_origin
from trainer.predictions import Predictions, softmax
from trainer.recipe import RefitSettings

RECIPE = """
name = "tiny"
seed = 3
labels = {angry = "angry", neutral = "neutral", sad = "sad", bored = "bored"}
[corpora.emodb]
validation = ["08"]
test = ["09"]
[frontend]
n_mels = 16
hop_length = 400
[model]
channels = [4, 8]
time_strides = [2, 2]
projection = 8
hidden = 8
[augment]
copies = 2
"""
LABELS = ("angry", "neutral", "sad", "bored")
FILES = ["tiny-8k.onnx", "tiny.json", "tiny.md", "tiny.onnx"]
PROTOCOLS = """
[[protocols]]
kind = "held-out"
[[protocols]]
kind = "k-fold"
folds = 3
validation = "none"
[[protocols]]
kind = "random"
[[protocols]]
kind = "all"
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, made_up: Path) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE + PROTOCOLS, "utf-8")
    return grow(recipe, made_up, folder / "runs", sharp=0.5)


@pytest.fixture(scope="module")
def origin(tree: Path) -> Origin:
    return read_origin(tree)


def changed(folder: Path, made_up: Path, old: str, new: str, failed: Sequence[str] = ()) -> Path:
    """The tree of a recipe in which `old` is `new`."""
    recipe = folder / "changed.toml"
    text = RECIPE + PROTOCOLS
    assert old in text
    recipe.write_text(text.replace(old, new), "utf-8")
    return grow(recipe, made_up, folder / "runs", failed)


def test_what_everybody_trained_is_told_by_the_folds(origin: Origin) -> None:
    assert origin.protocol.kind == "all"
    assert origin.stands_for_folds
    assert origin.speakers == {
        "train": ["emodb/03", "emodb/08", "emodb/09"],
        "validation": [],
        "test": [],
    }
    assert [entry.protocol for entry in origin.entries] == ["held-out", "k-fold", "random"]
    assert [entry.speaker_dependent for entry in origin.entries] == [False, False, True]
    assert "3 folds of k-fold" in origin.calibrated_on
    assert len(origin.calibration.by_fold) == 3
    # logits were halved, so the temperature is below 1, and folds may sharpen
    assert origin.calibration.scaling.temperature < 0.9
    assert len(set(origin.heard.path.tolist())) == len(origin.heard) == 36
    assert origin.missing == ()


def test_a_fold_is_told_by_its_own_speakers(tree: Path) -> None:
    origin = read_origin(tree / "held-out" / "crnn" / "split")
    assert not origin.stands_for_folds
    assert origin.speakers["test"] == ["emodb/09"]
    assert [entry.protocol for entry in origin.entries] == ["held-out"]
    assert set(origin.heard.speaker.tolist()) == {"09"}
    # validation speakers chose the epoch: they may not sharpen
    assert origin.calibration.scaling.temperature >= 1.0
    assert "validation speakers" in origin.calibrated_on
    fold = read_origin(tree / "k-fold" / "crnn" / "fold-1")
    assert "2 folds of k-fold" in fold.calibrated_on


def test_a_random_split_says_what_it_is(tree: Path, tmp_path: Path) -> None:
    origin = read_origin(tree / "random")
    assert origin.speaker_dependent
    assert origin.speakers["test"] == []
    written = export(origin, hear(origin, most=6), tmp_path, name="known-voices")
    manifest = load_emotion_manifest(written.manifest)
    assert "speaker-dependent" in manifest.training.protocol
    assert {m.protocol for m in manifest.metrics} == {"random split 75:25, speaker-dependent"}
    assert "*Speaker-dependent*" in written.card.read_text("utf-8")
    assert "none of them in two parts" not in written.card.read_text("utf-8")


def test_serd_reads_what_is_exported(origin: Origin, tmp_path: Path) -> None:
    segments = hear(origin, most=12)
    written = export(origin, segments, tmp_path, version=2, note="A note.")
    manifest = load_emotion_manifest(written.manifest)
    assert verify_file(manifest) == written.onnx
    assert verify_unpadded_file(manifest) == tmp_path / "tiny-8k.onnx"
    assert manifest.labels == LABELS
    assert manifest.version == 2
    assert manifest.licence == "CC-BY-4.0"
    assert manifest.calibration.temperature == pytest.approx(
        origin.calibration.scaling.temperature, abs=1e-4
    )
    assert manifest.frontend is not None
    assert manifest.frontend.n_mels == 16
    assert {(m.protocol, m.condition) for m in manifest.metrics} == {
        (entry.description, condition)
        for entry in origin.entries
        for condition in ("clean", "telephone-mulaw-8k", "whole-file")
    }
    assert written.parity is not None
    assert written.parity < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES
    served = ServedModel.load(written.manifest, "cpu")
    scores = served.run(segments.audio[:3], segments.length[:3])
    logits = onnx_predictor(written.onnx)(segments.audio[:3], segments.length[:3])
    expected = softmax(logits, manifest.calibration.temperature)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_the_card_tells_all(origin: Origin, tmp_path: Path) -> None:
    written = export(origin, hear(origin, most=6), tmp_path, note="A note.")
    card = written.card.read_text("utf-8")
    assert "A note." in card
    assert hashlib.sha256(written.onnx.read_bytes()).hexdigest() in card
    for entry in origin.entries:
        row = entry.row(group="corpus", name="emodb")
        assert row is not None
        assert f"### {entry.protocol}: {entry.description}" in card
        assert f"| emodb | {row.count} | {row.uar.value:.4f} |" in card
    assert card.index("### random") > card.index("### k-fold")
    assert card.count("*Speaker-dependent*") == 1
    assert "models of the same recipe" in card
    for word in ("16 mel bands", "EMO-DB", "free to use", "train: emodb/03, emodb/08, emodb/09"):
        assert word in card
    for word in ("## Limits and intended use", "All corpora are acted", "AI Act"):
        assert word in card
    assert "degraded by room, noise, music" in card
    assert f"Temperature {origin.calibration.scaling.temperature:g}" in card


def test_the_card_tells_of_a_refitted_layer(origin: Origin, tmp_path: Path) -> None:
    segments = hear(origin, most=6)
    plain = export(origin, segments, tmp_path).card.read_text("utf-8")
    recipe = origin.recipe.model_copy(update={"refit": RefitSettings(share=0.3)})
    card = export(replace(origin, recipe=recipe), segments, tmp_path).card.read_text("utf-8")
    assert "last layer" not in plain
    assert "30% of its last layer" in card


def test_folds_that_failed_are_named(tmp_path: Path, made_up: Path) -> None:
    failed = "k-fold/crnn/fold-2"
    origin = read_origin(changed(tmp_path, made_up, "seed = 3", "seed = 4", failed=[failed]))
    assert origin.missing == ("k-fold, fold-2: the loss diverged",)
    written = export(origin, hear(origin, most=4), tmp_path / "out")
    assert "Not measured: k-fold, fold-2: the loss diverged" in written.card.read_text("utf-8")
    with pytest.raises(TrainerError, match="not come to an end"):
        read_origin(tmp_path / "runs" / failed)


def test_parity_is_a_gate(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "tiny.onnx"
    kept.write_bytes(b"the one before")

    def write_another(model: EmotionModel, path: Path) -> None:
        torch.manual_seed(1)
        write_onnx(build(origin.recipe.model, origin.recipe.frontend, len(LABELS)), path)

    monkeypatch.setattr("trainer.export.write_onnx", write_another)
    with pytest.raises(TrainerError, match=r"differ by .* nothing was exported"):
        export(origin, hear(origin, most=6), tmp_path)
    assert kept.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [kept]


def test_vector_scaling_goes_into_the_graph(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = Scaling("vector", np.linspace(0.5, 1.5, 4), np.linspace(-1, 1, 4))

    def vector(folds: Sequence[Sequence[Predictions]], cautious: bool = False) -> CrossFitted:
        found = cross_fit(folds, cautious)
        errors = found.errors | {"vector": found.kept}
        return replace(found, scaling=scaling, by_fold=(scaling,) * 3, errors=errors)

    plain = read_origin(tree)
    monkeypatch.setattr("trainer.origin.cross_fit", vector)
    origin = read_origin(tree)
    assert origin.entries[1].row() != plain.entries[1].row()
    segments = hear(origin, most=6)
    written = export(origin, segments, tmp_path, fp16=True)
    assert load_emotion_manifest(written.manifest).calibration.temperature == 1.0
    assert isinstance(origin.model, EmotionModel)
    write_onnx(origin.model, tmp_path / "plain.onnx")
    logits = onnx_predictor(tmp_path / "plain.onnx")(segments.audio, segments.length)
    for path in (written.onnx, tmp_path / "tiny-fp16.onnx"):
        found = onnx_predictor(path)(segments.audio, segments.length)
        difference = found - scaling(logits.astype(np.float64))
        assert float(np.abs(difference).max()) < 2e-3
    assert "inside the graph" in written.card.read_text("utf-8")


def test_variants_have_manifests_of_their_own(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = hear(origin, most=12)
    monkeypatch.setattr("trainer.variants.LEAST_SPEED", 0.0)
    written = export(origin, segments, tmp_path, int8=True, fp16=True)
    assert [v.name for v in written.variants] == ["int8", "fp16"]
    expected = onnx_predictor(written.onnx)(segments.audio, segments.length)
    for kind, most in (("int8", 0.3), ("fp16", 0.01)):
        manifest = load_emotion_manifest(tmp_path / f"tiny-{kind}.json")
        assert manifest.name == f"tiny-{kind}"
        found = onnx_predictor(verify_file(manifest))(segments.audio, segments.length)
        assert 0 < np.abs(found - expected).max() < most
        inputs = onnx.load(tmp_path / f"tiny-{kind}.onnx").graph.input
        assert [i.type.tensor_type.elem_type for i in inputs] == [1, 7]
        narrow = tmp_path / "tiny-int8-8k.onnx" if kind == "int8" else None
        assert verify_unpadded_file(manifest) == narrow
    card = written.card.read_text("utf-8")
    assert "`tiny-int8.onnx`" in card
    assert "`tiny-8k.onnx`" in card
    assert "`tiny-int8-8k.onnx`" in card
    assert "`tiny-fp16.onnx`" in card
    # another export without them takes them away: they are of the model before
    export(origin, segments, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES


def test_variants_that_are_not_worth_it_are_given_up(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = hear(origin, most=6)
    monkeypatch.setattr("trainer.variants.LEAST_SPEED", 1e6)
    monkeypatch.setattr("trainer.variants.FP16_TOLERANCE", 0.0)
    written = export(origin, segments, tmp_path, int8=True, fp16=True)
    assert all(v.path is None for v in written.variants)
    assert "Not kept: it is not 1e+06 times as fast" in written.card.read_text("utf-8")
    monkeypatch.setattr("trainer.variants.MOST_POINTS", -200.0)
    written = export(origin, segments, tmp_path, int8=True)
    assert "it loses more than" in written.variants[0].told
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES


def test_a_graph_that_says_something_else_of_8_khz_is_given_up(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.variants.UNPADDED_TOLERANCE", 0.0)
    written = export(origin, hear(origin, most=6), tmp_path)
    assert "changes scores by" in written.card.read_text("utf-8")
    assert load_emotion_manifest(written.manifest).unpadded is None
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES[1:]


SUMMARY = FrameSettings(features=("mfcc", "zcr"), n_mfcc=4, n_fft=512, summary=("mean", "std"))
KINDS: dict[str, tuple[ModelSettings, FrontendSettings]] = {
    "crnn": (
        CrnnSettings(channels=(4,), time_strides=(2,), projection=8, hidden=8),
        FrameSettings(),
    ),
    "cnn1d": (Cnn1dSettings(channels=(4, 4)), SUMMARY),
    "cnn2d": (Cnn2dSettings(channels=(4,), time_pools=(2,), projection=4), LogMelSettings()),
    "lstm": (LstmSettings(hidden=4, layers=1), FrameSettings()),
    "gru": (GruSettings(hidden=4, layers=1, channels=(4,)), FrameSettings(features=("mel",))),
    "conformer": (ConformerSettings(width=8, heads=2, blocks=1), LogMelSettings()),
    "forest": (ForestSettings(trees=5), SUMMARY),
    "svm": (SvmSettings(), SUMMARY),
}


def fitted(settings: ForestSettings | SvmSettings, segments: Segments, path: Path) -> Path:
    """The ONNX file of a classical model, as a run's folder holds it."""
    batch = (
        torch.from_numpy(segments.audio),
        torch.from_numpy(segments.length),
        torch.from_numpy(segments.truth[segments.owner]),
        torch.from_numpy(segments.owner % 3),
    )
    onnx.save(fit_classical(settings, SUMMARY, [batch], len(LABELS), 0), str(path))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_serd_serves_every_kind(origin: Origin, tmp_path: Path, kind: str) -> None:
    settings, frontend = KINDS[kind]
    segments = hear(origin)
    recipe = origin.recipe.model_copy(update={"model": settings, "frontend": frontend})
    model: EmotionModel | Path
    if isinstance(settings, ForestSettings | SvmSettings):
        model = fitted(settings, segments, tmp_path / "fitted.onnx")
    else:
        model = build(settings, frontend, len(LABELS)).eval()
    other = replace(origin, recipe=recipe, model=model)
    written = export(other, segments, tmp_path / "out", int8=kind in ("forest", "svm"), fp16=True)
    manifest = load_emotion_manifest(written.manifest)
    assert (manifest.frontend is None) == isinstance(frontend, FrameSettings)
    served = ServedModel.load(written.manifest, "cpu")
    served.warm_up()
    audio, length = segments.audio[:3], segments.length[:3]
    scores = served.run(audio, length)
    logits = onnx_predictor(written.onnx)(audio, length)
    expected = softmax(logits, manifest.calibration.temperature)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    card = written.card.read_text("utf-8")
    if kind in ("forest", "svm"):
        assert written.parity is None
        assert [v.path for v in written.variants] == [None, None]
        assert "No float16 form" in card
        assert "scikit-learn" in card
    else:
        assert written.variants[0].path is not None
    if frontend == SUMMARY:
        assert "mfcc, zcr every 32 ms, of which mean, std over time, standardised" in card


@pytest.mark.parametrize("name", ["Mine", "../mine", "a/b", ".hidden"])
def test_a_name_must_be_one(origin: Origin, tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainerError, match="cannot be a model's name"):
        export(origin, hear(origin, most=1), tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_a_damaged_graph_is_said(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "fitted.onnx"
    for content in (None, b"no graph"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(TrainerError, match=r"fitted\.onnx cannot be (run|read)"):
            export(replace(origin, model=path), hear(origin, most=4), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_could_be_several_folds(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"k-fold/crnn/fold-1, k-fold/crnn/fold-2"):
        read_origin(tree / "k-fold")
    with pytest.raises(TrainerError, match="not the folder of an experiment"):
        read_origin(tmp_path)


def test_noise_reduction_cannot_be_served(tmp_path: Path, made_up: Path) -> None:
    table = '[prepare]\nnoise_reduction = "stationary"\n[augment]'
    with pytest.raises(TrainerError, match=r"noise_reduction.*daemon"):
        read_origin(changed(tmp_path, made_up, "[augment]", table))


def test_without_test_speakers_there_is_no_export(tmp_path: Path, made_up: Path) -> None:
    with pytest.raises(TrainerError, match="no test figures"):
        read_origin(changed(tmp_path, made_up, PROTOCOLS, '\n[[protocols]]\nkind = "all"\n'))


def test_speaker_dependent_figures_do_not_calibrate_new_speakers(
    tmp_path: Path, made_up: Path
) -> None:
    two = '\n[[protocols]]\nkind = "all"\n[[protocols]]\nkind = "random"\n'
    with pytest.raises(TrainerError, match="speaker-dependent"):
        read_origin(changed(tmp_path, made_up, PROTOCOLS, two))


def test_speakers_in_two_parts_are_refused(origin: Origin, tmp_path: Path) -> None:
    origin.speakers["test"].append("emodb/03")
    try:
        with pytest.raises(TrainerError, match="serd refuses the manifest"):
            export(origin, hear(origin, most=4), tmp_path)
    finally:
        origin.speakers["test"].clear()
    assert list(tmp_path.iterdir()) == []


def test_recordings_that_are_gone_are_said(origin: Origin, tmp_path: Path) -> None:
    heard = origin.heard.path.copy()
    origin.heard.path[:] = "/nowhere/x.wav"
    try:
        with pytest.raises(TrainerError, match="Not one"):
            hear(origin)
    finally:
        origin.heard.path[:] = heard
