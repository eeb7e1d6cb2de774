"""The recipes of the field's projects, cut down to seconds, from made-up corpora to a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner

from tests.trainer.made_up_corpora import plant_corpora
from trainer.cli import main
from trainer.experiment import load_record
from trainer.protocol_settings import is_speaker_dependent
from trainer.recipe import RECIPES, load_recipes
from trainer.schema import read_toml

PROJECTS = ("tess-three", "four-corpora", "tess-seven", "ravdess-many-features", "side-by-side")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("projects")
    plant_corpora(root)
    return root


def _tiny(name: str) -> dict[str, Any]:
    values = read_toml(RECIPES / f"{name}.toml")
    values["train"] |= {"epochs": 1, "steps": 1, "batch_size": 8}
    values["augment"]["copies"] = min(values["augment"]["copies"], 2)
    for protocol in values["protocols"]:
        if protocol["kind"] == "k-fold":
            protocol["folds"] = 3
    for table in values.get("models", {"": values.get("model")}).values():
        if table["kind"] == "forest":
            table["trees"] = 3
        if table["kind"] == "svm":
            table["folds"] = 2
        if "hidden" in table:
            table["hidden"] = 8
        if "channels" in table:
            table["channels"] = [8, 8]
    return values


@pytest.mark.parametrize("name", PROJECTS)
def test_their_protocol_comes_first_and_ours_second(name: str) -> None:
    for recipe in load_recipes(name).values():
        assert recipe.name == name
        first, *others = recipe.protocols
        assert is_speaker_dependent(first)
        assert others
        assert not any(is_speaker_dependent(protocol) for protocol in others)


@pytest.mark.parametrize("name", PROJECTS)
def test_a_tiny_version_runs_to_its_report(name: str, corpora: Path, tmp_path: Path) -> None:
    path, run = tmp_path / f"{name}.toml", tmp_path / "run"
    values = _tiny(name)
    path.write_text(tomli_w.dumps(values), "utf-8")
    places = ("--out", str(run), "--data", str(corpora), "--cache", str(tmp_path / "cache"))
    theirs, ours = (protocol["name"] for protocol in values["protocols"])
    result = CliRunner().invoke(main, ["train", str(path), "--protocol", theirs, *places])
    assert result.exit_code == 0, result.output
    if name == "four-corpora":
        assert "WITHOUT corpus cremad" in result.output
    fold = next(entry.fold for entry in load_record(run).runs if entry.protocol == ours)
    only = ("--protocol", ours, "--fold", fold)
    result = CliRunner().invoke(main, ["train", str(path), "--resume", *only, *places])
    assert result.exit_code == 0, result.output
    done = {(e.protocol, e.model) for e in load_record(run).runs if e.state == "done"}
    models = values["models"] if "models" in values else {values["model"]["kind"]}
    assert done == {(protocol, model) for protocol in (theirs, ours) for model in models}
    assert json.loads((run / "report.json").read_text("utf-8"))
