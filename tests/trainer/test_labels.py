"""Label maps: what they keep, what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.corpora import LABELS, Utterance
from trainer.errors import TrainerError
from trainer.labels import EIGHT, NAMED, parse_labels


def _utterances(*labels: str) -> list[Utterance]:
    return [Utterance(Path(f"/{i}.wav"), "c", "s", label, "en") for i, label in enumerate(labels)]


SIZES = {
    "three": 3,
    "angry-happy-sad": 3,
    "five": 5,
    "six": 6,
    "seven": 7,
    "emodb-seven": 7,
    "eight": 8,
    "nine": 9,
}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_named_maps_are_of_their_size_and_of_canonical_labels(name: str) -> None:
    chosen = parse_labels(name)
    assert len(chosen.labels) == SIZES[name]
    members = [label for labels in chosen.members for label in labels]
    assert len(set(members)) == len(members)
    assert set(members) <= set(LABELS)
    kept = chosen.apply(_utterances(*LABELS))
    assert {u.label for u in kept} == set(chosen.labels)


def test_the_default_is_eight_without_boredom() -> None:
    assert parse_labels().labels == EIGHT == LABELS[:8]
    assert [u.label for u in parse_labels().apply(_utterances(*LABELS))] == list(EIGHT)


def test_merged_labels_and_order() -> None:
    three = parse_labels("three")
    kept = three.apply(_utterances("surprised", "calm", "bored", "happy"))
    assert [u.label for u in kept] == ["positive", "neutral", "negative", "positive"]
    assert [three.index(u.label) for u in kept] == [2, 1, 0, 2]
    assert kept[0].path == Path("/0.wav")
    with pytest.raises(TrainerError, match="three has no class 'happy'"):
        three.index("happy")


def test_an_empty_class_names_map_and_class() -> None:
    with pytest.raises(TrainerError, match=r"map five: class 'fearful' \(fearful\).*in c\."):
        parse_labels("five").apply(_utterances("neutral", "happy", "sad", "angry"))
    only = parse_labels("five").apply(_utterances("sad"), complete=False)
    assert [u.label for u in only] == ["sad"]


def test_a_table_of_ones_own() -> None:
    own = parse_labels({"tense": ["angry", "sarcastic"], "other": "calm"})
    assert (own.name, own.labels) == ("custom", ("tense", "other"))
    kept = own.apply(_utterances("sarcastic", "calm", "sad"))
    assert [u.label for u in kept] == ["tense", "other"]
    with pytest.raises(TrainerError, match=r"labels\.tense: 'sarcastic' is neither"):
        own.apply(_utterances("angry", "calm"))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("eigth", "no map 'eigth'; there are three, "),
        ({"only": ["angry"]}, "two classes"),
        ({"a": [], "b": ["sad"]}, r"labels\.a: the class takes no label"),
        ({"a": ["sad"], "b": ["sad"]}, "'sad' is in both a and b"),
    ],
)
def test_faults_have_sentences(value: str | dict[str, list[str]], fault: str) -> None:
    with pytest.raises(TrainerError, match=fault):
        parse_labels(value)
