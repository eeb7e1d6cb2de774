"""Recipes: what is wrong is said all at once, by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import TrainerError
from trainer.recipe import RECIPES, load_recipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path.stem).name == path.stem


def test_every_fault_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "x"\ncolour = 1\n[corpora.emodb]\nvalidation = ["03"]\nspeakers = []\n'
        "[train]\nepochs = 0\n",
        "utf-8",
    )
    with pytest.raises(TrainerError) as caught:
        load_recipe(str(path))
    message = str(caught.value)
    assert str(path) in message
    for key in ("colour", "corpora.emodb.speakers", "train.epochs"):
        assert key in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name = "x"\n[corpora.iemocap]\nvalidation = ["1"]\n', "no such corpus"),
        ('name = "x"\n[corpora.emodb]\ntest = ["03"]\n', "no corpus names a validation speaker"),
        ('name = "x"\n[corpora]\n', "names no corpus"),
        ("name = \n", "not valid TOML"),
    ],
)
def test_faults_have_sentences(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(TrainerError, match=fault):
        load_recipe(str(path))


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(TrainerError, match=r"no recipe 'nothing'.*serd-crnn"):
        load_recipe("nothing")
