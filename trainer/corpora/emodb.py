"""EMO-DB: Berlin Database of Emotional Speech (Burkhardt et al., 2005).

Names are `03a01Wa`: speaker, text, emotion by its German initial, version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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

_NAME = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])([a-z])?")
_EMOTIONS = {
    "N": "neutral",
    "F": "happy",
    "T": "sad",
    "W": "angry",
    "A": "fearful",
    "E": "disgust",
    "L": "bored",
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
_STATEMENTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_UTTERANCES = {
    "03": 49,
    "08": 58,
    "09": 43,
    "10": 38,
    "11": 55,
    "12": 35,
    "13": 61,
    "14": 69,
    "15": 56,
    "16": 71,
}


def _parse(path: Path) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("03a01Wa")
    speaker, text, emotion, _ = match.groups()
    return Utterance(
        path=path,
        corpus="emodb",
        speaker=speaker,
        label=_EMOTIONS[emotion],
        language="de",
        sex=_SEXES.get(speaker),
        statement=_STATEMENTS.get(text, text),
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, _parse)


def _inventory(folder: Path, utterances: Sequence[Utterance]) -> Inventory:
    return Inventory(sum(_UTTERANCES.values()), _UTTERANCES)


CORPUS = Corpus(
    name="emodb",
    title="EMO-DB, Berlin Database of Emotional Speech",
    language="de",
    licence="free to use",
    source="http://emodb.bilderbar.info/",
    size="535 files of 10 speakers, about 50 MB",
    unpack="download.zip, of which only the folder wav is read",
    scan=_scan,
    inventory=_inventory,
)
