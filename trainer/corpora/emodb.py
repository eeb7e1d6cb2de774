"""EMO-DB: Berlin Database of Emotional Speech (Burkhardt et al., 2005).

Names are `03a01Wa`: speaker, text, emotion by its German initial, version. Boredom (L,
Langeweile) is none of the eight labels and is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.base import Corpus, Scan, Sex, Utterance, not_named, scan_names

_NAME = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])([a-z])?")
_EMOTIONS = {
    "N": "neutral",
    "F": "happy",
    "T": "sad",
    "W": "angry",
    "A": "fearful",
    "E": "disgust",
}
_SEXES: dict[str, Sex] = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}


def _parse(path: Path) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("03a01Wa")
    speaker, text, emotion, _ = match.groups()
    if emotion == "L":
        return "boredom has no place among the eight labels"
    return Utterance(
        path=path,
        corpus="emodb",
        speaker=speaker,
        label=_EMOTIONS[emotion],
        language="de",
        sex=_SEXES.get(speaker),
        statement=text,
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse)


CORPUS = Corpus(
    name="emodb",
    title="EMO-DB, Berlin Database of Emotional Speech",
    language="de",
    licence="free to use",
    source="http://emodb.bilderbar.info/",
    scan=_scan,
)
