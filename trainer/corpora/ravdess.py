"""RAVDESS: the Ryerson Audio-Visual Database of Emotional Speech and Song (Livingstone, 2018).

Names are `modality-channel-emotion-intensity-statement-repetition-actor`, two digits each.
Speech (channel 01) and song (02) are read, files without sound (modality 02) left out. Actors
with odd numbers are male.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from trainer.corpora.base import (
    LABELS,
    Channel,
    Corpus,
    Inventory,
    Scan,
    Utterance,
    not_named,
    scan_names,
)

_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_EMOTIONS = {f"{code:02d}": label for code, label in enumerate(LABELS[:8], start=1)}
_CHANNELS: dict[str, Channel] = {"01": "speech", "02": "song"}
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
    if channel not in _CHANNELS:
        return f"unknown channel code {channel}"
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
        channel=_CHANNELS[channel],
    )


def _key(utterance: Utterance) -> str:
    # The modality (sound alone, or with the picture) makes no other recording.
    return utterance.path.stem[3:]


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse, _key)


def _inventory(folder: Path, utterances: Sequence[Utterance]) -> Inventory:
    # Song is an archive of its own, which need not be there; actor 18 sang nothing, and
    # disgust and surprise were not sung.
    channels = {"speech"} | {u.channel for u in utterances}
    speakers: dict[str, frozenset[str] | int | None] = {}
    for actor in (f"{n:02d}" for n in range(1, 25)):
        keys = set()
        for channel, emotion, intensity in product(_CHANNELS, _EMOTIONS, _INTENSITIES):
            sung = channel == "02"
            if _CHANNELS[channel] not in channels or (sung and (actor == "18" or emotion > "06")):
                continue
            if emotion == "01" and intensity == "02":
                continue
            for statement, repetition in product(_STATEMENTS, ("01", "02")):
                keys.add(f"{channel}-{emotion}-{intensity}-{statement}-{repetition}-{actor}")
        speakers[actor] = frozenset(keys)
    return Inventory(sum(len(k) for k in speakers.values() if isinstance(k, frozenset)), speakers)


CORPUS = Corpus(
    name="ravdess",
    title="RAVDESS, Ryerson Audio-Visual Database of Emotional Speech and Song",
    language="en",
    licence="CC-BY-NC-SA-4.0",
    source="https://zenodo.org/records/1188976",
    size="1440 files of speech (208 MB zipped) and 1012 of song (226 MB), 24 actors",
    unpack=(
        "Audio_Speech_Actors_01-24.zip, and Audio_Song_Actors_01-24.zip if song is wanted "
        '(channels = ["speech", "song"] in the recipe)'
    ),
    scan=_scan,
    inventory=_inventory,
    key=_key,
)
