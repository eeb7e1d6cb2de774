"""CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset (Cao et al., 2014).

Names are `actor_sentence_EMOTION_level`, as in `1001_DFA_ANG_XX`. Sexes come from
`VideoDemographics.csv` where that file lies in the folder or in the one above it, and from the
same table, as published, where it does not.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from trainer.corpora.base import (
    Corpus,
    Inventory,
    Scan,
    Sex,
    Utterance,
    not_named,
    scan_names,
)

_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", re.IGNORECASE)
_EMOTIONS = {
    "NEU": "neutral",
    "HAP": "happy",
    "SAD": "sad",
    "ANG": "angry",
    "FEA": "fearful",
    "DIS": "disgust",
}
_STATEMENTS = {
    "IEO": "it's eleven o'clock",
    "TIE": "that is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "the airplane is almost full",
    "MTI": "maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "the surface is slick",
    "WSI": "we'll stop in a couple of minutes",
}
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high"}
_SEXES: dict[str, Sex] = {"Female": "female", "Male": "male"}
_DEMOGRAPHICS = "VideoDemographics.csv"
_LIST = "SentenceFilenames.csv"
_ACTORS = tuple(str(number) for number in range(1001, 1092))
_WOMEN = frozenset(
    str(1000 + number)
    for number in (
        *(2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 18, 20, 21, 24, 25, 28, 29, 30, 37, 43, 46, 47, 49),
        *(52, 53, 54, 55, 56, 58, 60, 61, 63, 72, 73, 74, 75, 76, 78, 79, 82, 84, 89, 91),
    )
)


def _sexes(folder: Path) -> dict[str, Sex]:
    published: dict[str, Sex] = {a: "female" if a in _WOMEN else "male" for a in _ACTORS}
    candidates = [*sorted(folder.rglob(_DEMOGRAPHICS)), folder.parent / _DEMOGRAPHICS]
    for path in candidates:
        if path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                for row in csv.DictReader(file):
                    actor, sex = (row.get("ActorID") or "").strip(), row.get("Sex")
                    if sex in _SEXES:
                        published[actor] = _SEXES[sex]
            break
    return published


def _parse(path: Path, sexes: dict[str, Sex]) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("1001_DFA_ANG_XX")
    actor, sentence, emotion, level = (part.upper() for part in match.groups())
    if emotion not in _EMOTIONS:
        return f"unknown emotion code {emotion}"
    return Utterance(
        path=path,
        corpus="cremad",
        speaker=actor,
        label=_EMOTIONS[emotion],
        language="en",
        sex=sexes.get(actor),
        intensity=_LEVELS.get(level),
        statement=_STATEMENTS.get(sentence, sentence),
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, partial(_parse, sexes=_sexes(folder)))


def _inventory(folder: Path, utterances: Sequence[Utterance]) -> Inventory:
    # 20 of 91 x 82 were never published; which, only the corpus's own list says.
    speakers: dict[str, frozenset[str] | int | None] = dict.fromkeys(_ACTORS)
    for path in [*sorted(folder.rglob(_LIST)), folder.parent / _LIST]:
        if path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                names = [(row.get("Filename") or "").lower() for row in csv.DictReader(file)]
            for actor in _ACTORS:
                speakers[actor] = frozenset(n for n in names if n.startswith(f"{actor}_")) or None
            break
    return Inventory(7442, speakers)


CORPUS = Corpus(
    name="cremad",
    title="CREMA-D, Crowd-sourced Emotional Multimodal Actors Dataset",
    language="en",
    licence="ODbL-1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    size="7442 files of 91 actors, about 600 MB",
    unpack=(
        "the folder AudioWAV (git clone with git-lfs; a zip of the repository holds pointers to "
        "the files, not the files), and VideoDemographics.csv and SentenceFilenames.csv"
    ),
    scan=_scan,
    inventory=_inventory,
)
