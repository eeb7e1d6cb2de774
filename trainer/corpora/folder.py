"""Any folder of recordings: listed in a table, or sorted into a directory for each label.

A table is a CSV or TSV file with a heading. Its columns are named in the recipe, or guessed from
their headings (`_HEADINGS`). Paths in it are relative to the corpus's folder, or absolute, and
may lack the file's ending.

Without a table the first directory below the corpus's folder is the label, and in
`label/SPEAKER/…/file` the second one the speaker. A pattern, searched in each path relative to
the corpus's folder with `/` between its parts, says it in any other layout through its named
groups; it also fills what a table's columns leave open.

Labels are written in many ways: they are compared in lower case with `_` for spaces and dashes,
translated by the recipe's table, and then by the usual nouns (`anger`, `joy`, …). Others stay as
they are, for a label map of the recipe's own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.corpora.base import (
    AUDIO_SUFFIXES,
    Channel,
    Ignored,
    Scan,
    Sex,
    Utterance,
    audio_files,
)
from trainer.errors import TrainerError

if TYPE_CHECKING:
    from trainer.corpora.settings import Column, CorpusSettings

_HEADINGS: dict[Column, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "file_id"),
        *("audio", "audio_path", "wav", "recording", "clip"),
    ),
    "label": ("label", "emotion", "class", "category", "mood"),
    "speaker": ("speaker", "speaker_id", "actor", "actor_id", "subject", "client_id", "spk"),
    "sex": ("sex", "gender"),
    "language": ("language", "lang", "locale"),
    "intensity": ("intensity", "level"),
    "statement": ("statement", "sentence", "text", "transcript", "transcription"),
    "channel": ("channel", "vocal_channel"),
}
_SYNONYMS = {
    "neutrality": "neutral",
    "calmness": "calm",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "scared": "fearful",
    "disgusted": "disgust",
    "surprise": "surprised",
    "pleasant_surprise": "surprised",
    "ps": "surprised",
    "boredom": "bored",
}
_SEXES: dict[str, Sex] = {
    "f": "female",
    "female": "female",
    "woman": "female",
    "w": "female",
    "m": "male",
    "male": "male",
    "man": "male",
}
_CHANNELS: dict[str, Channel] = {"speech": "speech", "song": "song"}


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip().lower())


class _Reader:
    """Turns what a table's row, a path and a pattern say into utterances."""

    def __init__(self, name: str, folder: Path, settings: CorpusSettings) -> None:
        self._name = name
        self._folder = folder
        self._pattern = re.compile(settings.pattern) if settings.pattern else None
        self._labels = {_plain(key): value for key, value in settings.labels.items()}
        self._language = settings.language or "und"

    def groups(self, path: Path) -> dict[str, str] | None:
        """What the pattern finds in a path; None where there is one and it finds nothing."""
        if self._pattern is None:
            return {}
        match = self._pattern.search(self.relative(path))
        return None if match is None else {k: v for k, v in match.groupdict().items() if v}

    def relative(self, path: Path) -> str:
        """The path below the corpus's folder, or the whole of one that is not."""
        try:
            return path.relative_to(self._folder).as_posix()
        except ValueError:
            return path.as_posix()

    def utterance(self, path: Path, said: Mapping[str, str]) -> Utterance | str:
        """The utterance, or why there is none."""
        label = _plain(said.get("label", ""))
        if not label:
            return "it has no label"
        label = self._labels.get(label, _SYNONYMS.get(label, label))
        if not label:
            return f"label {said['label']!r} is left out by the recipe"
        speaker = said.get("speaker", "").strip()
        return Utterance(
            path=path,
            corpus=self._name,
            speaker=speaker or self.relative(path),
            label=label,
            language=said.get("language", "").strip() or self._language,
            sex=_SEXES.get(said.get("sex", "").strip().lower()),
            intensity=said.get("intensity", "").strip() or None,
            statement=said.get("statement", "").strip() or None,
            channel=_CHANNELS.get(said.get("channel", "").strip().lower()),
            speaker_known=bool(speaker),
        )


