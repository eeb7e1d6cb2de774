"""Training of a compact encoder: it learns, goes on after a stop, and tells mistakes."""

from __future__ import annotations

import csv
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.compact.made_up_teacher import MakeRecipe
from trainer.backbones.load import load_encoder
from trainer.compact.settings import TrainSettings
from trainer.compact.training import (
    Learning,
    _like_length,
    learning_rate,
    lesson_loss,
    train_encoder,
)
from trainer.errors import TrainerError
from trainer.prepare import Places


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "encoder.pt", weights_only=True)
    weights: dict[str, torch.Tensor] = content["model"]
    return weights


def _log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path, precision: str
) -> None:
    train = {"steps": 60, "log_steps": 20, "learning_rate": 5e-3, "warm_up_steps": 5}
    recipe = make_recipe(train={**train, "precision": precision})
    path = train_encoder(recipe, everywhere, tmp_path)
    rows = _log(tmp_path)
    assert [row["step"] for row in rows] == ["20", "40", "60"]
    for column in ("loss", "layer_1", "layer_2", "layer_3"):
        assert float(rows[-1][column]) < 0.8 * float(rows[0][column])

    content = torch.load(path, weights_only=True)
    assert content["speakers"] == ["emodb/03", "emodb/08", "emodb/09"]
    assert content["recipe"]["name"] == "tiny"
    encoder = load_encoder(str(path))
    with torch.inference_mode():
        said, steps = encoder(torch.randn(2, 8_000), torch.tensor([8_000, 4_000]), (1, 3))
    assert said.shape == (2, 2, 13, 16)
    assert steps.tolist() == [13, 6]


def test_what_is_kept_is_the_mean_of_the_weights(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path
) -> None:
    train_encoder(
        make_recipe(train={"learning_rate": 1e-2, "warm_up_steps": 1}), everywhere, tmp_path
    )
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    kept = _weights(tmp_path)
    for name, value in last["average"].items():
        # The file holds halves.
        torch.testing.assert_close(kept[name].float(), value, atol=1e-3, rtol=1e-3)
    apart = last["model"]["conv1.weight"] - kept["conv1.weight"]
    assert apart.abs().max() > 0.01


def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(train={"steps": 13, "log_steps": 4})
    train_encoder(recipe, everywhere, tmp_path / "whole")
    plain = Learning.learn

    def killed(self: Learning) -> None:
        if self.step == 10:
            raise KeyboardInterrupt
        plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(Learning, "learn", killed)
        with pytest.raises(KeyboardInterrupt):
            train_encoder(recipe, everywhere, tmp_path / "halves")
    assert [row["step"] for row in _log(tmp_path / "halves")] == ["4", "8"]
    assert not (tmp_path / "halves" / "encoder.pt").exists()
    train_encoder(recipe, everywhere, tmp_path / "halves")
    one, two = _weights(tmp_path / "whole"), _weights(tmp_path / "halves")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert _log(tmp_path / "whole") == _log(tmp_path / "halves")
    assert [row["step"] for row in _log(tmp_path / "whole")] == ["4", "8", "12", "13"]


def test_a_finished_run_trains_no_more(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_encoder(make_recipe(), everywhere, tmp_path)
    before = _weights(tmp_path)

    def refused(self: Learning) -> None:
        raise AssertionError

    monkeypatch.setattr(Learning, "learn", refused)
    train_encoder(make_recipe(), everywhere, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in _weights(tmp_path).items())


def test_a_folder_of_another_run_is_refused(
    make_recipe: MakeRecipe, everywhere: Places, made_up: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train_encoder(make_recipe(), everywhere, out)
    kept = (out / "encoder.pt").read_bytes()
    with pytest.raises(TrainerError, match=r"last\.pt is of another recipe"):
        train_encoder(make_recipe(train={"steps": 7}), everywhere, out)
    fewer = tmp_path / "shared"
    shutil.copytree(made_up, fewer)
    next((fewer / "corpora" / "emodb").iterdir()).unlink()
    with pytest.raises(TrainerError, match=r"last\.pt was made of other recordings"):
        train_encoder(make_recipe(), Places(fewer, tmp_path / "cache"), out)
    assert (out / "encoder.pt").read_bytes() == kept
    (out / "last.pt").write_bytes(b"nothing")
    with pytest.raises(TrainerError, match=r"last\.pt is not a checkpoint"):
        train_encoder(make_recipe(), everywhere, out)


def test_a_loss_that_diverges_is_told(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path
) -> None:
    recipe = make_recipe(train={"learning_rate": 1e30, "warm_up_steps": 1})
    with pytest.raises(TrainerError, match=r"not finite at step \d.*train\.learning_rate"):
        train_encoder(recipe, everywhere, tmp_path)


def test_a_folder_that_cannot_be_made_is_named(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError, match="file/run cannot be made"):
        train_encoder(make_recipe(), everywhere, tmp_path / "file" / "run")


def test_the_rate_rises_and_falls() -> None:
    settings = TrainSettings(steps=100, learning_rate=2.0, warm_up_steps=10, final_rate=0.1)
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(rates[9])
    assert rates[9] == pytest.approx(2.0, rel=0.03)
    assert all(one > two for one, two in pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.2)


def test_the_loss_of_known_answers() -> None:
    told, target = torch.zeros(2, 1, 4, 3), torch.zeros(2, 1, 4, 3)
    steps = torch.tensor([4, 1])
    target[0], target[1] = 1.0, 3.0
    # Steps weigh alike, whichever row they are of: four errors of 1 and one of 9.
    loss, by_layer = lesson_loss(told, target, steps, 0.0)
    assert by_layer.tolist() == [pytest.approx(13 / 5)]
    assert float(loss) == pytest.approx(13 / 5)
    # Means differ by 1 and by 3, deviations do not; half of the statistics are means.
    loss, _ = lesson_loss(told, target, steps, 2.0)
    assert float(loss) == pytest.approx(13 / 5 + 2 * (1 + 9) / 2 / 2)


def test_what_lies_beyond_a_segment_is_not_learnt() -> None:
    generator = torch.Generator().manual_seed(0)
    told, target = (torch.randn(2, 3, 6, 4, generator=generator) for _ in range(2))
    steps = torch.tensor([6, 1])
    told.requires_grad_(True)
    loss, _ = lesson_loss(told, target, steps, 1.0)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert told.grad is not None
    assert told.grad.isfinite().all()
    assert told.grad[:, :, 0].abs().min() > 0
    assert not told.grad[1, :, 1:].any()
    target[1, :, 1:] = 100.0
    assert float(lesson_loss(told, target, steps, 1.0)[0].detach()) == pytest.approx(
        float(loss.detach())
    )


@given(
    st.lists(st.lists(st.integers(1, 300), min_size=5, max_size=5), min_size=1, max_size=8),
    st.integers(1, 12),
)
def test_every_segment_is_in_one_batch(frames: list[list[int]], size: int) -> None:
    counts = np.asarray(frames)
    batches = _like_length(counts, size)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(counts.size))
    assert all(len(batch) >= min(size, counts.size) for batch in batches)
    spans = [(counts.reshape(-1)[b].min(), counts.reshape(-1)[b].max()) for b in batches]
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
