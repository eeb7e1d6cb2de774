"""nEMO: Polish emotional speech (Christop, 2024), nine speakers.

Names are `WR0_surprised_64`: speaker, emotion, sentence. `data.tsv`, where it lies in the
folder, adds sex and sentence; it may list files that are not there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import partial
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

_NAME = re.compile(r"([A-Z]{2}\d)_([a-z]+)_(\d+)", re.IGNORECASE)
_EMOTIONS = {
    "neutral": "neutral",
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "surprised": "surprised",
}


def _table(folder: Path) -> dict[str, dict[str, str]]:
    for path in sorted(folder.rglob("data.tsv")):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            return {Path(row.get("file_id") or "").stem: row for row in rows}
    return {}


def _parse(path: Path, table: dict[str, dict[str, str]]) -> Utterance | str:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return not_named("WR0_surprised_64")
    speaker, emotion, number = match.group(1).upper(), match.group(2).lower(), match.group(3)
    if emotion not in _EMOTIONS:
        return f"unknown emotion {emotion}"
    row = table.get(path.stem, {})
    gender = row.get("gender")
    sex: Sex | None = "female" if gender == "female" else "male" if gender == "male" else None
    return Utterance(
        path=path,
        corpus="nemo",
        speaker=speaker,
        label=_EMOTIONS[emotion],
        language="pl",
        sex=sex,
        statement=row.get("normalized_text") or number,
    )


def _scan(folder: Path) -> Scan:
    return scan_names(folder, partial(_parse, table=_table(folder)))


def _inventory(folder: Path, utterances: Sequence[Utterance]) -> Inventory:
    names: dict[str, set[str]] = {}
    for stem in _table(folder):
        names.setdefault(stem[:3].upper(), set()).add(stem.lower())
    if names:
        return Inventory(
            sum(len(s) for s in names.values()), {k: frozenset(v) for k, v in names.items()}
        )
    return Inventory(4481, {})


CORPUS = Corpus(
    name="nemo",
    title="nEMO, Polish emotional speech",
    language="pl",
    licence="CC-BY-NC-SA-4.0",
    source="https://huggingface.co/datasets/amu-cai/nEMO",
    size="4481 files of 9 actors, about 500 MB",
    unpack="the folder samples, and data.tsv, which says sex and sentence",
    scan=_scan,
    inventory=_inventory,
)
