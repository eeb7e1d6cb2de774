"""Two processes under PyTorch's launcher end where one does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoint import read_checkpoint
from trainer.distributed import SharedBatchNorm, World, share_batch_norm
from trainer.errors import TrainerError
from trainer.prepare import Places, prepare
from trainer.recipe import load_recipe
from trainer.train import Run

# Dropout and SpecAugment draw anew on each rank.
STILL = "hidden = 8\ndropout = 0\nspec_time_masks = 0\nspec_mel_masks = 0\n"


@given(rows=st.integers(0, 200), size=st.integers(1, 9))
def test_shares_make_up_the_batch(rows: int, size: int) -> None:
    shares = [list(range(rows))[World(rank, size).share(rows)] for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_shared_batch_norm_has_the_names_and_values_of_its_own() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 3), torch.nn.BatchNorm1d(4))
    plain(torch.randn(5, 3, 9))
    shared = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 3), torch.nn.BatchNorm1d(4))
    shared.load_state_dict(plain.state_dict())
    share_batch_norm(shared)
    assert isinstance(shared[1], SharedBatchNorm)
    assert shared.state_dict().keys() == plain.state_dict().keys()
    audio = torch.randn(5, 3, 9)
    torch.testing.assert_close(shared.eval()(audio), plain.eval()(audio))


@pytest.mark.slow
def test_two_processes_train_what_one_does(
    made_up: Path, tiny_recipe: Path, tmp_path: Path, repository: Path
) -> None:
    text = tiny_recipe.read_text("utf-8").replace("hidden = 8\n", STILL)
    text = text.replace("epochs = 4", "epochs = 2").replace("batch_size = 4", "batch_size = 5")
    tiny_recipe.write_text(text, "utf-8")
    recipe = load_recipe(str(tiny_recipe))
    (tmp_path / "one").mkdir()
    one = Run(recipe, prepare(recipe, Places(made_up, tmp_path / "cache")), tmp_path / "one")
    one.train()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
            *("-m", "trainer", "train", str(tiny_recipe), "--out", str(tmp_path / "two")),
            *("--data", str(made_up), "--cache", str(tmp_path / "other-cache")),
        ],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "two" / "held-out" / "crnn" / "split"
    # one process alone writes and speaks
    assert done.stdout.count("1 runs done") == 1
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    lines = []
    for log in (tmp_path / "one" / "log.csv", folder / "log.csv"):
        with log.open(newline="") as file:
            lines.append(list(csv.DictReader(file)))
    for mine, theirs in zip(*lines, strict=True):
        for key in ("loss", "accuracy", "validation_loss", "learning_rate"):
            assert float(mine[key]) == pytest.approx(float(theirs[key]), abs=1e-4)
    first = read_checkpoint(tmp_path / "one" / "last.pt")
    second = read_checkpoint(folder / "last.pt")
    for part in ("student", "average"):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            if key.endswith("attention.2.bias"):
                continue  # softmax ignores it, and Adam follows the rounding of no gradient
            torch.testing.assert_close(value, second[part][key], rtol=0, atol=2e-4)


def test_a_mistake_is_told_once_by_all() -> None:
    def wrong() -> None:
        raise TrainerError("no")

    with pytest.raises(TrainerError, match="no"):
        World().only_leader(wrong)
    assert World().leader_first(lambda: 3) == 3
