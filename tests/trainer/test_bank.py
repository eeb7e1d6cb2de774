"""The bank: who may be heard in whose copies, rows of a fold, and a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.audio import Clips
from trainer.augment import AugmentSettings, NoiseLibrary
from trainer.bank import render, voice_groups
from trainer.corpora.base import Utterance
from trainer.errors import TrainerError
from trainer.feature_bank import measure_bank
from trainer.protocols import KFold, LeaveOneSpeakerOut, folds
from trainer.recipe import Recipe

# Nothing but babble, which is all that carries voices from one utterance to another.
BABBLE = AugmentSettings(
    copies=3, speed=0, room=0, noise=0, music=0, babble=1, equaliser=0, clipping=0, telephone=0
)


def _utterances(speakers: int, each: int = 2) -> list[Utterance]:
    return [
        Utterance(
            Path(f"/{speaker}-{i}.wav"), "tess", f"{speaker:02}", ("sad", "angry")[i % 2], "en"
        )
        for speaker in range(speakers)
        for i in range(each)
    ]


def _clips(utterances: list[Utterance], seed: int = 0) -> Clips:
    rng = np.random.default_rng(seed)
    size, count = 4_000, len(utterances)
    samples = (rng.standard_normal(size * count) * 3_000).astype(np.int16)
    offsets = np.arange(count + 1) * size
    return Clips(tuple(utterances), samples, offsets, np.tile([0, size], (count, 1)))


@given(speakers=st.integers(5, 12), one_out=st.booleans())
def test_no_voice_crosses_from_test_to_training(speakers: int, one_out: bool) -> None:
    utterances = _utterances(speakers)
    protocol = LeaveOneSpeakerOut() if one_out else KFold(folds=5)
    splits = [fold.split for fold in folds(protocol, utterances, 0)]
    groups = voice_groups(utterances, splits)
    group = {str(u.path): g for u, g in zip(utterances, groups.tolist(), strict=True)}
    for split in splits:
        train = {group[str(u.path)] for u in split.train}
        held = {group[str(u.path)] for u in (*split.validation, *split.test)}
        assert not train & held
    assert len(set(groups.tolist())) == (speakers if one_out else 5)


def test_who_is_tested_cannot_be_heard_in_training(tmp_path: Path) -> None:
    utterances = _utterances(6)
    splits = [fold.split for fold in folds(LeaveOneSpeakerOut(), utterances, 0)]
    groups = voice_groups(utterances, splits)
    clips = _clips(utterances)
    bank = render(clips, BABBLE, NoiseLibrary(), 1, tmp_path, groups=groups)
    # another voice for the last speaker
    samples = clips.samples.copy()
    samples[clips.offsets[-3] :] = _clips(utterances, 9).samples[clips.offsets[-3] :]
    changed = Clips(clips.utterances, samples, clips.offsets, clips.bounds)
    other = render(changed, BABBLE, NoiseLibrary(), 1, tmp_path, groups=groups)
    assert bank.key != other.key
    np.testing.assert_array_equal(bank.audio[:, :-2], other.audio[:, :-2])
    assert not np.array_equal(bank.audio[:, -2:], other.audio[:, -2:])
    together = render(clips, BABBLE, NoiseLibrary(), 1, tmp_path)
    mixed = render(changed, BABBLE, NoiseLibrary(), 1, tmp_path)
    assert not np.array_equal(together.audio[:, :-2], mixed.audio[:, :-2])


def test_a_fold_takes_its_own_rows(tmp_path: Path) -> None:
    clips = _clips(_utterances(3))
    bank = render(clips, BABBLE, NoiseLibrary(), 1, tmp_path)
    rows = np.array([4, 1])
    part = bank.subset(rows)
    assert part.length.shape == (3, 2)
    assert part.key != bank.key
    np.testing.assert_array_equal(
        part.take(np.array([2, 0]), np.array([1, 0])), bank.audio[[2, 0], [1, 4]]
    )
    again = part.subset(np.array([1]))
    np.testing.assert_array_equal(again.rows, [1])


def test_copies_do_not_depend_on_who_else_is_there(tmp_path: Path) -> None:
    alone = AugmentSettings(copies=2, babble=0, music=0, room=0, noise=0.5, gaussian=1)
    utterances = _utterances(3)
    clips = _clips(utterances)
    whole = render(clips, alone, NoiseLibrary(), 1, tmp_path)
    fewer = Clips(
        clips.utterances[:4],
        clips.samples[: clips.offsets[4]],
        clips.offsets[:5],
        clips.bounds[:4],
    )
    part = render(fewer, alone, NoiseLibrary(), 1, tmp_path)
    np.testing.assert_array_equal(part.audio, whole.audio[:, :4])


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_found_out_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = _clips(_utterances(3))
    monkeypatch.setattr(os, "posix_fallocate", _full)
    with pytest.raises(TrainerError, match=r"bank-.*\.npy cannot be written: No space left"):
        render(clips, BABBLE, NoiseLibrary(), 1, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    bank = render(clips, BABBLE, NoiseLibrary(), 1, tmp_path)
    recipe = Recipe.model_validate({"name": "x", "corpora": {"emodb": {}}})
    monkeypatch.setattr(os, "posix_fallocate", _full)
    with pytest.raises(TrainerError, match=r"features-.*\.npy cannot be written: No space left"):
        measure_bank(bank, recipe, tmp_path)
    assert not list(tmp_path.glob("features-*"))


def test_features_are_cut_with_their_segments(tmp_path: Path) -> None:
    clips = _clips(_utterances(3))
    bank = render(clips, BABBLE, NoiseLibrary(), 1, tmp_path)
    recipe = Recipe.model_validate(
        {"name": "x", "corpora": {"emodb": {}}, "frontend": {"n_fft": 256, "hop_length": 200}}
    )
    features = measure_bank(bank, recipe, tmp_path)
    assert features is not None
    copies, rows = np.array([0, 1]), np.array([2, 5])
    whole, frames = features.take(copies, rows, np.array([0, 0]))
    cut, fewer = features.take(copies, rows, np.array([1600, 0]))
    assert fewer.tolist() == [frames[0] - 8, frames[1]]
    np.testing.assert_array_equal(cut[0, :, : fewer[0]], whole[0, :, 8 : frames[0]])
    np.testing.assert_array_equal(cut[1], whole[1, :, : cut.shape[2]])
    # up to the end of a teacher's step, and found in the cache
    assert whole.shape[2] % 8 == 0
    assert features.steps(whole.shape[2]) == whole.shape[2] // 8
    stored = measure_bank(bank, recipe, tmp_path)
    assert stored is not None
    np.testing.assert_array_equal(stored.values, features.values)
