"""The loop: learning, resuming, checkpoints."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.backbones.base import SpeechEncoder
from trainer.batches import Batches, TrainingData
from trainer.checkpoint import load_trained, read_checkpoint
from trainer.distil import Heard, Projection, Targets
from trainer.errors import TrainerError
from trainer.logs import Logs
from trainer.prepare import Places, prepare
from trainer.recipe import Recipe, load_recipe
from trainer.train import Run


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
    heard = Heard(
        rng.normal(size=(copies, utterances, 12)).astype(np.float16),
        rng.normal(size=(copies, utterances, 30, 6)).astype(np.float16),
        np.arange(utterances),
    )
    targets = Targets(
        logits=rng.normal(size=(copies, utterances, 3)).astype(np.float32),
        heard=heard,
        of_steps=Projection.learn(rng.normal(size=(40, 6)).astype(np.float32), 4),
        of_statistics=Projection.learn(rng.normal(size=(40, 12)).astype(np.float32), 4),
    )
    distilled = Recipe.model_validate(recipe.model_dump() | {"distil": {"components": 4}})
    return distilled, replace(data, targets=targets)


def _changed(recipe: Recipe, **train: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"train": recipe.train.model_dump() | train})


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
        for weights in run.student.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(TrainerError, match=r"diverged in epoch 1: lower train\.learning_rate"):
        run.train_epoch()


def test_a_folder_that_cannot_be_written_is_named(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    run = Run(recipe, data, tmp_path / "missing")
    with pytest.raises(TrainerError, match=r"missing/last\.pt cannot be written"):
        run.save("last.pt")


def test_a_full_disk_leaves_the_checkpoint_before_it(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    run = _run(recipe, data, tmp_path / "run")
    run.save("best.pt")
    before = (run.folder / "best.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(TrainerError, match=r"best\.pt cannot be written: .*Is the disk full"):
            run.save("best.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in run.folder.iterdir()] == ["best.pt"]
    assert (run.folder / "best.pt").read_bytes() == before


def test_a_log_that_cannot_be_written_is_named(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    run = _run(recipe, data, tmp_path / "run")
    (run.folder / "log.csv").mkdir()
    with pytest.raises(TrainerError, match=r"log\.csv cannot be written"):
        run.train()


def test_tensorboard_shows_what_the_log_says(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = _run(recipe, data, tmp_path / "run")
    run.train()
    with (run.folder / "log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    events = EventAccumulator(str(run.folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(lines[0]) - {"epoch"}
    for name in ("loss", "validation_uar"):
        told = [(str(e.step), e.value) for e in events.Scalars(name)]
        assert [step for step, _ in told] == [line["epoch"] for line in lines]
        assert [v for _, v in told] == pytest.approx(
            [float(line[name]) for line in lines], rel=1e-4
        )


def test_a_run_that_is_killed_ends_where_an_unbroken_one_does(
    made_up: Path, tiny_recipe: Path, tmp_path: Path, repository: Path
) -> None:
    text = tiny_recipe.read_text("utf-8").replace("epochs = 4", "epochs = 4\npatience = 3")
    tiny_recipe.write_text(text, "utf-8")
    recipe = load_recipe(str(tiny_recipe))
    whole = _run(recipe, prepare(recipe, Places(made_up, tmp_path / "cache")), tmp_path / "whole")
    whole.train()
    script = f"""
import os, signal, sys
from trainer.cli import main
from trainer.train import Run
step = Run._step
def killed(run, batch):
    if run.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(run, batch)
