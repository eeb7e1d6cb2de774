"""Speakers never cross."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.corpora import Utterance
from trainer.errors import TrainerError
from trainer.splits import PARTS, Part, SpeakerSplit, check_disjoint, split_by_speaker

SPEAKERS = [f"s{i}" for i in range(6)]


def _utterances(speakers: list[str], corpus: str = "emodb") -> list[Utterance]:
    return [
        Utterance(Path(f"/{corpus}/{speaker}-{i}.wav"), corpus, speaker, "happy", "de")
        for i, speaker in enumerate(speakers)
    ]


@given(
    owners=st.lists(st.sampled_from(SPEAKERS), min_size=12, max_size=40),
    place=st.dictionaries(st.sampled_from(SPEAKERS), st.sampled_from(PARTS)),
    rest_trains=st.booleans(),
)
def test_parts_are_disjoint_and_lose_nothing(
    owners: list[str], place: dict[str, Part], rest_trains: bool
) -> None:
    utterances = _utterances([*owners, *SPEAKERS])
    named = {part: tuple(s for s, p in place.items() if p == part) for part in PARTS}
    entry = SpeakerSplit(
        train=None if rest_trains else named["train"],
        validation=named["validation"],
        test=named["test"],
    )
    split = split_by_speaker(utterances, {"emodb": entry})
    speakers = {part: {u.speaker for u in split.part(part)} for part in PARTS}
    assert not speakers["train"] & speakers["validation"]
    assert not speakers["train"] & speakers["test"]
    assert not speakers["validation"] & speakers["test"]
    assert speakers["validation"] == set(named["validation"])
    assert speakers["test"] == set(named["test"])
    total = sum(len(split.part(part)) for part in PARTS)
    if rest_trains:
        assert total == len(utterances)
    else:
        assert total == sum(u.speaker in place for u in utterances)


def test_the_same_name_in_two_corpora_is_two_speakers() -> None:
    utterances = _utterances(["01", "02"], "ravdess") + _utterances(["01", "02"], "emodb")
    split = split_by_speaker(
        utterances,
        {"ravdess": SpeakerSplit(test=("01",)), "emodb": SpeakerSplit(test=("02",))},
    )
    assert split.speakers()["test"] == ["emodb/02", "ravdess/01"]
    assert split.speakers()["train"] == ["emodb/01", "ravdess/02"]


def test_a_speaker_in_two_parts_is_refused() -> None:
    entry = SpeakerSplit(train=("s0",), test=("s0",))
    with pytest.raises(TrainerError, match=r"corpora\.emodb: speaker 's0' is in both"):
        split_by_speaker(_utterances(["s0", "s1"]), {"emodb": entry})


def test_an_unknown_speaker_is_named() -> None:
    entry = SpeakerSplit(validation=("s9",))
    with pytest.raises(TrainerError, match=r"corpora\.emodb\.validation: .*'s9'.*s0, s1"):
        split_by_speaker(_utterances(["s0", "s1"]), {"emodb": entry})


def test_a_corpus_without_entry_is_named() -> None:
    with pytest.raises(TrainerError, match="no speakers for corpus emodb"):
        split_by_speaker(_utterances(["s0"]), {})


def test_the_check_sees_shared_speakers_and_files() -> None:
    first, second = _utterances(["s0", "s0"])
    with pytest.raises(TrainerError, match="Speaker emodb/s0 is in both train and test"):
        check_disjoint({"train": [first], "test": [second]})
    other = Utterance(first.path, "emodb", "s1", "happy", "de")
    with pytest.raises(TrainerError, match=r"s0-0\.wav is in both"):
        check_disjoint({"train": [first], "validation": [other]})
