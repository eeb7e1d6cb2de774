"""Recipes of a compact encoder: the shipped one, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.compact.settings import SHIPPED_RECIPE, load_encoder_recipe
from trainer.errors import TrainerError

# Whom the figures of models are of; the encoder beneath them may not have heard them.
_TESTED = {"ravdess", "tess", "savee", "emodb"}


def test_the_shipped_recipe_hears_nobody_that_is_tested() -> None:
    recipe = load_encoder_recipe(SHIPPED_RECIPE)
    assert recipe.name == "serd-encoder"
    assert recipe.corpora
    assert not _TESTED & set(recipe.corpora)


def _write(path: Path, text: str) -> Path:
    path.write_text(f'name = "x"\n{text}', "utf-8")
    return path


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "mine.toml",
        "[corpora.emodb]\n[sizes]\nhiden = 3\nstride = 0\n[train]\nsteps = -1\n[teecher]\n",
    )
    with pytest.raises(TrainerError) as caught:
        load_encoder_recipe(path)
    said = str(caught.value)
    assert str(path) in said
    for problem in (
        "sizes.hiden: there is no such key; did you mean 'hidden'?",
        "sizes.stride: ",
        "train.steps: ",
        "teecher: there is no such key; did you mean 'teacher'?",
    ):
        assert problem in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "corpora: is missing"),
        ("[corpora]", "corpora: corpora names no corpus"),
        ("[corpora.emodbe]", r"corpora\.emodbe: there is no such corpus"),
        ('[corpora.emodb]\ntest = ["03"]', r"emodb\.test: an encoder hears all speakers"),
        ("[corpora.emodb]\n[teacher]\nlayers = [2, 1]", r"teacher\.layers: must rise"),
        ("[corpora.emodb]\n[teacher]\nlayers = []", r"teacher\.layers: "),
        (
            "[corpora.emodb]\n[teacher]\nlayers = [1]\n[sizes]\ndepth = 2",
            r"sizes\.depth is 2, and teacher\.layers end with 1",
        ),
    ],
)
def test_a_mistake_names_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        load_encoder_recipe(_write(tmp_path / "mine.toml", text))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"mine\.toml cannot be read"):
        load_encoder_recipe(tmp_path / "mine.toml")
    with pytest.raises(TrainerError, match=r"mine\.toml is not valid TOML"):
        load_encoder_recipe(_write(tmp_path / "mine.toml", "nonsense"))
