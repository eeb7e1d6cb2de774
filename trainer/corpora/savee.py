"""SAVEE: Surrey Audio-Visual Expressed Emotion (Haq and Jackson, 2009), four men.

Names are `DC_sa01`, or `sa01` in a folder `DC`; the letters are the emotion, the digits the
sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trainer.corpora.base import Corpus, Inventory, Scan, Utterance, not_named, scan_names

_NAME = re.compile(r"(?:(DC|JE|JK|KL)_)?(sa|su|[adfhn])(\d\d)", re.IGNORECASE)
_SPEAKERS = ("DC", "JE", "JK", "KL")
_EMOTIONS = {
    "n": "neutral",
    "h": "happy",
    "sa": "sad",
    "a": "angry",
    "f": "fearful",
    "d": "disgust",
    "su": "surprised",
}


def _parse(path: Path) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("DC_sa01")
    speaker = (match.group(1) or path.parent.name).upper()
    if speaker not in _SPEAKERS:
        return "neither the name nor the folder says the speaker (DC, JE, JK or KL)"
    emotion = match.group(2).lower()
    return Utterance(
        path=path,
        corpus="savee",
        speaker=speaker,
        label=_EMOTIONS[emotion],
        language="en",
        sex="male",
        statement=f"{emotion}{match.group(3)}",
    )


def _key(utterance: Utterance) -> str:
    return utterance.path.stem.lower().rpartition("_")[2]


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse, _key)


def _inventory(folder: Path, utterances: Sequence[Utterance]) -> Inventory:
    keys = frozenset(
        f"{emotion}{number:02d}"
        for emotion in _EMOTIONS
        for number in range(1, 31 if emotion == "n" else 16)
    )
    return Inventory(len(_SPEAKERS) * len(keys), dict.fromkeys(_SPEAKERS, keys))


CORPUS = Corpus(
    name="savee",
    title="SAVEE, Surrey Audio-Visual Expressed Emotion",
    language="en",
    licence="research use, registration at the source",
    source="http://kahlan.eps.surrey.ac.uk/savee/",
    size="480 files of 4 men, about 160 MB",
    unpack="the folder AudioData (or Kaggle's ALL)",
    scan=_scan,
    inventory=_inventory,
    key=_key,
)
