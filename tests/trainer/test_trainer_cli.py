"""The commands, from a made-up corpus to a model that serd loads; and a user's mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from click.testing import CliRunner, Result

from serd.inference.manifest import load_emotion_manifest, verify_file
from trainer.cli import EXIT_DATA, main


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def _places(made_up: Path, tmp_path: Path) -> list[str]:
    return ["--data", str(made_up), "--cache", str(tmp_path / "cache")]


def test_from_corpus_to_model(made_up: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    places, run = _places(made_up, tmp_path), tmp_path / "run"
    result = _call("train", tiny_recipe, "--out", run, *places)
    assert result.exit_code == 0, result.output
    assert "Best validation UAR" in result.output

    again = _call("train", tiny_recipe, "--out", run, *places)
    assert again.exit_code == EXIT_DATA
    assert "holds a run already" in again.output
    assert _call("train", tiny_recipe, "--out", run, "--resume", *places).exit_code == 0
    assert _call("train", tiny_recipe, "--out", run, "--fresh", *places).exit_code == 0

    early = _call("export", run, *places)
    assert early.exit_code == EXIT_DATA
    assert "evaluate the run first" in early.output
    result = _call("evaluate", run, *places)
    assert result.exit_code == 0, result.output
    assert "validation" in result.output
    assert "\ntest " not in result.output
    assert _call("export", run, *places).exit_code == EXIT_DATA
    result = _call("evaluate", run, "--test", *places)
    assert "\ntest " in result.output

    result = _call("export", run, "--out", tmp_path / "models", *places)
    assert result.exit_code == 0, result.output
    manifest = load_emotion_manifest(tmp_path / "models" / "tiny.json")
    verify_file(manifest)
    assert manifest.training.speakers.train == ("emodb/03",)


def test_corpora_says_what_is_there_and_where_the_rest_comes_from(made_up: Path) -> None:
    result = _call("corpora", "--data", made_up)
    assert result.exit_code == 0
    assert "27 utterances of 3 speakers" in result.output
    assert "9 left out: boredom" in result.output
    assert "https://zenodo.org/records/1188976" in result.output
    assert f"unpack it into {made_up / 'corpora' / 'ravdess'}" in result.output


def test_check_finds_each_fault_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "emodb"
    folder.mkdir()
    tone = 0.5 * np.sin(np.arange(16_000) / 7.0)
    sf.write(folder / "03a01Wa.wav", tone, 16_000)
    sf.write(folder / "03a02Wa.wav", tone, 16_000)
    sf.write(folder / "03a04Wa.wav", np.zeros(16_000), 16_000)
    sf.write(folder / "03a05Wa.wav", np.clip(tone * 20, -1, 1), 16_000)
    sf.write(folder / "03a07Wa.wav", tone[:1_000], 16_000)
    (folder / "03b01Wa.wav").write_bytes(b"no audio")
    sf.write(folder / "03b02La.wav", tone, 16_000)
    result = _call("check", folder)
    assert result.exit_code == EXIT_DATA
    for line in (
        f"03a02Wa.wav: the same recording as {folder / '03a01Wa.wav'}",
        "03a04Wa.wav: silent",
        "03a05Wa.wav: clipped",
        "03a07Wa.wav: only 0.06 s",
        "03b01Wa.wav: cannot be read",
        "03b02La.wav: left out, boredom",
        "6 utterances of 1 speakers",
    ):
        assert line in result.output
    assert f"{folder / '03a01Wa.wav'}: " not in result.output.replace("as " + str(folder), "")


def test_a_sound_corpus_passes(made_up: Path) -> None:
    assert _call("check", made_up / "corpora" / "emodb").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "nothing"], "There is no recipe 'nothing'"),
        (["evaluate", "nowhere"], "nowhere/best.pt does not exist"),
        (["export", "nowhere"], "nowhere/best.pt does not exist"),
        (["train", "serd-crnn", "--data", "nowhere"], "Corpus ravdess is not at"),
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


def test_check_wants_a_corpus_it_knows(tmp_path: Path) -> None:
    result = _call("check", tmp_path)
    assert result.exit_code == EXIT_DATA
    assert "No corpus is called" in result.output


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
    for command in ("corpora", "check", "train", "evaluate", "export"):
        assert command in done.stdout
