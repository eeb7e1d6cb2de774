"""CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset (Cao et al., 2014).

Names are `actor_sentence_EMOTION_level`, as in `1001_DFA_ANG_XX`. Sexes come from
`VideoDemographics.csv` where that file lies in the folder or in the one above it.
"""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path

from trainer.corpora.base import Corpus, Scan, Sex, Utterance, not_named, scan_names

_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", re.IGNORECASE)
_EMOTIONS = {
    "NEU": "neutral",
    "HAP": "happy",
    "SAD": "sad",
    "ANG": "angry",
    "FEA": "fearful",
    "DIS": "disgust",
}
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high"}
_SEXES: dict[str, Sex] = {"Female": "female", "Male": "male"}
_DEMOGRAPHICS = "VideoDemographics.csv"


def _sexes(folder: Path) -> dict[str, Sex]:
    candidates = [*sorted(folder.rglob(_DEMOGRAPHICS)), folder.parent / _DEMOGRAPHICS]
    for path in candidates:
        if path.is_file():
            with path.open(encoding="utf-8-sig", newline="") as file:
                sexes: dict[str, Sex] = {}
                for row in csv.DictReader(file):
                    actor, sex = (row.get("ActorID") or "").strip(), row.get("Sex")
                    if sex in _SEXES:
                        sexes[actor] = _SEXES[sex]
                return sexes
    return {}


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
        statement=sentence,
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, partial(_parse, sexes=_sexes(folder)))


CORPUS = Corpus(
    name="cremad",
    title="CREMA-D, Crowd-sourced Emotional Multimodal Actors Dataset",
    language="en",
    licence="ODbL-1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    scan=_scan,
)
