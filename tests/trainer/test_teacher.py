"""Heads, projections and the lessons that are taken from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.corpora import Utterance
from trainer.distil import Heard, Projection, Targets
from trainer.errors import TrainerError
from trainer.recipe import DistilSettings
from trainer.teacher import Teacher, assign_folds

_WIDTH = 32


def _utterance(number: int, speaker: str, label: str = "sad") -> Utterance:
    return Utterance(Path(f"/{speaker}-{number}"), "nemo", speaker, label, "pl")


def test_the_projection_whitens() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((4_000, 64)) * np.linspace(0.1, 3, 64)).astype(np.float32)
    projected = Projection.learn(values, 16)(values)
    assert np.allclose(projected.std(axis=0), 1, atol=0.01)
    assert np.abs(np.corrcoef(projected.T) - np.eye(16)).max() < 0.01


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=30), st.integers(2, 5))
def test_a_speaker_is_in_one_fold(speakers: list[str], folds: int) -> None:
    utterances = [_utterance(i, s) for i, s in enumerate(speakers)]
    fold = assign_folds(utterances, folds, 0)
    if len(set(speakers)) > 1:
        for speaker in set(speakers):
            assert len({int(fold[i]) for i, s in enumerate(speakers) if s == speaker}) == 1


def test_a_lesson_moves_with_its_audio() -> None:
    rng = np.random.default_rng(0)
    heard = Heard(
        rng.standard_normal((2, 5, 8)).astype(np.float16),
        rng.standard_normal((2, 5, 30, 8)).astype(np.float16),
        np.array([4, 1, 0]),
    )
    plain = Projection(np.zeros(8, np.float32), np.eye(8, dtype=np.float32))
    targets = Targets(rng.standard_normal((2, 3, 9)).astype(np.float32), heard, plain, plain)
    lesson = targets.take(np.array([0, 1]), np.array([2, 0]), np.array([0, 3_200]))
    assert torch.equal(lesson.said[1], torch.from_numpy(targets.logits[1, 0]))
    assert np.allclose(lesson.steps[0], heard.steps[0, 0])
    assert np.allclose(lesson.steps[1, :28], heard.steps[1, 4, 2:])
    assert not lesson.steps[1, 28:].any()
    assert np.allclose(lesson.pooled[1], heard.statistics[1, 4])


def _give_away() -> tuple[list[Utterance], Heard]:
    """Features that give the speaker away and the label only to who knows the speaker."""
    rng = np.random.default_rng(0)
    utterances, rows = [], []
    for number, speaker in enumerate(("a", "b", "c", "d")):
        for i in range(40):
            label = ("sad", "angry")[(number + i) % 2 if number < 2 else i % 2]
            utterances.append(_utterance(i, speaker, label))
            row = rng.normal(0, 0.1, _WIDTH)
            row[number * 8 + i % 2] += 3
            rows.append(row)
    statistics = np.asarray(rows, np.float16)[None]
    steps = rng.standard_normal((1, len(rows), 30, 8)).astype(np.float16)
    return utterances, Heard(statistics, steps, np.arange(len(rows)))


def _teacher(heard: Heard, cache: Path, key: str = "bank") -> Teacher:
    settings = DistilSettings(head_steps=400, components=4, folds=4)
    return Teacher(heard, key, settings, ("sad", "angry"), 0.0, 0, cache)


def _right(targets: Targets, utterances: list[Utterance]) -> float:
    truth = np.asarray([("sad", "angry").index(u.label) for u in utterances])
    return float(np.mean(targets.logits[0].argmax(axis=1) == truth))


def test_a_group_is_scored_by_a_head_that_did_not_hear_it(tmp_path: Path) -> None:
    utterances, heard = _give_away()
    everyone = np.arange(len(utterances))
    teacher = _teacher(heard, tmp_path)
    by_speaker = np.repeat([0, 1, 2, 3], 40)
    apart = teacher.targets(utterances, everyone, by_speaker)
    # Odd and even files of every speaker: each head has heard all of them.
    mixed = teacher.targets(utterances, everyone, everyone // 2 % 2)
    assert _right(mixed, utterances) > 0.95
    assert _right(apart, utterances) < 0.8
    # One group is none: speakers are divided anew.
    alone = teacher.targets(utterances, everyone, np.zeros(len(utterances), np.int64))
    assert _right(alone, utterances) < 0.8
    assert apart.components == (4, 4)


def test_a_head_is_kept_and_belongs_to_its_bank(tmp_path: Path) -> None:
    utterances, heard = _give_away()
    groups = np.repeat([0, 1, 2, 3], 40)
    first = _teacher(heard, tmp_path).targets(utterances, np.arange(160), groups)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("head-*.pt")}
    assert len(kept) == 4
    again = _teacher(heard, tmp_path).targets(utterances, np.arange(160), groups)
    assert np.array_equal(first.logits, again.logits)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("head-*.pt")} == kept
    _teacher(heard, tmp_path, "another").targets(utterances, np.arange(160), groups)
    assert len(list(tmp_path.glob("head-*.pt"))) == 8


def test_a_head_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    utterances, heard = _give_away()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TrainerError, match="cannot be written"):
        _teacher(heard, tmp_path / "file").targets(
            utterances, np.arange(160), np.repeat([0, 1, 2, 3], 40)
        )


def test_layers_of_the_steps_are_among_those_heard() -> None:
    with pytest.raises(ValueError, match="layer 4 is not among"):
        DistilSettings(layers=(1, 2), step_layers=(2, 4))
