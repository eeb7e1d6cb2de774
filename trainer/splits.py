"""Speaker-disjoint splits by named speakers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.corpora.base import Utterance
from trainer.errors import TrainerError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class SpeakerSplit(BaseModel):
    """Which speakers of one corpus belong to which part.

    `train` left out means every speaker not named elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Utterances of the three parts, each in the order given.

    `speaker_dependent` says that a speaker may be in more than one part: figures of such a split
    must be named so wherever they are shown.
    """

    train: tuple[Utterance, ...]
    validation: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    speaker_dependent: bool = False

    def part(self, name: Part) -> tuple[Utterance, ...]:
        """The utterances of one part."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts[name]

    def speakers(self) -> dict[Part, list[str]]:
        """Sorted `corpus/speaker` ids of each part."""
        return {name: sorted({u.speaker_id for u in self.part(name)}) for name in PARTS}


def check_disjoint(
    parts: Mapping[Part, Iterable[Utterance]], speaker_dependent: bool = False
) -> None:
    """Refuse parts that share a file or, unless `speaker_dependent`, a speaker.

    Raises
    ------
    TrainerError
        names the first speaker or file found in two parts.
    """
    speaker_part: dict[str, Part] = {}
    path_part: dict[str, Part] = {}
    for part, utterances in parts.items():
        for utterance in utterances:
            other = speaker_part.setdefault(utterance.speaker_id, part)
            if other != part and not speaker_dependent:
                raise TrainerError(
                    f"Speaker {utterance.speaker_id} is in both {other} and {part}: "
                    "figures on such a split would measure memory, not emotion."
                )
            other = path_part.setdefault(str(utterance.path), part)
            if other != part:
                raise TrainerError(f"{utterance.path} is in both {other} and {part}.")


def as_split(parts: Mapping[Part, Sequence[Utterance]], speaker_dependent: bool = False) -> Split:
    """Parts, checked to be disjoint, as a split.

    Raises
    ------
    TrainerError
        see `check_disjoint`.
    """
    check_disjoint(parts, speaker_dependent)
    train, validation, test = (tuple(parts[part]) for part in PARTS)
    return Split(train, validation, test, speaker_dependent)


def nearest(name: str, there: Iterable[str]) -> str:
    """What to say of an unknown name: the nearest one if there is one, and those there are."""
    known = sorted(there)
    near = get_close_matches(name, known, n=1)
    listed = f"there are {', '.join(known) or 'none'}"
    return f"did you mean {near[0]}? ({listed})" if near else listed


def split_by_speaker(
    utterances: Sequence[Utterance], speakers: Mapping[str, SpeakerSplit]
) -> Split:
    """Divide utterances by the speakers that `speakers` names for each corpus.

    Speakers that are in no list are left out when `train` is given, and train otherwise.

    Raises
    ------
    TrainerError
        a corpus has no entry, a named speaker does not exist, or a speaker is in
        two parts.
    """
    present: dict[str, set[str]] = {}
    for utterance in utterances:
        present.setdefault(utterance.corpus, set()).add(utterance.speaker)
    part_of: dict[str, Part] = {}
    for corpus, there in present.items():
        if corpus not in speakers:
            raise TrainerError(f"The recipe names no speakers for corpus {corpus}.")
        entry = speakers[corpus]
        named = {"validation": entry.validation, "test": entry.test, "train": entry.train or ()}
        for key, names in named.items():
            for name in names:
                if name not in there:
                    raise TrainerError(
                        f"corpora.{corpus}.{key}: there is no speaker {name!r} in {corpus}; "
                        f"{nearest(name, there)}."
                    )
        for part in PARTS:
            if part == "train" and entry.train is None:
                names = tuple(sorted(there - set(entry.validation) - set(entry.test)))
            else:
                names = named[part]
            for name in names:
                other = part_of.setdefault(f"{corpus}/{name}", part)
                if other != part:
                    raise TrainerError(
                        f"corpora.{corpus}: speaker {name!r} is in both {other} and {part}."
                    )
    parts: dict[Part, list[Utterance]] = {part: [] for part in PARTS}
    for utterance in utterances:
        chosen = part_of.get(utterance.speaker_id)
        if chosen is not None:
            parts[chosen].append(utterance)
    return as_split(parts)
