"""`corpora` and `check`: what is there, what is wrong, what is missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from click.testing import CliRunner, Result

from trainer.audio import to_int16
from trainer.check import check_folder, fault_of, identify
from trainer.cli import main
from trainer.commands.common import EXIT_DATA
from trainer.corpora import get

TONE = 0.5 * np.sin(np.arange(16_000) / 7.0)


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_corpora_says_what_is_there_and_where_the_rest_comes_from(made_up: Path) -> None:
    result = _call("corpora", "--data", made_up)
    assert result.exit_code == 0
    assert "36 of 535 utterances, 3 speakers" in result.output
    assert "bored 9" in result.output
    assert "https://zenodo.org/records/1188976" in result.output
    assert "Audio_Speech_Actors_01-24.zip" in result.output
    assert f"into    {made_up / 'corpora' / 'ravdess'}" in result.output


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """EMO-DB with one file of each fault."""
    folder = tmp_path / "emodb"
    folder.mkdir()
    sf.write(folder / "03a01Wa.wav", TONE, 16_000)
    sf.write(folder / "03a02Na.wav", TONE, 16_000)
    sf.write(folder / "03a04Wa.wav", np.zeros(16_000), 16_000)
    sf.write(folder / "03a05Wa.wav", np.clip(TONE * 20, -1, 1), 16_000)
    sf.write(folder / "03a07Wa.wav", TONE[:1_000], 16_000)
    (folder / "03b01Wa.wav").write_bytes(b"no audio")
    (folder / "03b02Wa.wav").touch()
    sf.write(folder / "03b03Wa.wav", TONE[:0], 16_000)
    (folder / "03b09Wa.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid ...")
    sf.write(folder / "03b10Wa.wav", TONE * 0.8, 44_100)
    sf.write(folder / "08a01Wa.wav", TONE * 0.7, 16_000)
    sf.write(folder / "notes.wav", TONE, 16_000)
    return folder


FAULTS = {
    "03a02Na.wav": ("duplicate", "03a01Wa.wav, which is labelled angry and this neutral"),
    "03a04Wa.wav": ("silent", "all samples are zero"),
    "03a05Wa.wav": ("clipped", "% of its samples"),
    "03a07Wa.wav": ("short", "only 0.06 s long"),
    "03b01Wa.wav": ("unreadable", "cannot be read"),
    "03b02Wa.wav": ("empty", "the file has no bytes"),
    "03b03Wa.wav": ("empty", "no samples"),
    "03b09Wa.wav": ("unreadable", "git lfs pull"),
    "03b10Wa.wav": ("sample-rate", "44100 Hz, where most of the corpus is at 16000 Hz"),
}


def test_check_finds_each_fault_and_goes_on(faulty: Path) -> None:
    result = _call("check", faulty)
    assert result.exit_code == EXIT_DATA
    lines = result.output.splitlines()
    for name, (kind, detail) in FAULTS.items():
        told = [line for line in lines if line.startswith(f"{faulty / name}: {kind}: ")]
        assert len(told) == 1
        assert detail in told[0]
    assert f"{faulty / 'notes.wav'}: left out: the name is not of the form" in result.output
    assert not any(line.startswith(f"{faulty / '03a01Wa.wav'}: ") for line in lines)
    assert "missing: speaker 03: 39 of 49" in result.output
    assert "missing: speaker 16: all 71" in result.output
    assert "emodb: 11 of 535 utterances, 2 speakers" in result.output


def test_check_as_json(faulty: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(faulty), "--json"])
    assert result.exit_code == EXIT_DATA
    (found,) = json.loads(result.stdout)
    kinds = {Path(f["path"]).name: f["kind"] for f in found["faults"]}
    assert kinds == {name: kind for name, (kind, _) in FAULTS.items()}
    assert (found["corpus"], found["utterances"], found["complete"]) == ("emodb", 11, 535)
    assert found["sample_rates_hz"] == {"16000": 7, "44100": 1}
    assert found["sound"] is False
    assert {"speaker": "08", "count": 57, "of": 58, "names": []} in found["missing"]
    assert [Path(i["path"]).name for i in found["ignored"]] == ["notes.wav"]


def test_a_sound_corpus_passes(made_up: Path) -> None:
    assert _call("check", made_up / "corpora" / "emodb").exit_code == 0
    several = _call("check", made_up / "corpora")
    assert several.exit_code == 0
    assert "emodb: 36 of 535" in several.output


def test_a_corpus_is_known_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "Audio_Speech_Actors_01-24"
    folder.mkdir()
    sf.write(folder / "03-01-06-02-01-01-17.wav", TONE, 16_000)
    assert identify(folder) is get("ravdess")
    result = _call("check", folder)
    assert result.exit_code == 0
    assert "missing: speaker 17: 59 of 60: 01-01-01-01-01-17, " in result.output
    assert _call("check", folder, "--corpus", "tess").exit_code == EXIT_DATA


def test_folders_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "angry").mkdir()
    sf.write(tmp_path / "angry" / "1.wav", TONE, 8_000)
    result = _call("check", tmp_path)
    assert result.exit_code == 0
    assert "speakers not known" in result.output
    assert "nothing above 4000 Hz" in result.output
    (tmp_path / "list.csv").write_text("path,label,speaker\nangry/1.wav,sad,anna\n", "utf-8")
    for table in ("list.csv", tmp_path / "list.csv"):
        result = _call("check", tmp_path, "--csv", table)
        assert result.exit_code == 0
        assert "1 speakers" in result.output
        assert "sad 1" in result.output


def test_an_empty_folder_is_a_sentence(tmp_path: Path) -> None:
    result = _call("check", tmp_path)
    assert result.exit_code == EXIT_DATA
    assert f"{tmp_path} holds no recording with a label" in result.output


def test_the_list_of_cremad_names_what_is_missing(tmp_path: Path) -> None:
    sf.write(tmp_path / "1001_IEO_NEU_XX.wav", TONE, 16_000)
    without = check_folder(tmp_path, get("cremad"))
    assert without.complete == 7442
    assert without.missing == []
    assert len(without.absent_speakers) == 90
    (tmp_path / "SentenceFilenames.csv").write_text(
        '"Stimulus_Number","Filename"\n1,"1001_IEO_NEU_XX"\n2,"1001_IEO_HAP_LO"\n', "utf-8"
    )
    (missing,) = check_folder(tmp_path, get("cremad")).missing
    assert str(missing) == "speaker 1001: 1 of 2: 1001_ieo_hap_lo"


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        (np.zeros(0), "empty"),
        (np.zeros(100), "silent"),
        (1e-4 * TONE, "silent"),
        (TONE[:3_999], "short"),
        (np.clip(3 * TONE, -1, 1), "clipped"),
        (TONE, None),
    ],
)
def test_fault_of(samples: Any, kind: str | None) -> None:
    fault = fault_of(to_int16(samples))
    assert (fault and fault[0]) == kind


def test_the_real_corpora_are_read_whole(shared: Path) -> None:
    found = check_folder(shared / "corpora" / "savee", get("savee"))
    assert (found.utterances, found.complete) == (360, 480)
    assert [str(m) for m in found.missing] == ["speaker KL: all 120"]
    assert Counter(f.kind for f in found.faults)["unreadable"] == 0
