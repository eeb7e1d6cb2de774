"""The commands, from a made-up corpus to a model that serd loads; and a user's mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serd.inference.manifest import load_emotion_manifest, verify_file
from trainer.cli import main
from trainer.commands.common import EXIT_DATA


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def _places(made_up: Path, tmp_path: Path) -> list[str]:
    return ["--data", str(made_up), "--cache", str(tmp_path / "cache")]


def test_from_corpus_to_model(made_up: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    places, run = _places(made_up, tmp_path), tmp_path / "run"
    result = _call("train", tiny_recipe, "--out", run, *places)
    assert result.exit_code == 0, result.output
    assert "[1/1] held-out/crnn/split (held-out speakers, speaker-independent)" in result.output
    assert "test UAR in %: clean " in result.output
    assert "1 runs done; all figures: serd-trainer evaluate" in result.output

    again = _call("train", tiny_recipe, "--out", run, *places)
    assert again.exit_code == EXIT_DATA
    assert "holds an experiment already" in again.output
    resumed = _call("train", tiny_recipe, "--out", run, "--resume", *places)
    assert resumed.exit_code == 0
    assert "[1/1]" not in resumed.output

    figures = _call("evaluate", run, "--again", *places)
    assert figures.exit_code == 0, figures.output
    assert "held-out speakers, speaker-independent" in figures.output

    result = _call("export", run, "--out", tmp_path / "models", "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    manifest = load_emotion_manifest(tmp_path / "models" / "tiny.json")
    verify_file(manifest)
    assert manifest.labels == ("neutral", "sad", "angry")
    assert manifest.training.speakers.train == ("emodb/03",)


def test_a_failed_fold_is_in_the_exit_code(
    made_up: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    text = tiny_recipe.read_text("utf-8").replace("[train]", "[train]\nlearning_rate = 1e30")
    tiny_recipe.write_text(text, "utf-8")
    result = _call("train", tiny_recipe, "--out", tmp_path / "run", *_places(made_up, tmp_path))
    assert result.exit_code == EXIT_DATA
    assert "held-out/crnn/split failed: The loss diverged in epoch" in result.output
    assert "0 runs done, 1 failed" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "nothing"], "There is no recipe 'nothing'"),
        (["train", "serd-crnn", "--data", "nowhere"], "Corpus ravdess is not at"),
        (["evaluate", "nowhere"], "nowhere/experiment.json does not exist"),
        (["evaluate", "nowhere", "--again"], "nowhere/recipe.toml cannot be read"),
        (["export", "nowhere"], "nowhere is not the folder of an experiment"),
    ],
)
def test_mistakes_get_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _call(*arguments)
    assert result.exit_code == EXIT_DATA
    assert sentence in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('labels = "three"\n', "Label map three: class 'positive'"),
        ('[[protocols]]\nkind = "k-fold"\nfolds = 7\n', "7 folds need at least 7 speakers"),
        ('[[protocols]]\nkind = "held-out"\ncorpora = ["emod"]\n', "no corpus 'emod'"),
    ],
)
def test_what_does_not_go_together_is_said_before_any_work(
    made_up: Path, tmp_path: Path, lines: str, sentence: str
) -> None:
    recipe = tmp_path / "odd.toml"
    labels = "" if lines.startswith("labels") else 'labels = {sad = "sad", angry = "angry"}\n'
    head, protocols = (lines, "") if lines.startswith("labels") else ("", lines)
    text = f'name = "odd"\n{head}{labels}[corpora.emodb]\nvalidation = ["03"]\n{protocols}'
    recipe.write_text(text, "utf-8")
    result = _call("train", recipe, "--out", tmp_path / "run", *_places(made_up, tmp_path))
    assert result.exit_code == EXIT_DATA
    assert sentence in result.output
    assert not (tmp_path / "run").exists()


def test_it_runs_as_a_module(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--help"],
        capture_output=True,
        text=True,
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0
    for command in ("corpora", "check", "train", "evaluate", "compare", "predict", "export"):
        assert command in done.stdout
