"""Protocols: the folds of each kind, from its settings and the utterances."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.protocol_settings import (
    All,
    CrossCorpus,
    HeldOut,
    KFold,
    LeaveOneSpeakerOut,
    ProtocolSettings,
    Random,
    describe,
    is_speaker_dependent,
)
from trainer.splits import PARTS, Part, SpeakerSplit, Split, as_split, nearest, split_by_speaker

__all__ = [
    "All",
    "CrossCorpus",
    "Fold",
    "HeldOut",
    "KFold",
    "LeaveOneSpeakerOut",
    "ProtocolSettings",
    "Random",
    "check_fold",
    "describe",
    "fold_of_speakers",
    "folds",
    "is_speaker_dependent",
]


@dataclass(frozen=True, slots=True)
class Fold:
    """One split of a protocol; `name` serves as a folder's name and is unique in it."""

    name: str
    split: Split


def folds(
    settings: ProtocolSettings,
    utterances: Sequence[Utterance],
    seed: int,
    speakers: Mapping[str, SpeakerSplit] | None = None,
) -> list[Fold]:
    """The protocol's splits; who is where does not depend on the order of the utterances.

    Parts keep that order.

    Parameters
    ----------
    utterances
        of every corpus of the recipe, labels already mapped.
    speakers
        of each corpus under the recipe's `corpora`, for kind "held-out".

    Raises
    ------
    TrainerError
        an unknown corpus or speaker (with the nearest name), too few speakers, a part without
        an utterance, or held-out speakers without one of the labels. A fold whose training part
        lacks a label is left to `check_fold`, so that the other folds can go on.
    """
    chosen = _used(settings, utterances)
    match settings:
        case HeldOut():
            found = [Fold("split", _held_out(settings, chosen, speakers or {}))]
        case KFold():
            found = _k_fold(settings, chosen)
        case LeaveOneSpeakerOut():
            found = _leave_one_out(settings, chosen)
        case CrossCorpus():
            found = _cross_corpus(settings, chosen, seed)
        case Random():
            found = [Fold("split", _random(settings, chosen, seed))]
        case All():
            found = [Fold("everyone", Split(tuple(chosen), (), ()))]
    for fold in found:
        if not fold.split.train:
            raise TrainerError(f"protocols.{settings.name}: {fold.name} leaves nobody to train on.")
    return found


def check_fold(fold: Fold) -> None:
    """Refuse a fold that trains without a label that it tests or validates.

    Raises
    ------
    TrainerError
        names the labels, and the speakers who alone have them.
    """
    held = (*fold.split.validation, *fold.split.test)
    missing = {u.label for u in held} - {u.label for u in fold.split.train}
    if missing:
        who = sorted({u.speaker_id for u in held if u.label in missing})
        raise TrainerError(
            f"{fold.name}: no training utterance is labelled {', '.join(sorted(missing))}; "
            f"only {', '.join(who[:6])}{' …' if len(who) > 6 else ''} of its validation and test "
            "speakers have such utterances. Take a label map without it, or other speakers."
        )


def _used(settings: ProtocolSettings, utterances: Sequence[Utterance]) -> list[Utterance]:
    there = {u.corpus for u in utterances}
    _known(settings, "corpora", settings.corpora, there)
    wanted = set(settings.corpora) or there
    return [u for u in utterances if u.corpus in wanted]


def _known(settings: ProtocolSettings, key: str, names: Collection[str], there: set[str]) -> None:
    for name in names:
        if name not in there:
            raise TrainerError(
                f"protocols.{settings.name}.{key}: the recipe has no corpus {name!r}; "
                f"{nearest(name, there)}."
            )


def _speakers(utterances: Sequence[Utterance]) -> dict[str, list[str]]:
    """Sorted speakers of each corpus."""
    there: dict[str, set[str]] = {}
    for u in utterances:
        there.setdefault(u.corpus, set()).add(u.speaker)
    return {corpus: sorted(names) for corpus, names in sorted(there.items())}