Run._step = killed
main(["train", {str(tiny_recipe)!r}, "--out", {str(tmp_path / "broken")!r}, "--data",
      {str(made_up)!r}, "--cache", {str(tmp_path / "cache")!r}])
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "broken" / "held-out" / "crnn" / "split"
    assert read_checkpoint(folder / "last.pt")["epoch"] == 2
    torch.manual_seed(999)
    resumed = _run(recipe, prepare(recipe, Places(made_up, tmp_path / "cache")), folder)
    resumed.resume()
    resumed.train()
    for name in ("last.pt", "best.pt"):
        first = read_checkpoint(tmp_path / "whole" / name)
        second = read_checkpoint(folder / name)
        assert first["progress"] == second["progress"]
        assert first["optimiser"]["param_groups"] == second["optimiser"]["param_groups"]
        for part in ("student", "average"):
            for key, value in first[part].items():
                assert torch.equal(value, second[part][key]), key
    logs = [(tmp_path / "whole" / "log.csv"), (folder / "log.csv")]
    told = [[line.rsplit(",", 1)[0] for line in log.read_text().splitlines()] for log in logs]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "train",
    [
        {"optimiser": "adam", "schedule": "plateau", "plateau_patience": 1, "steps": 0},
        {"schedule": "constant", "average_decay": 0.0, "warmup_epochs": 0},
        {"mixup": 0.4, "precision": "bf16"},
        {"select": ["whole-file"], "label_smoothing": 0.0},
    ],
    ids=["plateau", "constant", "mixup", "whole-file"],
)
def test_every_way_of_training_can_be_broken_off(
    recipe: Recipe, made_up: Path, tmp_path: Path, train: dict[str, object]
) -> None:
    changed = _changed(recipe, **train, learning_rate=3e-3)
    data = prepare(changed, Places(made_up, tmp_path / "cache"))
    whole = _run(changed, data, tmp_path / "whole")
    whole.train()
    broken = _run(changed, data, tmp_path / "broken")
    logs = Logs(broken.folder, 0)
    for _ in range(2):
        broken._turn(logs)
    logs.close()
    resumed = _run(changed, data, tmp_path / "broken")
    resumed.resume()
    resumed.train()
    for key, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[key]), key


