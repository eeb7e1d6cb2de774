"""The page of a corpus: what it holds and how it sounds, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import soundfile as sf

from trainer.corpora import REGISTRY, Corpus, Scan
from trainer.corpora.base import LABELS
from trainer.corpora.reading import scan_section
from trainer.corpora.settings import CorpusSettings
from trainer.errors import TrainerError
from trainer.pages.markup import Block, Figures, Notice, Page, Section, Table, Tiles
from trainer.pages.sounds import example_blocks, feature_blocks
from trainer.plots.counts import duration_chart, label_chart, speaker_chart
from trainer.plots.recordings import Recording, of_utterances


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus that has been read: its name, its folder, and the loader if it is a known one."""

    name: str
    folder: Path
    corpus: Corpus | None
    scan: Scan


def find_corpus(wanted: str, root: Path) -> Source:
    """A corpus by its name, from its folder below `root`, or by the path of any folder.

    Raises
    ------
    TrainerError
        neither a corpus nor a folder, or a folder with nothing to read.
    """
    from trainer.check import identify

    folder = Path(wanted).expanduser()
    if wanted in REGISTRY and not folder.is_dir():
        scan = scan_section(wanted, CorpusSettings(), root)
        return Source(wanted, root / wanted, REGISTRY[wanted], scan)
    if not folder.is_dir():
        known = ", ".join(REGISTRY)
        raise TrainerError(f"{wanted!r} is neither a folder nor one of the corpora {known}.")
    corpus = identify(folder)
    if corpus is not None:
        scan = scan_section(corpus.name, CorpusSettings(path=folder), root)
        return Source(corpus.name, folder, corpus, scan)
    name = folder.resolve().name
    settings = CorpusSettings(loader="folder", path=folder)
    return Source(name, folder, None, scan_section(name, settings, root))


def label_order(labels: set[str]) -> list[str]:
    """The usual labels in their usual order, then the others by name."""
    return [label for label in LABELS if label in labels] + sorted(labels - set(LABELS))


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    seconds: float
    sample_rate_hz: int


def read_headers(recordings: Iterable[Recording]) -> dict[Path, Header]:
    """Headers by path; files that cannot be read are left out."""
    found = {}
    for recording in recordings:
        try:
            info = sf.info(recording.path)
        except (sf.SoundFileError, OSError):
            continue
        found[recording.path] = Header(float(info.duration), int(info.samplerate))
    return found


def corpus_page(source: Source, cache: Path | None, progress: bool = False) -> Page:
    """Everything of a corpus, as data."""
    utterances = source.scan.utterances
    recordings = of_utterances(utterances)
    labels = label_order({r.label for r in recordings})
    known = all(u.speaker_known for u in utterances)
    headers = read_headers(recordings)
    seconds = {path: header.seconds for path, header in headers.items()}
    rates = Counter(header.sample_rate_hz for header in headers.values())
    languages = ", ".join(sorted({r.language for r in recordings}))
    speakers = {r.speaker for r in recordings}
    corpus = source.corpus
    tiles = [
        ("utterances", f"{len(recordings):,}".replace(",", " "), ""),
        ("speakers", str(len(speakers)) if known else "–", "" if known else "not known"),
        ("hours", f"{sum(seconds.values()) / 3600:.2f}", f"{len(seconds)} files with a header"),
        ("labels", str(len(labels)), ""),
        ("language", languages or "–", ""),
    ]
    facts: list[Block] = [Tiles(tiles), _facts(source, rates)]
    contents: list[Block] = [
        Figures(
            [
                label_chart(recordings, labels),
                *([duration_chart(recordings, seconds, labels)] if seconds else []),
                *([speaker_chart(recordings, labels)] if known else []),
            ]
        )
    ]
    if not known:
        contents.append(
            Notice(
                "Who speaks is not known: no split of this corpus can keep speakers apart, and "
                "figures from one would be speaker-dependent.",
                "warning",
            )
        )
    unread = len(recordings) - len(seconds)
    if unread:
        contents.append(
            Notice(f"{unread} files cannot be read; `serd-trainer check` names them.", "warning")
        )
    left_out = Counter(ignored.reason for ignored in source.scan.ignored)
    if left_out:
        rows = [(reason, str(count)) for reason, count in left_out.most_common(30)]
        contents.append(Table(("left out, because", "files"), rows))
    return Page(
        title=source.name,
        kicker="Corpus",
        lead=corpus.title if corpus is not None else str(source.folder),
        sections=[
            Section("overview", "Overview", facts),
            Section("contents", "Contents", contents),
            Section("examples", "Examples", example_blocks(recordings, labels)),
            Section(
                "features",
                "Features by emotion",
                feature_blocks(recordings, labels, cache, progress),
            ),
        ],
    )


def _facts(source: Source, rates: Counter[int]) -> Table:
    rows = [("folder", str(source.folder))]
    if source.corpus is not None:
        rows += [("licence", source.corpus.licence), ("from", source.corpus.source)]
    if rates:
        rows.append(("sample rates", ", ".join(f"{n} files at {hz} Hz" for hz, n in rates.items())))
    return Table(("", ""), rows, words=2)
