"""A recipe's corpora, read and labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainer.corpora import REGISTRY, get
from trainer.corpora.base import Ignored, Scan, Utterance, audio_files
from trainer.corpora.folder import scan_folder
from trainer.corpora.settings import CorpusSettings
from trainer.errors import TrainerError
from trainer.labels import LabelMap

FOLDER = "folder"


@dataclass(slots=True)
class Reading:
    """What a recipe's corpora gave.

    Attributes
    ----------
    utterances
        with classes of the label map for labels.
    absent
        optional corpora that are not there, and why.
    ignored
        for each corpus the files left out by its loader, counted by reason.
    unlabelled
        utterances by the labels that the map leaves out.
    """

    utterances: list[Utterance] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, Counter[str]] = field(default_factory=dict)
    unlabelled: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """Sentences on what is not in `utterances`, the gravest first."""
        said = [f"WITHOUT corpus {name}: {why}" for name, why in self.absent.items()]
        for name, reasons in self.ignored.items():
            # Reasons that name lines are all different: one of them, and their number.
            first, count = next(iter(reasons.items()))
            others = f"; and {sum(reasons.values()) - count} more" if len(reasons) > 1 else ""
            said.append(f"Corpus {name}: left out {count} ({first}){others}.")
        if self.unlabelled:
            labels = ", ".join(f"{label} {n}" for label, n in sorted(self.unlabelled.items()))
            said.append(f"Utterances of labels that the label map leaves out: {labels}.")
        return said


def check_sections(sections: Mapping[str, CorpusSettings]) -> None:
    """Refuse sections that name no corpus.

    Raises
    ------
    ValueError
        for pydantic validators: names the section's key.
    """
    if not sections:
        raise ValueError("corpora names no corpus")
    for name, settings in sections.items():
        loader = settings.loader or name
        if loader != FOLDER and loader not in REGISTRY:
            known = ", ".join((*REGISTRY, FOLDER))
            key = "" if settings.loader is None else ".loader"
            raise ValueError(f"corpora.{name}{key}: there is no such corpus; there are {known}")


def scan_section(name: str, settings: CorpusSettings, root: Path) -> Scan:
    """Read the corpus of one section, below `root` unless it has a path of its own.

    Raises
    ------
    TrainerError
        the folder is missing or holds nothing that the loader can read.
    """
    loader = settings.loader or name
    folder = (settings.path or root / name).expanduser()
    if loader == FOLDER:
        if not folder.is_dir():
            raise TrainerError(f"corpora.{name}.path: there is no folder {folder}.")
        scan = scan_folder(name, folder, settings)
        wanted = "recording with a label"
    else:
        corpus = get(loader)
        if not folder.is_dir():
            raise TrainerError(
                f"Corpus {name} is not at {folder}. It comes from {corpus.source} "
                f"(licence: {corpus.licence}); unpack there {corpus.unpack}."
            )
        scan = corpus.scan(folder)
        wanted = f"audio file named as {corpus.title} names them"
    if not scan.utterances:
        why = f": {scan.ignored[0].path}: {scan.ignored[0].reason}" if scan.ignored else ""
        raise TrainerError(f"{folder} holds no {wanted}{why}.")
    kept = []
    for utterance in scan.utterances:
        if utterance.channel is None or utterance.channel in settings.channels:
            kept.append(replace(utterance, corpus=name))
        else:
            channels = " or ".join(settings.channels)
            scan.ignored.append(Ignored(utterance.path, f"{utterance.channel}, not {channels}"))
    if not kept:
        raise TrainerError(f"corpora.{name}.channels: {folder} holds no {settings.channels[0]}.")
    scan.utterances = kept
    return scan


def read_corpora(
    sections: Mapping[str, CorpusSettings],
    root: Path,
    labels: LabelMap,
    *,
    complete: bool = True,
) -> Reading:
    """Read every corpus of a recipe and give its utterances the map's classes.

    Parameters
    ----------
    sections
        the recipe's `[corpora.NAME]`.
    root
        the folder that holds a folder for each corpus.
    labels
        the recipe's label map.
    complete
        each class needs an utterance.

    Raises
    ------
    TrainerError
        a corpus that is not optional is missing, none is there, or the label map does not fit.
    """
    reading = Reading()
    found: list[Utterance] = []
    for name, settings in sections.items():
        if settings.optional:
            folder = (settings.path or root / name).expanduser()
            if next(audio_files(folder), None) is None:
                reading.absent[name] = f"{folder} holds no recording, and it is optional."
                continue
        scan = scan_section(name, settings, root)
        found.extend(scan.utterances)
        if scan.ignored:
            reading.ignored[name] = Counter(i.reason for i in scan.ignored)
    if not found:
        raise TrainerError(f"Not one of the corpora {', '.join(sections)} is in {root}.")
    reading.unlabelled = Counter(u.label for u in found if labels.class_of(u.label) is None)
    reading.utterances = labels.apply(found, complete=complete)
    return reading
