"""TESS: Toronto Emotional Speech Set (Pichora-Fuller and Dupuis, 2020), two women.

Names are `OAF_word_emotion`; one file of the published set says `OA` for `OAF`. `ps` is
pleasant surprise.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.base import Corpus, Scan, Utterance, not_named, scan_names

_NAME = re.compile(r"(OAF|OA|YAF)_([a-z-]+)_([a-z]+)", re.IGNORECASE)
_EMOTIONS = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "fearful",
    "disgust": "disgust",
    "ps": "surprised",
}


def _parse(path: Path) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("OAF_word_emotion")
    speaker, word, emotion = match.group(1).upper(), match.group(2).lower(), match.group(3).lower()
    if emotion not in _EMOTIONS:
        return f"unknown emotion {emotion}"
    return Utterance(
        path=path,
        corpus="tess",
        speaker="OAF" if speaker == "OA" else speaker,
        label=_EMOTIONS[emotion],
        language="en",
        sex="female",
        statement=word,
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse)


CORPUS = Corpus(
    name="tess",
    title="TESS, Toronto Emotional Speech Set",
    language="en",
    licence="CC-BY-NC-ND-4.0",
    source="https://doi.org/10.5683/SP2/E8H2MF",
    scan=_scan,
)