def test_averaging_can_be_switched_off(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    run = _run(_changed(recipe, average_decay=0.0), data, tmp_path / "run")
    run.train_epoch()
    for key, value in run.student.state_dict().items():
        assert torch.equal(value, run.average.module.state_dict()[key]), key


def test_without_validation_the_last_weights_are_the_best(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    patient = _changed(recipe, patience=1)
    run = _run(patient, replace(data, validation=()), tmp_path / "run")
    run.train()
    _, model, epoch = load_trained(run.folder)
    assert epoch == recipe.train.epochs
    for key, value in model.state_dict().items():
        assert torch.equal(value, run.average.state_dict()[f"module.model.{key}"])
    header = (run.folder / "log.csv").read_text().splitlines()[0]
    assert header == "epoch,loss,accuracy,learning_rate,seconds"


def test_a_pass_takes_every_copy_once_and_weighs_rare_cells(
    recipe: Recipe, data: TrainingData
) -> None:
    changed = _changed(recipe, steps=0, batch_size=4, balance=1.0)
    batches = Batches(changed, data)
    copies, utterances = data.bank.length.shape
    drawn = list(batches.epoch(0))
    assert len(drawn) == len(batches) == -(-copies * utterances // 4)
    assert sum(len(batch.length) for batch in drawn) == copies * utterances
    truth = torch.cat([batch.truth for batch in drawn])
    weight = torch.cat([batch.weight for batch in drawn])
    assert float(weight.mean()) == pytest.approx(1.0)
    by_label = (truth * weight[:, None]).sum(dim=0)
    assert by_label.tolist() == pytest.approx([float(by_label[0])] * 3)


def test_features_computed_beforehand_change_nothing(
    tiny_recipe: Path, made_up: Path, tmp_path: Path
) -> None:
    text = tiny_recipe.read_text("utf-8")
    text = text.replace(
        "n_mels = 16\nhop_length = 400",
        'kind = "frames"\nfeatures = ["mfcc", "zcr"]\nn_mfcc = 6\nn_mels = 16\nn_fft = 512',
    )
    # Batch norm and dropout see how much padding there is.
    network = 'kind = "gru"\nhidden = 8\nlayers = 1\ndropout = 0\n'
    network += "spec_time_masks = 0\nspec_mel_masks = 0\n[augment]"
    text = text.replace(text[text.index("channels") : text.index("[augment]") + 9], network)
    tiny_recipe.write_text(text, "utf-8")
    recipe = load_recipe(str(tiny_recipe))
    data = prepare(recipe, Places(made_up, tmp_path / "cache"))
    assert data.features is not None
    ready = _run(recipe, data, tmp_path / "ready")
    anew = _run(recipe, replace(data, features=None), tmp_path / "anew")
    first, second = ready.train_epoch(), anew.train_epoch()
    for key in ("loss", "validation_loss"):
        assert first[key] == pytest.approx(second[key], rel=1e-4)
    ready.save("best.pt")
    _, model, _ = load_trained(tmp_path / "ready")
    segments = data.validation[0]
    with torch.inference_mode():
        said = model(torch.from_numpy(segments.audio), torch.from_numpy(segments.length))
        expected = ready._say(*ready._heard[0])
    np.testing.assert_allclose(said.numpy(), expected, atol=1e-5)


def test_what_cannot_be_had_is_named(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(TrainerError, match=r"train\.device: there is no cuda here"):
        _run(_changed(recipe, device="cuda"), data, tmp_path / "run")
    with pytest.raises(TrainerError, match=r"train\.precision: fp16 needs a GPU"):
        _run(_changed(recipe, precision="fp16"), data, tmp_path / "run")


class _Ear(SpeechEncoder):
    """An encoder of two layers that is quick to make."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.width, self.first = "ear", 6, 1
        torch.manual_seed(5)
        self.blocks = nn.ModuleList([nn.Conv1d(1, 6, 400, 320), nn.Conv1d(6, 6, 1)])
        self.requires_grad_(False)

    def forward(
        self, audio: Tensor, length: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        count = torch.clamp((length - 400) // 320 + 1, min=1)
        x, outputs = audio[:, None], []
        for block in self.blocks:
            x = torch.tanh(block(x))
            outputs.append(x.transpose(1, 2))
        return torch.stack([outputs[layer - 1] for layer in layers], dim=1), count


@pytest.mark.parametrize("tuned", [0, 1])
def test_an_encoder_that_stays_as_it_is_is_heard_once(
    recipe: Recipe,
    made_up: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tuned: int,
) -> None:
    monkeypatch.setattr("trainer.models.backbone.load_encoder", lambda _: _Ear())
    model = {
        "kind": "backbone",
        "layers": [1, 2],
        "combine": "concatenate",
        "pooling": "statistics",
        "dense": [8],
        "dropout": 0.0,
        "fine_tune": tuned,
    }
    changed = Recipe.model_validate(recipe.model_dump() | {"model": model, "frontend": {}})
    assert changed.shift_samples == 0
    data = prepare(changed, Places(made_up, tmp_path / "cache"))
    assert (data.features is None) == (tuned > 0)
    run = _run(changed, data, tmp_path / "run")
    first = run.train_epoch()
    again = _run(changed, replace(data, features=None), tmp_path / "again")
    second = again.train_epoch()
    for key in ("loss", "validation_loss"):
        assert first[key] == pytest.approx(second[key], rel=1e-3)
    rates = {group["lr"] / group["scale"] for group in run.optimiser.param_groups}
    assert rates == {first["learning_rate"]}
    assert [g["scale"] for g in run.optimiser.param_groups] == ([1.0, 0.1] if tuned else [1.0])
    run.save("best.pt")
    _, loaded, _ = load_trained(run.folder)
    segments = data.validation[0]
    with torch.inference_mode():
        said = loaded(torch.from_numpy(segments.audio), torch.from_numpy(segments.length))
    np.testing.assert_allclose(said.numpy(), run._say(*run._heard[0]), atol=1e-3)
