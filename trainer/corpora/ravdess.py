"""RAVDESS: the Ryerson Audio-Visual Database of Emotional Speech and Song (Livingstone, 2018).

Names are `modality-channel-emotion-intensity-statement-repetition-actor`, two digits each.
Speech (channel 01) is read; song (02) and files without sound (modality 02) are left out.
Actors with odd numbers are male.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.base import LABELS, Corpus, Scan, Utterance, not_named, scan_names

_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_EMOTIONS = {f"{code:02d}": label for code, label in enumerate(LABELS, start=1)}
_INTENSITIES = {"01": "normal", "02": "strong"}
_STATEMENTS = {
    "01": "kids are talking by the door",
    "02": "dogs are sitting by the door",
}


def _parse(path: Path) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("MM-CC-EE-II-SS-RR-AA")
    modality, channel, emotion, intensity, statement, _, actor = match.groups()
    if modality == "02":
        return "video without sound"
    if channel != "01":
        return "song, not speech"
    if emotion not in _EMOTIONS:
        return f"unknown emotion code {emotion}"
    return Utterance(
        path=path,
        corpus="ravdess",
        speaker=actor,
        label=_EMOTIONS[emotion],
        language="en",
        sex="male" if int(actor) % 2 else "female",
        intensity=_INTENSITIES.get(intensity),
        statement=_STATEMENTS.get(statement),
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse)


CORPUS = Corpus(
    name="ravdess",
    title="RAVDESS, Ryerson Audio-Visual Database of Emotional Speech and Song",
    language="en",
    licence="CC-BY-NC-SA-4.0",
    source="https://zenodo.org/records/1188976",
    scan=_scan,
)