def _scan_tree(folder: Path, reader: _Reader) -> Scan:
    scan = Scan()
    for path in audio_files(folder):
        parts = path.relative_to(folder).parts[:-1]
        groups = reader.groups(path)
        if groups is None:
            scan.ignored.append(Ignored(path, "the pattern finds nothing in its path"))
            continue
        said = {"label": parts[0]} if parts else {}
        if len(parts) > 1:
            said["speaker"] = parts[1]
        # Where a pattern finds the label, the directories mean what the pattern says they mean.
        found = reader.utterance(path, groups if "label" in groups else said | groups)
        if isinstance(found, str):
            scan.ignored.append(Ignored(path, found))
        else:
            scan.utterances.append(found)
    return scan


def _rows(table: Path, delimiter: str | None) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with the number of the line on which they end."""
    try:
        text = table.read_text("utf-8-sig")
    except OSError as error:
        raise TrainerError(f"{table} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = table.read_bytes()[: error.start].count(b"\n") + 1
        raise TrainerError(f"{table}, line {line}: not UTF-8; save it as UTF-8.") from None
    heading = text.partition("\n")[0]
    if not heading.strip():
        raise TrainerError(f"{table} has no heading.")
    if delimiter is None:
        delimiter = max("\t,;", key=heading.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader)]
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, dict(zip(names, row, strict=False))
    except csv.Error as error:
        raise TrainerError(f"{table}, line {reader.line_num}: {error}.") from None


def _columns(
    table: Path, headings: list[str], named: Mapping[Column, str], needed: tuple[Column, ...]
) -> dict[Column, str]:
    columns: dict[Column, str] = {}
    plain = {_plain(heading): heading for heading in headings}
    for column, guesses in _HEADINGS.items():
        if column in named:
            if named[column] not in headings:
                raise TrainerError(
                    f"{table} has no column {named[column]!r} for {column}; "
                    f"it has {', '.join(headings)}."
                )
            columns[column] = named[column]
        else:
            found = next((plain[guess] for guess in guesses if guess in plain), None)
            if found is not None and found not in named.values():
                columns[column] = found
    for column in needed:
        if column not in columns:
            raise TrainerError(
                f"{table} has no column for {column}: name it, as in "
                f'columns = {{{column} = "…"}}; there are {", ".join(headings)}.'
            )
    return columns


def _find(folder: Path, written: str) -> Path | None:
    path = folder / Path(written.replace("\\", "/")).expanduser()
    if path.is_file():
        return path
    for suffix in sorted(AUDIO_SUFFIXES):
        for candidate in (path.with_name(path.name + suffix), path.with_suffix(suffix)):
            if candidate.is_file():
                return candidate
    return None


def _scan_table(folder: Path, table: Path, settings: CorpusSettings, reader: _Reader) -> Scan:
    scan = Scan()
    columns: dict[Column, str] = {}
    line_of: dict[Path, int] = {}
    patterned = settings.pattern is not None and "(?P<label>" in settings.pattern
    for line, row in _rows(table, settings.delimiter):
        if not columns:
            needed: tuple[Column, ...] = ("path",) if patterned else ("path", "label")
            columns = _columns(table, list(row), settings.columns, needed)
        said = {c: (row.get(heading) or "").strip() for c, heading in columns.items()}
        where = f"line {line} of {table.name}"
        written = said.pop("path")
        path = _find(folder, written) if written else None
        if path is None:
            reason = f"there is no file {written!r}" if written else "it names no file"
            scan.ignored.append(
                Ignored(folder / written if written else table, f"{where}: {reason}")
            )
            continue
        first = line_of.setdefault(path, line)
        if first != line:
            scan.ignored.append(Ignored(path, f"{where}: the file is on line {first} already"))
            continue
        known = {column: value for column, value in said.items() if value}
        found = reader.utterance(path, (reader.groups(path) or {}) | known)
        if isinstance(found, str):
            scan.ignored.append(Ignored(path, f"{where}: {found}"))
        else:
            scan.utterances.append(found)
    scan.utterances.sort(key=lambda u: u.path)
    return scan


def scan_folder(name: str, folder: Path, settings: CorpusSettings) -> Scan:
    """Read a folder as corpus `name`.

    Files and rows that cannot be used are in `Scan.ignored`, rows with their line's number.

    Raises
    ------
    TrainerError
        the table cannot be read, or lacks a column.
    """
    reader = _Reader(name, folder, settings)
    if settings.csv is None:
        return _scan_tree(folder, reader)
    return _scan_table(folder, folder / settings.csv, settings, reader)
