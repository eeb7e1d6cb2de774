"""The loop: learning, resuming, checkpoints, balance."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.corpora import Utterance
from trainer.distil import STEP_SAMPLES, Targets, feature_loss, score_loss
from trainer.errors import TrainerError
from trainer.prepare import Places, prepare
from trainer.recipe import Recipe, TrainSettings, load_recipe
from trainer.train import (
    Run,
    TrainingData,
    learning_rate,
    load_trained,
    read_checkpoint,
    sampling_weights,
    shift_left,
)


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(str(tiny_recipe))


@pytest.fixture
def data(recipe: Recipe, made_up: Path, tmp_path: Path) -> TrainingData:
    return prepare(recipe, Places(made_up, tmp_path / "cache"))


def _run(recipe: Recipe, data: TrainingData, folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(recipe, data, folder)


def _with_teacher(recipe: Recipe, data: TrainingData) -> tuple[Recipe, TrainingData]:
    rng = np.random.default_rng(0)
    copies, utterances = data.bank.length.shape
    targets = Targets(
        logits=rng.normal(size=(copies, utterances, 8)).astype(np.float32),
        features=rng.normal(size=(copies, utterances, 30, 4)).astype(np.float16),
    )
    distilled = Recipe.model_validate(recipe.model_dump() | {"distil": {"components": 4}})
    return distilled, TrainingData(data.bank, data.utterances, data.validation, targets)


@pytest.mark.parametrize("teacher", [False, True])
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    recipe: Recipe, data: TrainingData, tmp_path: Path, teacher: bool
) -> None:
    if teacher:
        recipe, data = _with_teacher(recipe, data)
    whole = _run(recipe, data, tmp_path / "whole")
    whole.train()
    broken = _run(recipe, data, tmp_path / "broken")
    for _ in range(2):
        broken.train_epoch()
    broken.save("last.pt")
    broken.train_epoch()  # lost: killed before it was saved
    torch.manual_seed(999)
    resumed = _run(recipe, data, tmp_path / "broken")
    resumed.resume()
    resumed.train()
    first = read_checkpoint(tmp_path / "whole" / "last.pt")
    second = read_checkpoint(tmp_path / "broken" / "last.pt")
    for part in ("student", "average"):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key


def test_the_files_of_a_run(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    run = _run(recipe, data, tmp_path / "run")
    run.train()
    with (run.folder / "log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3", "4"]
    loaded, model, epoch = load_trained(run.folder)
    assert loaded == recipe
    best = read_checkpoint(run.folder / "best.pt")
    assert best["epoch"] == epoch
    scores = [(float(line["validation_uar"]) + float(line["telephone_uar"])) / 2 for line in lines]
    assert epoch == 1 + int(np.argmax(scores))
    for key, value in model.state_dict().items():
        assert torch.equal(value, best["average"][f"module.model.{key}"])


def test_it_learns_tones(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    train = recipe.train.model_copy(update={"epochs": 12, "steps": 8, "learning_rate": 5e-3})
    longer = recipe.model_copy(update={"train": train})
    run = _run(longer, data, tmp_path / "run")
    first = run.train_epoch()
    while run.epoch < 12:
        last = run.train_epoch()
    assert last["loss"] < 0.75 * first["loss"]


def test_another_recipe_is_not_resumed(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    _run(recipe, data, tmp_path / "run").save("last.pt")
    other = recipe.model_copy(update={"seed": 4})
    with pytest.raises(TrainerError, match="differs in seed"):
        _run(other, data, tmp_path / "run").resume()


def test_a_checkpoint_of_another_architecture_is_said(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    run = _run(recipe, data, tmp_path / "run")
    run.save("best.pt")
    state = torch.load(run.folder / "best.pt", weights_only=True)
    state["recipe"]["model"]["hidden"] = 16
    torch.save(state, run.folder / "best.pt")
    with pytest.raises(TrainerError, match=r"best\.pt is of another architecture"):
        load_trained(run.folder)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04cut short"])
def test_a_broken_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(TrainerError, match=r"best\.pt is not a checkpoint"):
        load_trained(tmp_path)


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="is this the folder of a training run"):
        load_trained(tmp_path)


def test_a_diverging_loss_stops_with_its_epoch(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    run = _run(recipe, data, tmp_path / "run")
    with torch.no_grad():
        run.student.model.classify.bias.fill_(float("nan"))
    with pytest.raises(TrainerError, match=r"diverged in epoch 1: lower train\.learning_rate"):
        run.train_epoch()


def test_a_folder_that_cannot_be_written_is_named(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    run = Run(recipe, data, tmp_path / "missing")
    with pytest.raises(TrainerError, match=r"missing/last\.pt cannot be written"):
        run.save("last.pt")


def test_balance_moves_the_weight_from_utterances_to_cells() -> None:
    utterances = [Utterance(Path(f"/{i}"), "tess", "OAF", "sad", "en") for i in range(9)]
    utterances.append(Utterance(Path("/x"), "tess", "OAF", "angry", "en"))
    assert sampling_weights(utterances, 0.0)[-1] == pytest.approx(0.1)
    assert sampling_weights(utterances, 1.0)[-1] == pytest.approx(0.5)
    assert sampling_weights(utterances, 0.5)[-1] == pytest.approx(1 / (9 / 3 + 1))


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    settings = TrainSettings(epochs=10, steps=10, learning_rate=1.0, warmup_epochs=2)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[19] == pytest.approx(1.0)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 0.01


@given(length=st.integers(0, 48_000), most=st.integers(0, 10_000), seed=st.integers(0, 99))
def test_a_shift_keeps_what_it_does_not_cut(length: int, most: int, seed: int) -> None:
    audio = np.zeros((1, 48_000), np.int16)
    audio[0, :length] = np.arange(1, length + 1) % 30_000 + 1
    shifted, left, cut = shift_left(audio, np.array([length]), most, np.random.default_rng(seed))
    first = int(cut[0])
    assert first % STEP_SAMPLES == 0
    assert first <= min(most, length // 5)
    assert left[0] == length - first
    assert np.array_equal(shifted[0, : left[0]] * 32768, audio[0, first:length])
    assert not shifted[0, left[0] :].any()


def test_the_teachers_own_scores_cost_nothing() -> None:
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert float(score_loss(logits, logits, 2.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(score_loss(logits, -logits, 2.0)) > 0.1


def test_features_beyond_the_length_cost_nothing() -> None:
    teacher = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0))
    length = torch.tensor([10 * STEP_SAMPLES, 48_000])
    guess = teacher.clone()
    guess[0, 10:] += 5
    assert float(feature_loss(guess, teacher, length)) == pytest.approx(0.0, abs=1e-6)
    guess[0, 9] += 1
    assert float(feature_loss(guess, teacher, length)) == pytest.approx(1 / 40)
    # a student with finer steps is brought to the teacher's
    fine = teacher.repeat_interleave(2, dim=1)
    assert float(feature_loss(fine, teacher, length)) == pytest.approx(0.0, abs=1e-6)
