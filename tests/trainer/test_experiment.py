"""Experiments: the tree, what is recorded, what is done again and what is not."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainer.checkpoint import load_trained
from trainer.errors import TrainerError
from trainer.experiment import (
    RECIPE,
    RECORD,
    Choice,
    Experiment,
    load_record,
    load_resolved,
)
from trainer.one_run import PREDICTIONS
from trainer.predictions import CONDITIONS, load_predictions
from trainer.prepare import Places
from trainer.recipe import Recipe, load_recipes, parse_recipes
from trainer.reporting.build import build_report
from trainer.train import Run

TEXT = """
name = "side-by-side"
labels = {neutral = "neutral", sad = "sad", angry = "angry"}
[corpora.emodb]
[[protocols]]
kind = "leave-one-speaker-out"
name = "one-out"
[[protocols]]
kind = "random"
validation_share = 0.2
[[protocols]]
kind = "all"
[frontend]
kind = "frames"
features = ["mfcc", "zcr"]
n_mfcc = 6
n_mels = 16
n_fft = 512
summary = ["mean", "std"]
[models.cnn]
kind = "cnn1d"
channels = [4, 4]
train = {epochs = 1}
[models.forest]
kind = "forest"
trees = 5
[augment]
copies = 1
[train]
epochs = 2
steps = 0
batch_size = 6
"""


@pytest.fixture
def recipes(tmp_path: Path) -> dict[str, Recipe]:
    path = tmp_path / "side-by-side.toml"
    path.write_text(TEXT, "utf-8")
    return load_recipes(str(path))


@pytest.fixture
def begin(recipes: dict[str, Recipe], made_up: Path, tmp_path: Path) -> Callable[..., Experiment]:
    def make(changed: dict[str, Recipe] | None = None, **how: bool) -> Experiment:
        places = Places(made_up, tmp_path / "cache")
        experiment = Experiment(changed or recipes, tmp_path / "run", places, tell=lambda _: None)
        experiment.begin(**how)
        return experiment

    return make


ONE = Choice(protocol="one-out", fold="emodb-03")


def test_the_tree_of_an_experiment(
    begin: Callable[..., Experiment], recipes: dict[str, Recipe], tmp_path: Path
) -> None:
    experiment = begin()
    assert experiment.run() == 0
    root = tmp_path / "run"
    assert load_resolved(root) == recipes
    record = load_record(root)
    folds = ("one-out", "emodb-03"), ("one-out", "emodb-08"), ("one-out", "emodb-09")
    expected = {
        f"{protocol}/{model}/{fold}"
        for protocol, fold in (*folds, ("random", "split"), ("all", "everyone"))
        for model in ("cnn", "forest")
    }
    assert {run.folder for run in record.runs} == expected
    assert {run.state for run in record.runs} == {"done"}
    files = {path.name for path in (root / "one-out/cnn/emodb-03").iterdir()}
    events = {name for name in files if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert files - events == {"best.pt", "last.pt", "log.csv", "predictions.npz", "split.json"}
    files = {path.name for path in (root / "one-out/forest/emodb-03").iterdir()}
    assert files == {"model.onnx", "predictions.npz", "split.json"}

    # what was heard, and by whom it was trained
    found = load_predictions(root / "one-out/cnn/emodb-03" / PREDICTIONS)
    assert [(p.part, p.condition) for p in found] == [
        (part, condition) for part in ("validation", "test") for condition in CONDITIONS
    ]
    assert set(found[0].speaker) == {"08"}
    assert set(found[-1].speaker) == {"03"}
    assert found[0].labels == ("neutral", "sad", "angry")
    split = json.loads((root / "one-out/cnn/emodb-03/split.json").read_text())
    assert split["speakers"] == {
        "train": ["emodb/09"],
        "validation": ["emodb/08"],
        "test": ["emodb/03"],
    }
    assert json.loads((root / "random/cnn/split/split.json").read_text())["speaker_dependent"]
    assert load_predictions(root / "all/cnn/everyone" / PREDICTIONS) == []
    loaded, _, epoch = load_trained(root / "all/cnn/everyone")
    assert (loaded.train.epochs, epoch) == (1, 1)

    report = build_report(root)
    assert [(e.protocol, e.model) for e in report.entries] == [
        ("one-out", "cnn"),
        ("one-out", "forest"),
        ("random", "cnn"),
        ("random", "forest"),
    ]
    assert [e.speaker_dependent for e in report.entries] == [False, False, True, True]


def test_a_fold_that_fails_is_recorded_and_the_others_go_on(
    begin: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Run.train

    def diverge(run: Run) -> None:
        if run.folder.name == "emodb-03":
            raise TrainerError("The loss diverged in epoch 1.")
        if run.folder.name == "emodb-08":
            raise RuntimeError("something unheard of")
        train(run)

    monkeypatch.setattr(Run, "train", diverge)
    experiment = begin()
    assert experiment.run(Choice(protocol="one-out", model="cnn")) == 2
    record = load_record(tmp_path / "run")
    states = {r.fold: r.state for r in record.runs if (r.protocol, r.model) == ("one-out", "cnn")}
    assert states == {"emodb-03": "failed", "emodb-08": "failed", "emodb-09": "done"}
    failed = record.entry("one-out", "cnn", "emodb-03")
    assert failed is not None
    assert failed.reason == "The loss diverged in epoch 1."
    strange = record.entry("one-out", "cnn", "emodb-08")
    assert strange is not None
    assert "something unheard of" in (strange.reason or "")
    told = tmp_path / "run/one-out/cnn/emodb-08/error.txt"
    assert "RuntimeError: something unheard of" in told.read_text()
    reasons = {u.reason for u in build_report(tmp_path / "run").unfinished}
    assert "The loss diverged in epoch 1." in reasons

    # what failed is tried again, and nothing else
    monkeypatch.undo()
    again = begin(resume=True)
    before = (tmp_path / "run/one-out/cnn/emodb-09/best.pt").stat().st_mtime_ns
    assert again.run(Choice(protocol="one-out", model="cnn")) == 0
    assert (tmp_path / "run/one-out/cnn/emodb-09/best.pt").stat().st_mtime_ns == before
    assert {r.state for r in load_record(tmp_path / "run").runs if r.model == "cnn"} == {
        "done",
        "pending",
    }


def test_a_fold_without_a_class_says_which(
    begin: Callable[..., Experiment],
    recipes: dict[str, Recipe],
    made_up: Path,
    tmp_path: Path,
) -> None:
    shared = tmp_path / "shared"
    (shared / "corpora" / "emodb").mkdir(parents=True)
    for path in (made_up / "corpora" / "emodb").glob("*.wav"):
        # only one speaker is ever sad
        if path.name[5] != "T" or path.name.startswith("03"):
            (shared / "corpora" / "emodb" / path.name).symlink_to(path)
    forest = {"forest": recipes["forest"]}
    places = Places(shared, tmp_path / "cache")
    experiment = Experiment(forest, tmp_path / "lacking", places, tell=lambda _: None)
    experiment.begin()
    assert experiment.run(Choice(protocol="one-out")) == 2
    reasons = {r.fold: r.reason for r in experiment.record.runs if r.protocol == "one-out"}
    assert reasons["emodb-08"] is None
    for fold in ("emodb-03", "emodb-09"):
        assert "no training utterance is labelled sad" in (reasons[fold] or "")
        assert "emodb/03" in (reasons[fold] or "")


def test_a_folder_is_not_overwritten_unless_asked(
    begin: Callable[..., Experiment], recipes: dict[str, Recipe], tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match="holds no experiment to resume"):
        begin(resume=True)
    begin().run(Choice("one-out", "forest", "emodb-03"))
    mine = tmp_path / "run/one-out/forest/emodb-03/notes.txt"
    mine.write_text("mine")
    with pytest.raises(TrainerError, match="holds an experiment already: use --resume, --fresh"):
        begin()
    with pytest.raises(TrainerError, match=r"recipe\.toml is another recipe .*seed"):
        begin({k: r.model_copy(update={"seed": 7}) for k, r in recipes.items()}, resume=True)
    begin(fresh=True)
    left = {p.name for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert left == {"experiment.json", "recipe.toml", "notes.txt"}
    assert {r.state for r in load_record(tmp_path / "run").runs} == {"pending"}


def test_a_protocol_and_a_model_may_be_added_later(
    begin: Callable[..., Experiment], recipes: dict[str, Recipe], tmp_path: Path
) -> None:
    fewer = {
        "forest": recipes["forest"].model_copy(
            update={"protocols": recipes["forest"].protocols[:1]}
        )
    }
    assert begin(fewer).run() == 0
    more = begin(resume=True)
    assert sum(run.state == "done" for run in more.record.runs) == 3
    assert len(more.record.runs) == 10


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (Choice(protocol="one-ot"), "--protocol: there is no 'one-ot'; did you mean 'one-out'"),
        (Choice(model="lstm"), "--model: there is no 'lstm'; there are cnn, forest"),
        (Choice(protocol="all", fold="emodb-03"), "--fold: there is no 'emodb-03'"),
    ],
)
def test_what_is_not_there_cannot_be_chosen(
    begin: Callable[..., Experiment], choice: Choice, told: str
) -> None:
    with pytest.raises(TrainerError, match=told):
        begin().run(choice)


def test_a_full_disk_costs_no_finished_fold(
    begin: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begin().run(Choice("one-out", "forest", "emodb-03")) == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnx.save", full)
    experiment = begin(resume=True)
    assert experiment.run(Choice("one-out", "forest")) == 2
    entry = experiment.record.entry("one-out", "forest", "emodb-08")
    assert entry is not None
    assert entry.reason is not None
    assert "model.onnx cannot be written: No space left on device" in entry.reason
    kept = load_predictions(tmp_path / "run/one-out/forest/emodb-03" / PREDICTIONS)
    assert len(kept) == 2 * len(CONDITIONS)


def test_predictions_can_be_made_anew(begin: Callable[..., Experiment], tmp_path: Path) -> None:
    experiment = begin()
    experiment.run(ONE)
    path = tmp_path / "run/one-out/cnn/emodb-03" / PREDICTIONS
    before = load_predictions(path)
    path.unlink()
    experiment.hear_again(ONE)
    for old, new in zip(before, load_predictions(path), strict=True):
        np.testing.assert_array_equal(old.logits, new.logits)


def test_a_damaged_record_is_named(begin: Callable[..., Experiment], tmp_path: Path) -> None:
    begin()
    (tmp_path / "run" / RECORD).write_text("{}")
    with pytest.raises(TrainerError, match=r"experiment\.json is not an experiment"):
        begin(resume=True)
    (tmp_path / "run" / RECIPE).write_text("name = 3")
    with pytest.raises(TrainerError, match=r"recipe\.toml:\n  name"):
        begin(resume=True)


def test_parsing_needs_models() -> None:
    both: dict[str, object] = {"model": {}, "models": {"a": {}}}
    none: dict[str, object] = {"models": {}}
    for values in (none, both):
        with pytest.raises(TrainerError, match="or several as"):
            parse_recipes(values, Path("x.toml"))
