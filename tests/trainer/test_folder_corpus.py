"""Folders of the user's own, by table, by directories, by pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainer.corpora import Scan
from trainer.corpora.base import require_speakers
from trainer.corpora.reading import scan_section
from trainer.corpora.settings import CorpusSettings
from trainer.errors import TrainerError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _scan(folder: Path, **settings: Any) -> Scan:
    return scan_section("mine", CorpusSettings(loader="folder", path=folder, **settings), folder)


def _table(folder: Path, text: str, name: str = "list.csv") -> str:
    (folder / name).write_text(text, "utf-8")
    return name


def test_a_table_with_guessed_columns(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav", "sub/b.flac")
    table = _table(
        tmp_path,
        "File Name;Emotion;Actor;Gender;Sentence\r\na.wav;Anger;x1;F;hello\r\n"
        "sub\\b;Joy;x2;male;\r\n",
    )
    first, second = _scan(tmp_path, csv=table, language="fr").utterances
    assert (first.label, first.speaker, first.sex, first.statement) == (
        "angry",
        "x1",
        "female",
        "hello",
    )
    assert (first.corpus, first.language, first.speaker_known) == ("mine", "fr", True)
    assert (second.path, second.label, second.sex) == (
        tmp_path / "sub" / "b.flac",
        "happy",
        "male",
    )
    assert second.statement is None


def test_named_columns_and_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "1.wav", "2.wav", "3.wav")
    table = _table(
        tmp_path,
        "n\tmood\tclass\n1.wav\tVery-Cross\tx\n2.wav\tcurious\ty\n3.wav\tjunk\tz\n",
        "t.tsv",
    )
    scan = _scan(
        tmp_path,
        csv=table,
        columns={"path": "n", "label": "mood"},
        labels={"very cross": "angry", "junk": ""},
    )
    assert [u.label for u in scan.utterances] == ["angry", "curious"]
    assert "line 4 of t.tsv: label 'junk' is left out" in scan.ignored[0].reason


def test_faults_of_rows_are_told_by_line_and_stop_nothing(tmp_path: Path) -> None:
    _touch(tmp_path, "a.wav", "b.wav")
    table = _table(
        tmp_path,
        'path,label,text\na.wav,sad,"two\nlines"\nmissing.wav,sad,\n\nb.wav,,\n,sad,\na.wav,sad,\n',
    )
    scan = _scan(tmp_path, csv=table)
    assert [u.path.name for u in scan.utterances] == ["a.wav"]
    assert [i.reason for i in scan.ignored] == [
        "line 4 of list.csv: there is no file 'missing.wav'",
        "line 6 of list.csv: it has no label",
        "line 7 of list.csv: it names no file",
        "line 8 of list.csv: the file is on line 3 already",
    ]


@pytest.mark.parametrize(
    ("text", "settings", "fault"),
    [
        ("", {}, "has no heading"),
        ("a,b\n1,2\n", {}, r"no column for path: name it, .*; there are a, b"),
        ("path,b\n1,2\n", {}, "no column for label"),
        ("path,label\n1,2\n", {"columns": {"label": "mood"}}, "no column 'mood' for label"),
        ("path,label\nx.wav,sad\n", {}, "line 2 of list.csv: there is no file 'x.wav'"),
    ],
)
def test_faults_of_tables(tmp_path: Path, text: str, settings: dict[str, Any], fault: str) -> None:
    table = _table(tmp_path, text)
    with pytest.raises(TrainerError, match=fault):
        _scan(tmp_path, csv=table, **settings)


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"path,label\na.wav,tr\xe9s\n")
    with pytest.raises(TrainerError, match=r"list\.csv, line 2: not UTF-8"):
        _scan(tmp_path, csv="list.csv")
    with pytest.raises(TrainerError, match=r"other\.csv cannot be read: No such file"):
        _scan(tmp_path, csv="other.csv")


def test_directories_for_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "Anger/anna/1.wav", "Anger/berta/take2/1.wav", "sadness/1.wav", "stray.wav")
    scan = _scan(tmp_path)
    assert [(u.label, u.speaker, u.speaker_known) for u in scan.utterances] == [
        ("angry", "anna", True),
        ("angry", "berta", True),
        ("sad", "sadness/1.wav", False),
    ]
    assert scan.ignored[0].reason == "it has no label"
    require_speakers(scan.utterances[:2], "k-fold")
    with pytest.raises(TrainerError, match=r"k-fold keeps speakers apart.*1\.wav of corpus mine"):
        require_speakers(scan.utterances, "k-fold")


def test_a_pattern_for_any_other_layout(tmp_path: Path) -> None:
    _touch(tmp_path, "anna/f-angry-1.wav", "carl/m-sad-2.wav", "carl/notes.wav")
    scan = _scan(tmp_path, pattern=r"^(?P<speaker>\w+)/(?P<sex>[fm])-(?P<label>[a-z]+)")
    assert [(u.speaker, u.sex, u.label) for u in scan.utterances] == [
        ("anna", "female", "angry"),
        ("carl", "male", "sad"),
    ]
    assert [i.path.name for i in scan.ignored] == ["notes.wav"]


def test_a_pattern_fills_what_a_table_leaves_open(tmp_path: Path) -> None:
    _touch(tmp_path, "anna_1.wav")
    table = _table(tmp_path, "path,label\nanna_1.wav,calm\n")
    scan = _scan(tmp_path, csv=table, pattern=r"(?P<speaker>[a-z]+)_")
    assert scan.utterances[0].speaker == "anna"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"corpora\.mine\.path: there is no folder"):
        _scan(tmp_path / "none")
    with pytest.raises(TrainerError, match="holds no recording with a label"):
        _scan(tmp_path)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"csv": "a.csv"}, 'csv needs loader = "folder"'),
        ({"loader": "folder", "columns": {"path": "x"}}, "columns needs csv"),
        ({"loader": "folder", "pattern": "("}, "not a regular expression"),
        ({"loader": "folder", "pattern": "x"}, "no named group"),
        ({"loader": "folder", "pattern": "(?P<mood>x)"}, "unknown group mood"),
        ({"channels": []}, "channels"),
        ({"loader": "folder", "columns": {"age": "x"}}, "columns"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CorpusSettings.model_validate(settings)
    assert fault in str(caught.value)