def _divide(
    utterances: Sequence[Utterance], validation: Collection[str], test: Collection[str]
) -> Split:
    """By speaker ids; who is in neither list trains."""
    parts: dict[Part, list[Utterance]] = {part: [] for part in PARTS}
    for u in utterances:
        if u.speaker_id in test:
            parts["test"].append(u)
        else:
            parts["validation" if u.speaker_id in validation else "train"].append(u)
    return as_split(parts)


def _held_out(
    settings: HeldOut, utterances: Sequence[Utterance], speakers: Mapping[str, SpeakerSplit]
) -> Split:
    named = settings.speakers or speakers
    there = {u.corpus for u in utterances}
    _known(settings, "speakers", settings.speakers, there)
    split = split_by_speaker(
        utterances, {corpus: named.get(corpus, SpeakerSplit()) for corpus in there}
    )
    if not split.test and not split.validation:
        raise TrainerError(
            f"protocols.{settings.name}: no corpus names a validation or test speaker."
        )
    tested = {u.corpus for u in split.test}
    missing = {u.label for u in utterances if u.corpus in tested} - {u.label for u in split.test}
    if tested and missing:
        raise TrainerError(
            f"protocols.{settings.name}: the test speakers have no utterance labelled "
            f"{', '.join(sorted(missing))}; name others."
        )
    return split


def _tested(
    settings: KFold | LeaveOneSpeakerOut, utterances: Sequence[Utterance]
) -> list[Utterance]:
    _known(settings, "tested", settings.tested, {u.corpus for u in utterances})
    return [u for u in utterances if not settings.tested or u.corpus in settings.tested]


def fold_of_speakers(utterances: Sequence[Utterance], count: int) -> dict[str, int]:
    """The fold of each speaker id, from 0.

    Within a corpus folds are consecutive speakers in sorted order, their sizes differing by at
    most one; a corpus with fewer speakers than folds puts each into a fold of its own, spread
    evenly. Where that leaves a choice, larger corpora come first and each starts at the fold that
    keeps the folds' utterances most alike.
    """
    amount: dict[str, int] = {}
    for u in utterances:
        amount[u.speaker_id] = amount.get(u.speaker_id, 0) + 1
    load = np.zeros(count, np.int64)
    place: dict[str, int] = {}
    ids = {c: [f"{c}/{name}" for name in names] for c, names in _speakers(utterances).items()}
    for _, members in sorted(ids.items(), key=lambda i: (-sum(amount[s] for s in i[1]), i[0])):
        many = len(members)
        weight = np.asarray([amount[s] for s in members], np.int64)
        if many >= count:
            sizes = [len(part) for part in np.array_split(np.arange(many), count)]
            order = np.repeat(np.arange(count), sizes)
        else:
            order = np.arange(many) * count // many
        turns = range(1 if many % count == 0 else count)
        after = [load + np.bincount((order + t) % count, weight, count) for t in turns]
        turn = min(turns, key=lambda t: (float(after[t].max()), float(np.var(after[t])), t))
        load = after[turn].astype(np.int64)
        place |= dict(zip(members, ((order + turn) % count).tolist(), strict=True))
    return place


def _k_fold(settings: KFold, utterances: Sequence[Utterance]) -> list[Fold]:
    count = settings.folds
    place = fold_of_speakers(_tested(settings, utterances), count)
    members = [{s for s, f in place.items() if f == fold} for fold in range(count)]
    if not all(members):
        raise TrainerError(
            f"protocols.{settings.name}.folds: {count} folds need at least {count} speakers, and "
            f"there are {len(place)} to test; lower it, or use leave-one-speaker-out."
        )
    nobody: set[str] = set()
    return [
        Fold(
            f"fold-{fold + 1}",
            _divide(
                utterances,
                members[(fold + 1) % count] if settings.validation == "next" else nobody,
                members[fold],
            ),
        )
        for fold in range(count)
    ]


