"""Recipes: what is wrong is said all at once, by key; several models in one file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from trainer.checkpoint import differences
from trainer.errors import TrainerError
from trainer.recipe import (
    RECIPES,
    Recipe,
    dump_recipes,
    load_recipe,
    load_recipes,
    parse_recipes,
)

HEAD = 'name = "x"\n[corpora.emodb]\nvalidation = ["03"]\n'


def _load(tmp_path: Path, text: str) -> dict[str, Recipe]:
    path = tmp_path / "bad.toml"
    path.write_text(text, "utf-8")
    return load_recipes(str(path))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid_and_survive_being_resolved(path: Path) -> None:
    recipes = load_recipes(path.stem)
    assert {recipe.name for recipe in recipes.values()} == {path.stem}
    assert parse_recipes(tomllib.loads(dump_recipes(recipes)), path) == recipes


def test_every_fault_is_listed_with_the_nearest_key(tmp_path: Path) -> None:
    text = """
name = "x"
colour = 1
seed = -1
labels = "ate"
[corpora.emodb]
validtion = ["03"]
[[protocols]]
kind = "k-fold"
fold = 5
[[protocols]]
kind = "k-fould"
[[protocols]]
name = "of-no-kind"
[models.a]
kind = "cnn1d"
chanels = [3]
frontend = {kind = "frames", featurs = ["mfcc"]}
train = {epocs = 3}
[models.b]
kind = "crn"
[train]
epochs = 0
learning_rte = 1
"""
    with pytest.raises(TrainerError) as caught:
        _load(tmp_path, text)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{tmp_path / 'bad.toml'}:"
    told = dict(line.strip().split(": ", 1) for line in lines)
    assert len(told) == len(lines)
    expected = {
        "colour": "there is no such key",
        "seed": "greater than or equal to 0",
        "labels": "there is no map 'ate'",
        "corpora.emodb.validtion": "did you mean 'validation'?",
        "protocols.0.fold": "did you mean 'folds'?",
        "protocols.1.kind": "there is no 'k-fould'; did you mean 'k-fold'?; there are held-out, ",
        "protocols.2.kind": "is missing",
        "models.a.chanels": "did you mean 'channels'?",
        "models.a.frontend.featurs": "did you mean 'features'?",
        "models.a.train.epocs": "did you mean 'epochs'?",
        "models.b.kind": "there is no 'crn'; did you mean 'crnn'?; there are ",
        "train.epochs": "greater than or equal to 1",
        "train.learning_rte": "did you mean 'learning_rate'?",
    }
    assert told.keys() == expected.keys()
    for key, text in expected.items():
        assert text in told[key], key


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name = "x"\n[corpora.iemocap]\nvalidation = ["1"]\n', "no such corpus"),
        ('name = "x"\n[corpora]\n', "names no corpus"),
        ("name = \n", "not valid TOML"),
        (f"protocols = []\n{HEAD}", "protocols: no protocol is named"),
        (
            HEAD + '[[protocols]]\nkind = "all"\nname = "a"\n[[protocols]]\nkind = "random"\n'
            'name = "A"\n',
            "two protocols are called 'a'",
        ),
        (HEAD + '[models."a/b"]\nkind = "crnn"\n', r"models.a/b: must be a table whose name"),
        (HEAD + "[distil]\n[train]\nmixup = 0.2\n", "distil and train.mixup exclude each other"),
        (HEAD + '[distil]\n[model]\nkind = "forest"\n', "distil needs a network"),
    ],
)
def test_faults_have_sentences(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(TrainerError, match=fault):
        _load(tmp_path, text)


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(TrainerError, match=r"no recipe 'nothing'.*serd-crnn"):
        load_recipe("nothing")


def test_models_side_by_side_share_what_they_do_not_say(tmp_path: Path) -> None:
    text = """
[frontend]
n_mels = 32
[train]
epochs = 7
steps = 3
[models.crnn]
[models.summed]
kind = "forest"
frontend = {kind = "frames", summary = ["mean"]}
[models.slow]
kind = "gru"
train = {learning_rate = 1e-4}
"""
    recipes = _load(tmp_path, HEAD + text)
    assert list(recipes) == ["crnn", "summed", "slow"]
    assert recipes["crnn"].model.kind == "crnn"
    assert recipes["summed"].frontend.kind == "frames"
    assert recipes["slow"].frontend == recipes["crnn"].frontend
    assert recipes["slow"].train == recipes["crnn"].train.model_copy(update={"learning_rate": 1e-4})
    assert differences(recipes["slow"], recipes["crnn"]) == ["model", "train.learning_rate"]
    with pytest.raises(TrainerError, match="several models: crnn, summed, slow"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_a_lone_model_is_called_by_its_kind(tmp_path: Path) -> None:
    assert list(_load(tmp_path, HEAD)) == ["crnn"]
    assert list(_load(tmp_path, HEAD + '[model]\nkind = "gru"\n')) == ["gru"]


def test_segments_are_shifted_only_where_that_is_cheap(tmp_path: Path) -> None:
    assert _load(tmp_path, HEAD)["crnn"].shift_samples == 3200
    frames = _load(tmp_path, HEAD + '[frontend]\nkind = "frames"\n')
    assert frames["crnn"].shift_samples == 0
    said = _load(tmp_path, HEAD + "[train]\nshift_samples = 160\n")
    assert said["crnn"].shift_samples == 160


def test_recipes_in_checkpoints_of_earlier_versions_are_read() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "old",
            "corpora": {"emodb": {"train": None, "validation": ["03"], "test": []}},
            "frontend": {"n_mels": 40, "normalise": "level"},
            "model": {"kind": "crnn", "hidden": 16},
            "train": {"epochs": 2, "bfloat16": True, "shift_samples": 3200},
            "distil": None,
        }
    )
    assert recipe.train.precision == "bf16"
    assert [protocol.kind for protocol in recipe.protocols] == ["held-out"]
    assert recipe.label_map.name == "eight"
