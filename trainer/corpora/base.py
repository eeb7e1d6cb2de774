"""What every corpus loader shares: the utterance record, the label set, the walk over files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trainer.errors import TrainerError

LABELS: tuple[str, ...] = (
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgust",
    "surprised",
    "bored",
)
"""The canonical labels. What a model tells apart is its recipe's `trainer.labels.LabelMap`."""

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf"}
)

LOSSY_SUFFIXES = frozenset({".mp3", ".ogg", ".opus"})

Sex = Literal["female", "male"]
Channel = Literal["speech", "song"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled recording.

    `speaker` is unique within its corpus only; `speaker_id` is unique across corpora. Where
    nothing says who speaks, `speaker_known` is false, `speaker` the file's own name, and any
    protocol that keeps speakers apart must refuse (`require_speakers`).
    """

    path: Path
    corpus: str
    speaker: str
    label: str
    language: str
    sex: Sex | None = None
    intensity: str | None = None
    statement: str | None = None
    channel: Channel | None = None
    speaker_known: bool = True

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
class Inventory:
    """What a corpus holds when nothing is missing.

    Attributes
    ----------
    total
        utterances, or None where that is not known.
    speakers
        for each speaker the keys (`Corpus.key`) of all utterances, or their number, or None
        where neither is known.
    """

    total: int | None
    speakers: Mapping[str, frozenset[str] | int | None]


def stem(utterance: Utterance) -> str:
    """The file's name without its ending, in lower case."""
    return utterance.path.stem.lower()


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus: where it comes from, and how its folder is read.

    `scan` takes the corpus's folder, in any of its published layouts, and never raises for a
    single bad file: what it cannot use is in `Scan.ignored` with the reason. `inventory` takes
    the folder and what was found there. `key` names an utterance among its speaker's, whatever
    the layout.
    """

    name: str
    title: str
    language: str
    licence: str
    source: str
    size: str
    unpack: str
    scan: Callable[[Path], Scan]
    inventory: Callable[[Path, Sequence[Utterance]], Inventory]
    key: Callable[[Utterance], str] = stem


def audio_files(folder: Path) -> Iterator[Path]:
    """Audio files under `folder`, nested to any depth, sorted by path."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in AUDIO_SUFFIXES and not hidden and path.is_file():
            yield path


def scan_names(
    folder: Path,
    parse: Callable[[Path], Utterance | str],
    key: Callable[[Utterance], str] = stem,
) -> Scan:
    """Read every audio file's name with `parse`, which returns an utterance or why there is none.

    Published archives often hold a whole corpus twice, once more inside a folder of its own or
    in another format: of files with the same speaker and `key` one is kept, a lossless one
    where there is one, and the others are ignored.
    """
    scan = Scan()
    seen: set[tuple[str, str]] = set()
    files = list(audio_files(folder))
    for path in sorted(files, key=lambda p: p.suffix.lower() in LOSSY_SUFFIXES):
        found = parse(path)
        if isinstance(found, str):
            scan.ignored.append(Ignored(path, found))
        elif (found.speaker, key(found)) in seen:
            scan.ignored.append(Ignored(path, "a second copy of a file already read"))
        else:
            seen.add((found.speaker, key(found)))
            scan.utterances.append(found)
    scan.utterances.sort(key=lambda u: u.path)
    scan.ignored.sort(key=lambda i: i.path)
    return scan


def not_named(pattern: str) -> str:
    """The reason given for a file whose name is not of the corpus's form."""
    return f"the name is not of the form {pattern}"


def require_speakers(utterances: Iterable[Utterance], purpose: str) -> None:
    """Refuse utterances of unknown speakers where `purpose` keeps speakers apart.

    Raises
    ------
    TrainerError
        names the purpose, the corpus and a file.
    """
    for utterance in utterances:
        if not utterance.speaker_known:
            raise TrainerError(
                f"{purpose} keeps speakers apart, and nothing says who speaks in "
                f"{utterance.path} of corpus {utterance.corpus}: name the speakers (a column "
                'or a pattern), or use the protocol of kind "random".'
            )