def _leave_one_out(settings: LeaveOneSpeakerOut, utterances: Sequence[Utterance]) -> list[Fold]:
    total = sum(len(names) for names in _speakers(utterances).values())
    need = 3 if settings.validation == "next" else 2
    if total < need:
        raise TrainerError(
            f"protocols.{settings.name}: leave-one-speaker-out with validation = "
            f'"{settings.validation}" needs at least {need} speakers, and there are {total}'
            + ('; say validation = "none".' if total == 2 else ".")
        )
    found: list[Fold] = []
    used: set[str] = set()
    for corpus, names in _speakers(_tested(settings, utterances)).items():
        for i, name in enumerate(names):
            after = names[(i + 1) % len(names)]
            chooses = {f"{corpus}/{after}"} if settings.validation == "next" else set[str]()
            split = _divide(utterances, chooses - {f"{corpus}/{name}"}, {f"{corpus}/{name}"})
            found.append(Fold(_unique(f"{corpus}-{name}", used), split))
    return found


def _unique(name: str, used: set[str]) -> str:
    """`name` as a folder's name that is not in `used`, to which it is added."""
    plain = candidate = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]
    number = 1
    # Some file systems do not tell cases apart.
    while candidate.lower() in used:
        number += 1
        candidate = f"{plain}-{number}"
    used.add(candidate.lower())
    return candidate


def _cross_corpus(settings: CrossCorpus, utterances: Sequence[Utterance], seed: int) -> list[Fold]:
    speakers = _speakers(utterances)
    _known(settings, "train", settings.train, set(speakers))
    _known(settings, "test", settings.test, set(speakers))
    if len(speakers) < 2:
        raise TrainerError(
            f"protocols.{settings.name}: cross-corpus needs two corpora, and there is only "
            f"{', '.join(speakers) or 'none'}."
        )
    if settings.train:
        pairs = [(settings.train, settings.test)]
    else:
        pairs = [
            (tuple(c for c in speakers if c != out), (out,)) for out in settings.test or speakers
        ]
    found = []
    for train, test in pairs:
        rng = np.random.default_rng(seed)
        chooses: set[str] = set()
        for corpus in sorted(train):
            names = speakers[corpus]
            if settings.validation_share and len(names) >= 3:
                many = min(len(names) - 2, max(1, round(settings.validation_share * len(names))))
                drawn = rng.choice(len(names), many, replace=False)
                chooses |= {f"{corpus}/{names[i]}" for i in drawn}
        if settings.validation_share and not chooses:
            raise TrainerError(
                f"protocols.{settings.name}.validation_share: none of {', '.join(train)} has "
                "three speakers, so nobody can be spared for validation; say 0."
            )
        used = [u for u in utterances if u.corpus in train or u.corpus in test]
        tested = {f"{corpus}/{name}" for corpus in test for name in speakers[corpus]}
        found.append(Fold("to-" + "-".join(sorted(test)), _divide(used, chooses, tested)))
    return found


def _random(settings: Random, utterances: Sequence[Utterance], seed: int) -> Split:
    cells: dict[tuple[str, str], list[Utterance]] = {}
    for u in sorted(utterances, key=lambda u: str(u.path)):
        cells.setdefault((u.corpus, u.label), []).append(u)
    rng = np.random.default_rng(seed)
    part_of: dict[str, Part] = {}
    shares: dict[Part, float] = {
        "test": settings.test_share,
        "validation": settings.validation_share,
    }
    for (corpus, label), members in sorted(cells.items()):
        counts = {p: max(1, math.floor(s * len(members) + 0.5)) for p, s in shares.items() if s}
        if sum(counts.values()) >= len(members):
            raise TrainerError(
                f"protocols.{settings.name}: {corpus} has only {len(members)} utterances labelled "
                f"{label}, too few for a part each."
            )
        order = iter(rng.permutation(len(members)))
        for part, many in counts.items():
            part_of |= {str(members[next(order)].path): part for _ in range(many)}
    parts: dict[Part, list[Utterance]] = {part: [] for part in PARTS}
    for u in utterances:
        parts[part_of.get(str(u.path), "train")].append(u)
    return as_split(parts, speaker_dependent=True)
