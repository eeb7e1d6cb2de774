"""`serd-trainer encoder train`: from a recipe to an encoder; and a user's mistakes."""

from __future__ import annotations

from pathlib import Path

import tomli_w
from click.testing import CliRunner, Result

from tests.trainer.compact.made_up_teacher import MakeRecipe
from trainer.backbones.compact import load_compact
from trainer.cli import main
from trainer.commands.common import EXIT_DATA
from trainer.prepare import Places


def _train(recipe: Path, out: Path, places: Places) -> Result:
    arguments = ["--recipe", recipe, "--out", out]
    arguments += ["--data", places.shared, "--cache", places.cache]
    return CliRunner().invoke(main, ["encoder", "train", *map(str, arguments)])


def test_from_recipe_to_encoder(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tomli_w.dumps(make_recipe.values()), "utf-8")
    result = _train(recipe, tmp_path / "run", everywhere)
    assert result.exit_code == 0, result.output
    path = tmp_path / "run" / "encoder.pt"
    assert str(path) in result.output
    assert load_compact(path).settings.hidden == 12


def test_mistakes_get_a_sentence(
    make_recipe: MakeRecipe, everywhere: Places, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tomli_w.dumps(make_recipe.values(sizes={"stryde": 3})), "utf-8")
    result = _train(recipe, tmp_path / "run", everywhere)
    assert result.exit_code == EXIT_DATA
    assert "sizes.stryde: there is no such key; did you mean 'stride'?" in result.output
    result = _train(tmp_path / "none.toml", tmp_path / "run", everywhere)
    assert result.exit_code == EXIT_DATA
    assert "none.toml cannot be read" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_the_shipped_recipe_asks_for_its_corpora(tmp_path: Path) -> None:
    arguments = ["encoder", "train", "--out", str(tmp_path / "run"), "--data", str(tmp_path)]
    result = CliRunner().invoke(main, [*arguments, "--cache", str(tmp_path)])
    assert result.exit_code == EXIT_DATA
    assert "Corpus nemo is not at" in result.output or "pip install" in result.output
