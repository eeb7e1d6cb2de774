"""What every corpus loader shares: the utterance record, the label set, the walk over files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

LABELS: tuple[str, ...] = (
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgust",
    "surprised",
)

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf"}
)

Sex = Literal["female", "male"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled recording.

    `speaker` is unique within its corpus only; `speaker_id` is unique across corpora.
    """

    path: Path
    corpus: str
    speaker: str
    label: str
    language: str
    sex: Sex | None = None
    intensity: str | None = None
    statement: str | None = None

    @property
    def speaker_id(self) -> str:
        """`corpus/speaker`."""
        return f"{self.corpus}/{self.speaker}"


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file that a loader left out, and why."""

    path: Path
    reason: str


@dataclass(slots=True)
class Scan:
    """What a loader found in a folder, utterances in the order of their paths."""

    utterances: list[Utterance] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus: where it comes from, and how its folder is read.

    `scan` takes the corpus's folder, in any of its published layouts, and never raises for a
    single bad file: what it cannot use is in `Scan.ignored` with the reason.
    """

    name: str
    title: str
    language: str
    licence: str
    source: str
    scan: Callable[[Path], Scan]


def audio_files(folder: Path) -> Iterator[Path]:
    """Audio files under `folder`, nested to any depth, sorted by path."""
    for path in sorted(folder.rglob("*")):
        hidden = path.name.startswith(".")
        if path.suffix.lower() in AUDIO_SUFFIXES and not hidden and path.is_file():
            yield path


def scan_names(folder: Path, parse: Callable[[Path], Utterance | str]) -> Scan:
    """Read every audio file's name with `parse`, which returns an utterance or why there is none.

    Published archives often hold a whole corpus twice, once more inside a folder of its own:
    the second file with the same speaker, stem and label is ignored as a duplicate.
    """
    scan = Scan()
    seen: set[tuple[str, str]] = set()
    for path in audio_files(folder):
        found = parse(path)
        if isinstance(found, str):
            scan.ignored.append(Ignored(path, found))
        elif (found.speaker, path.stem.lower()) in seen:
            scan.ignored.append(Ignored(path, "a second copy of a file already read"))
        else:
            seen.add((found.speaker, path.stem.lower()))
            scan.utterances.append(found)
    return scan


def not_named(pattern: str) -> str:
    """The reason given for a file whose name is not of the corpus's form."""
    return f"the name is not of the form {pattern}"
