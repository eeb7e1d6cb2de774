"""Protocols: speakers never cross, everybody is tested once, and mistakes are named."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.protocols import (
    All,
    CrossCorpus,
    Fold,
    HeldOut,
    KFold,
    LeaveOneSpeakerOut,
    ProtocolSettings,
    Random,
    check_fold,
    describe,
    fold_of_speakers,
    folds,
    is_speaker_dependent,
)
from trainer.splits import PARTS, SpeakerSplit, Split

EMOTIONS = ("happy", "sad", "angry")
ADAPTER: TypeAdapter[ProtocolSettings] = TypeAdapter(ProtocolSettings)


def _corpus(name: str, speakers: Sequence[str], each: int = 4) -> list[Utterance]:
    return [
        Utterance(Path(f"/{name}/{s}-{e}-{i}.wav"), name, s, e, "de")
        for s in speakers
        for e in EMOTIONS
        for i in range(each)
    ]


def _names(count: int) -> list[str]:
    return [f"{i:02d}" for i in range(1, count + 1)]


CORPORA = st.dictionaries(
    st.sampled_from(["ravdess", "tess", "savee", "emodb"]), st.integers(1, 13), min_size=1
)
SPEAKER_KINDS = st.one_of(
    st.builds(KFold, folds=st.integers(3, 6), validation=st.sampled_from(["next", "none"])),
    st.builds(LeaveOneSpeakerOut, validation=st.sampled_from(["next", "none"])),
    st.builds(CrossCorpus, validation_share=st.sampled_from([0.0, 0.2, 0.5])),
)


def _folds_or_none(
    settings: ProtocolSettings, utterances: list[Utterance], seed: int
) -> list[Fold] | None:
    """None where there are too few speakers or utterances for the protocol."""
    try:
        return folds(settings, utterances, seed)
    except TrainerError:
        return None


def _speaker_parts(split: Split) -> list[set[str]]:
    return [{u.speaker_id for u in split.part(part)} for part in PARTS]


@given(counts=CORPORA, settings=SPEAKER_KINDS, seed=st.integers(0, 9))
def test_no_speaker_crosses_and_every_utterance_is_tested_once(
    counts: dict[str, int], settings: ProtocolSettings, seed: int
) -> None:
    utterances = [u for name, n in counts.items() for u in _corpus(name, _names(n), 1)]
    found = _folds_or_none(settings, utterances, seed)
    if found is None:
        return
    tested = Counter(u.path for fold in found for u in fold.split.test)
    assert tested == Counter(u.path for u in utterances)
    for fold in found:
        train, validation, test = _speaker_parts(fold.split)
        assert train
        assert not train & validation
        assert not train & test
        assert not validation & test
        assert not fold.split.speaker_dependent
        assert sum(len(fold.split.part(part)) for part in PARTS) == len(utterances)
    assert len({fold.name.lower() for fold in found}) == len(found)


@given(counts=CORPORA, settings=SPEAKER_KINDS | st.just(Random()), order=st.randoms())
def test_the_order_of_utterances_does_not_matter(
    counts: dict[str, int], settings: ProtocolSettings, order: Any
) -> None:
    utterances = [u for name, n in counts.items() for u in _corpus(name, _names(n))]
    shuffled = list(utterances)
    order.shuffle(shuffled)
    found = _folds_or_none(settings, utterances, 3)
    if found is None:
        return
    for one, other in zip(found, folds(settings, shuffled, 3), strict=True):
        assert one.name == other.name
        for part in PARTS:
            assert set(one.split.part(part)) == set(other.split.part(part))


@given(counts=CORPORA, count=st.integers(2, 7))
def test_folds_are_consecutive_and_alike(counts: dict[str, int], count: int) -> None:
    utterances = [u for name, n in counts.items() for u in _corpus(name, _names(n), 1)]
    place = fold_of_speakers(utterances, count)
    for name, many in counts.items():
        chosen = [place[f"{name}/{s}"] for s in _names(many)]
        sizes = np.bincount(chosen, minlength=count)
        assert sizes.max() - sizes.min() <= 1
        changes = sum(a != b for a, b in itertools.pairwise(chosen))
        assert changes == len(set(chosen)) - 1


def test_twenty_actors_make_five_folds_of_four() -> None:
    found = folds(KFold(), _corpus("ravdess", _names(20)), 0)
    assert [fold.name for fold in found] == [f"fold-{i}" for i in range(1, 6)]
    assert found[0].split.speakers() == {
        "train": [f"ravdess/{n}" for n in _names(20)[8:]],
        "validation": [f"ravdess/{n}" for n in ("05", "06", "07", "08")],
        "test": [f"ravdess/{n}" for n in ("01", "02", "03", "04")],
    }
    assert found[4].split.speakers()["validation"][0] == "ravdess/01"


def test_small_corpora_spread_and_always_have_a_training_speaker() -> None:
    utterances = [
        *_corpus("ravdess", _names(20)),
        *_corpus("savee", ["DC", "JE", "JK", "KL"], 20),
        *_corpus("tess", ["OAF", "YAF"], 100),
    ]
    found = folds(KFold(), utterances, 0)
    for fold in found:
        assert "tess" in {u.corpus for u in fold.split.train}
    with_tess = [i for i, f in enumerate(found) if any(u.corpus == "tess" for u in f.split.test)]
    assert len(with_tess) == 2
    without_savee = [
        i for i, f in enumerate(found) if all(u.corpus != "savee" for u in f.split.test)
    ]
    # the fold that SAVEE leaves free is one of those that TESS makes large
    assert set(without_savee) <= set(with_tess)


def test_only_the_named_corpora_are_tested_or_used() -> None:
    utterances = [
        *_corpus("ravdess", _names(6)),
        *_corpus("savee", ["DC", "JE", "JK"]),
        *_corpus("tess", ["OAF"]),
    ]
    found = folds(
        LeaveOneSpeakerOut(corpora=("ravdess", "savee"), tested=("savee",)), utterances, 0
    )
    assert [fold.name for fold in found] == ["savee-DC", "savee-JE", "savee-JK"]
    for fold in found:
        assert {u.corpus for u in fold.split.test} == {"savee"}
        assert {u.corpus for u in fold.split.train} == {"ravdess", "savee"}
    assert found[2].split.speakers()["validation"] == ["savee/DC"]


def test_both_ways_between_two_speakers() -> None:
    utterances = _corpus("tess", ["OAF", "YAF"])
    found = folds(LeaveOneSpeakerOut(validation="none"), utterances, 0)
    assert [fold.split.speakers()["train"] for fold in found] == [["tess/YAF"], ["tess/OAF"]]
    with pytest.raises(TrainerError, match=r'at least 3 speakers.*validation = "none"'):
        folds(LeaveOneSpeakerOut(), utterances, 0)


def test_folder_names_are_safe_and_differ() -> None:
    utterances = _corpus("mine", ["a b", "a/b", "A_b", "ü"])
    found = folds(LeaveOneSpeakerOut(validation="none"), utterances, 0)
    assert [fold.name for fold in found] == ["mine-A_b", "mine-a_b-2", "mine-a_b-3", "mine-_"]


def test_cross_corpus_by_turns_and_by_name() -> None:
    utterances = [
        *_corpus("ravdess", _names(10)),
        *_corpus("emodb", _names(4)),
        *_corpus("tess", ["OAF", "YAF"]),
    ]
    found = folds(CrossCorpus(), utterances, 1)
    assert [fold.name for fold in found] == ["to-emodb", "to-ravdess", "to-tess"]
    by_corpus = Counter(u.corpus for u in found[2].split.validation)
    assert by_corpus == {"ravdess": 24, "emodb": 12}
    (one,) = folds(
        CrossCorpus(train=("emodb",), test=("tess", "ravdess"), validation_share=0), utterances, 1
    )
    assert one.name == "to-ravdess-tess"
    assert {u.corpus for u in one.split.train} == {"emodb"}
    assert not one.split.validation
    with pytest.raises(TrainerError, match="validation_share: none of tess has three speakers"):
        folds(CrossCorpus(train=("tess",), test=("emodb",)), utterances, 1)
    with pytest.raises(TrainerError, match="needs two corpora"):
        folds(CrossCorpus(), _corpus("tess", ["OAF"]), 1)


@given(
    each=st.integers(3, 9),
    speakers=st.integers(1, 5),
    test_share=st.floats(0.05, 0.5),
    validation_share=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 5),
)
def test_random_is_stratified(
    each: int, speakers: int, test_share: float, validation_share: float, seed: int
) -> None:
    utterances = _corpus("ravdess", _names(speakers), each) + _corpus("tess", ["OAF"], 7)
    settings = Random(test_share=test_share, validation_share=validation_share)
    found = _folds_or_none(settings, utterances, seed)
    if found is None:
        return
    split = found[0].split
    assert split.speaker_dependent
    paths = [u.path for part in PARTS for u in split.part(part)]
    assert sorted(paths) == sorted(u.path for u in utterances)
    total = Counter((u.corpus, u.label) for u in utterances)
    for part, share in (("test", test_share), ("validation", validation_share)):
        there = Counter((u.corpus, u.label) for u in getattr(split, part))
        for cell, many in total.items():
            assert there[cell] >= (share > 0)
            assert abs(there[cell] - share * many) <= 1


def test_random_follows_the_seed() -> None:
    utterances = _corpus("tess", ["OAF", "YAF"], 20)
    first, again, other = (folds(Random(), utterances, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(first[0].split.test) == 30


def test_random_needs_enough_of_each_label() -> None:
    lonely = [*_corpus("tess", ["OAF"]), Utterance(Path("/x"), "tess", "OAF", "bored", "en")]
    with pytest.raises(TrainerError, match="tess has only 1 utterances labelled bored"):
        folds(Random(), lonely, 0)


def test_held_out_takes_the_recipes_speakers_or_its_own() -> None:
    utterances = _corpus("emodb", _names(4)) + _corpus("tess", ["OAF"])
    recipe = {"emodb": SpeakerSplit(validation=("01",), test=("02",)), "tess": SpeakerSplit()}
    (fold,) = folds(HeldOut(), utterances, 0, recipe)
    assert fold.split.speakers() == {
        "train": ["emodb/03", "emodb/04", "tess/OAF"],
        "validation": ["emodb/01"],
        "test": ["emodb/02"],
    }
    own = HeldOut(speakers={"emodb": SpeakerSplit(test=("04",))})
    assert folds(own, utterances, 0, recipe)[0].split.speakers()["test"] == ["emodb/04"]
    with pytest.raises(TrainerError, match="no corpus names a validation or test speaker"):
        folds(HeldOut(), utterances, 0)


def test_held_out_speakers_without_a_label_are_refused() -> None:
    utterances = [u for u in _corpus("emodb", _names(3)) if (u.speaker, u.label) != ("03", "angry")]
    settings = HeldOut(speakers={"emodb": SpeakerSplit(test=("03",))})
    with pytest.raises(TrainerError, match="test speakers have no utterance labelled angry"):
        folds(settings, utterances, 0)


def test_a_fold_that_trains_without_a_label_is_refused_alone() -> None:
    utterances = [
        u
        for u in _corpus("emodb", _names(3))
        if (u.speaker, u.label) not in (("01", "angry"), ("03", "angry"))
    ]
    found = folds(LeaveOneSpeakerOut(validation="none"), utterances, 0)
    check_fold(found[0])
    check_fold(found[2])
    with pytest.raises(
        TrainerError, match=r"emodb-02: no training utterance is labelled angry; only emodb/02"
    ):
        check_fold(found[1])


def test_everybody_trains() -> None:
    utterances = _corpus("emodb", _names(3))
    assert folds(All(), utterances, 0) == [Fold("everyone", Split(tuple(utterances), (), ()))]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (KFold(corpora=("emodd",)), r"protocols\.k-fold\.corpora: .*'emodd'; did you mean emodb\?"),
        (KFold(name="five", tested=("tes",)), r"protocols\.five\.tested: .*did you mean tess\?"),
        (CrossCorpus(test=("xyz",)), r"protocols\.cross-corpus\.test: .*'xyz'; there are emodb"),
        (KFold(folds=9), r"protocols\.k-fold\.folds: 9 folds need at least 9 speakers.*are 4"),
        (HeldOut(speakers={"emodb": SpeakerSplit(test=("022",))}), r"did you mean 02\?"),
        (HeldOut(speakers={"emo": SpeakerSplit(test=("02",))}), r"speakers: .* no corpus 'emo'"),
    ],
)
def test_mistakes_are_named(settings: ProtocolSettings, sentence: str) -> None:
    with pytest.raises(TrainerError, match=sentence):
        folds(settings, _corpus("emodb", _names(3)) + _corpus("tess", ["OAF"]), 0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "kfold"}, "'held-out', 'k-fold', 'leave-one-speaker-out'"),
        ({"kind": "k-fold", "folds": 1}, "greater than or equal to 2"),
        ({"kind": "k-fold", "folds": 2}, "nobody to train on"),
        ({"kind": "k-fold", "fold": 5}, "Extra inputs"),
        ({"kind": "random", "test_share": 0.9, "validation_share": 0.2}, "nothing to train on"),
        ({"kind": "cross-corpus", "train": ["tess"]}, "test is not"),
        ({"kind": "cross-corpus", "train": ["a", "b"], "test": ["b"]}, "b is under both"),
        ({"kind": "all", "name": "../up"}, "pattern"),
    ],
)
def test_settings_are_checked(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ADAPTER.validate_python(values)


def test_only_the_random_kind_says_speaker_dependent() -> None:
    kinds: list[ProtocolSettings] = [
        HeldOut(),
        KFold(),
        LeaveOneSpeakerOut(),
        CrossCorpus(),
        Random(),
        All(),
    ]
    assert [s.kind for s in kinds if is_speaker_dependent(s)] == ["random"]
    assert [s.kind for s in kinds if "speaker-dependent" in describe(s)] == ["random"]
    assert describe(Random()) == "random split 75:25, speaker-dependent"
