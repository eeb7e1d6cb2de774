"""EMOVO: Italian emotional speech (Costantini et al., 2014), six actors.

Names are `sor-f1-l1`: emotion, speaker, sentence.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.base import Corpus, Scan, Utterance, not_named, scan_names

_NAME = re.compile(r"([a-z]{3})-([fm]\d)-([a-z]\d)", re.IGNORECASE)
_EMOTIONS = {
    "neu": "neutral",
    "gio": "happy",
    "tri": "sad",
    "rab": "angry",
    "pau": "fearful",
    "dis": "disgust",
    "sor": "surprised",
}


def _parse(path: Path) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("sor-f1-l1")
    emotion, speaker, sentence = (part.lower() for part in match.groups())
    if emotion not in _EMOTIONS:
        return f"unknown emotion {emotion}"
    return Utterance(
        path=path,
        corpus="emovo",
        speaker=speaker,
        label=_EMOTIONS[emotion],
        language="it",
        sex="female" if speaker.startswith("f") else "male",
        statement=sentence,
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse)


CORPUS = Corpus(
    name="emovo",
    title="EMOVO, Italian emotional speech",
    language="it",
    licence="free for research",
    source="http://voice.fub.it/activities/corpora/emovo/index.html",
    scan=_scan,
)
