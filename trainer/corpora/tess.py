"""TESS: Toronto Emotional Speech Set (Pichora-Fuller and Dupuis, 2020), two women.

Names are `OAF_word_emotion`; one file of the published set says `OA` for `OAF`. `ps` is
pleasant surprise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trainer.corpora.base import Corpus, Inventory, Scan, Utterance, not_named, scan_names

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


def _key(utterance: Utterance) -> str:
    return utterance.path.stem.lower().partition("_")[2]


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse, _key)


def _inventory(folder: Path, utterances: Sequence[Utterance]) -> Inventory:
    # Two hundred words; a word that one speaker said in one emotion, both said in all.
    words = {u.statement for u in utterances}
    keys = frozenset(f"{word}_{emotion}" for word in words for emotion in _EMOTIONS)
    return Inventory(2800, {"OAF": keys, "YAF": keys})


CORPUS = Corpus(
    name="tess",
    title="TESS, Toronto Emotional Speech Set",
    language="en",
    licence="CC-BY-NC-ND-4.0",
    source="https://doi.org/10.5683/SP2/E8H2MF",
    size="2800 files of 2 women, about 280 MB",
    unpack="the 14 folders OAF_angry to YAF_sad, wherever they lie in the archive",
    scan=_scan,
    inventory=_inventory,
    key=_key,
)
