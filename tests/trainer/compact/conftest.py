"""A teacher of made-up weights, and recipes that learn from it in a second."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.trainer.compact.made_up_teacher import MakeRecipe
    from trainer.prepare import Places

# Without the train extra there is nothing to collect here.
collect_ignore_glob = ["test_*.py"] if find_spec("torch") is None else []


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of three layers, 16 wide, as `transformers` saves it."""
    pytest.importorskip("transformers", reason="the backbone extra is not installed")
    from tests.trainer.compact.made_up_teacher import save_teacher

    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def make_recipe(teacher_folder: Path) -> MakeRecipe:
    """Recipes for the made-up corpus; tables of other settings go by their names."""
    from tests.trainer.compact.made_up_teacher import MakeRecipe

    return MakeRecipe(teacher_folder)


@pytest.fixture(scope="session")
def everywhere(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """The made-up corpus, and a cache that tests share."""
    from trainer.prepare import Places

    return Places(made_up, tmp_path_factory.mktemp("cache"))
