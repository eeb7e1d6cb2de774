"""EMOVO: Italian emotional speech (Costantini et al., 2014), six actors.

Names are `sor-f1-l1`: emotion, speaker, sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trainer.corpora.base import Corpus, Inventory, Scan, Utterance, not_named, scan_names

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
_SPEAKERS = ("f1", "f2", "f3", "m1", "m2", "m3")
_SENTENCES = (
    *("b1", "b2", "b3"),
    *("l1", "l2", "l3", "l4"),
    *("n1", "n2", "n3", "n4", "n5"),
    *("d1", "d2"),
)


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


def _inventory(folder: Path, utterances: Sequence[Utterance]) -> Inventory:
    speakers = {
        speaker: frozenset(f"{e}-{speaker}-{s}" for e in _EMOTIONS for s in _SENTENCES)
        for speaker in _SPEAKERS
    }
    return Inventory(sum(len(keys) for keys in speakers.values()), speakers)


CORPUS = Corpus(
    name="emovo",
    title="EMOVO, Italian emotional speech",
    language="it",
    licence="free for research",
    source="http://voice.fub.it/activities/corpora/emovo/index.html",
    size="588 files of 6 actors, about 350 MB",
    unpack="emovo.zip (the folders f1 to m3)",
    scan=_scan,
    inventory=_inventory,
)
