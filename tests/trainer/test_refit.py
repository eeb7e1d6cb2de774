"""The last layer fitted anew: what it finds, what it leaves alone, and what refuses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.batches import TrainingData
from trainer.checkpoint import BEST, read_checkpoint
from trainer.errors import TrainerError
from trainer.models import Crnn
from trainer.prepare import Places, prepare
from trainer.recipe import Recipe, RefitSettings, load_recipe, parse_recipes
from trainer.refit import embed, fit_linear, refit_best
from trainer.train import Run


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    recipe = load_recipe(str(tiny_recipe))
    return Recipe.model_validate(recipe.model_dump() | {"refit": {"copies": 2}})


@pytest.fixture
def data(recipe: Recipe, made_up: Path, tmp_path: Path) -> TrainingData:
    return prepare(recipe, Places(made_up, tmp_path / "cache"))


def _even(rows: int) -> torch.Tensor:
    return torch.full((rows,), 1 / rows)


def test_a_linear_layer_comes_to_its_best() -> None:
    torch.manual_seed(0)
    truth = torch.arange(300) % 3
    x = torch.randn(300, 5)
    x[torch.arange(300), truth] += 2.0
    matrix, bias = fit_linear(x, truth, _even(300), 3, 0.01, 0.0)

    def loss(matrix: torch.Tensor, bias: torch.Tensor) -> float:
        logits = torch.nn.functional.linear(x, matrix, bias)
        size = 0.01 * ((matrix * (x.std(dim=0) + 1e-3)) ** 2).sum() / 2
        return float(torch.nn.functional.cross_entropy(logits, truth) + size)

    best = loss(matrix, bias)
    for step in (-0.02, 0.02):
        for row in range(3):
            other = matrix.clone()
            other[row, row] += step
            assert loss(other, bias) > best
            other = bias.clone()
            other[row] += step
            assert loss(matrix, other) > best


def test_neither_scale_nor_place_of_the_embeddings_matters() -> None:
    torch.manual_seed(1)
    x, truth = torch.randn(200, 4), torch.arange(200) % 2
    x[:, 0] += truth
    stretched = x * torch.tensor([100.0, 1.0, 10.0, 2.0]) + torch.tensor([3.0, -50.0, 0.0, 1.0])
    said = [
        torch.nn.functional.linear(values, *fit_linear(values, truth, _even(200), 2, 0.01, 0.0))
        for values in (x, stretched)
    ]
    torch.testing.assert_close(said[0], said[1], atol=0.02, rtol=0.02)


def test_weight_counts_like_repetition() -> None:
    torch.manual_seed(2)
    x, truth = torch.randn(60, 3), torch.arange(60) % 2
    # Each row twice more, so that mean and deviation are alike.
    twice = torch.cat([x, x, x[truth == 1], x[truth == 1]])
    told = torch.cat([truth, truth, truth[truth == 1], truth[truth == 1]])
    plain = fit_linear(twice, told, _even(len(told)), 2, 0.0, 0.1)
    both, same = torch.cat([x, x]), torch.cat([truth, truth])
    weight = torch.where(same == 1, 2.0, 1.0)
    weighted = fit_linear(both, same, weight / weight.sum(), 2, 0.0, 0.1)
    torch.testing.assert_close(plain[0], weighted[0], atol=0.02, rtol=0.02)


def test_only_the_last_layer_changes(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    run = Run(recipe, data, folder)
    run.train()
    before = read_checkpoint(folder / BEST)["average"]
    refit_best(run)
    after = read_checkpoint(folder / BEST)["average"]
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"module.model.classify.weight", "module.model.classify.bias"}
    refit_best(run)
    again = read_checkpoint(folder / BEST)["average"]
    assert all(torch.equal(again[key], after[key]) for key in after)


def test_it_fits_whom_it_is_shown(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    run = Run(recipe, data, folder)
    run.train()
    model = run.average.module.model
    assert isinstance(model, Crnn)
    model.eval()
    labels = recipe.label_map.labels
    truth = np.asarray([labels.index(u.label) for u in data.utterances])

    def right() -> float:
        with torch.inference_mode():
            said = model.head(embed(model, data, 0)).argmax(dim=1).numpy()
        return float((said == truth).mean())

    with torch.no_grad():
        model.classify.weight.zero_()
    chance = right()
    refit_best(run)
    assert right() > chance + 0.2


def test_a_recipe_without_it_keeps_the_layer(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    plain = Recipe.model_validate(recipe.model_dump() | {"refit": None})
    folder = tmp_path / "run"
    folder.mkdir()
    run = Run(plain, data, folder)
    run.train()
    before = (folder / BEST).read_bytes()
    refit_best(run)
    assert (folder / BEST).read_bytes() == before


def test_other_networks_refuse_it(recipe: Recipe) -> None:
    values = recipe.model_dump(mode="json", exclude_none=True)
    values["model"] = {"kind": "cnn1d"}
    with pytest.raises(TrainerError, match=r"refit needs model\.kind 'crnn'.*'cnn1d'"):
        parse_recipes(values, Path("some.toml"))


def test_its_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="balance"):
        RefitSettings(balance=2.0)
