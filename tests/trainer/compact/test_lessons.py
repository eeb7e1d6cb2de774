"""Lessons: who hears what, what is kept, and what cannot teach."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.compact.made_up_teacher import HIDDEN, MELS, WIDTH, MakeRecipe
from trainer.backbones.compact import Compact, CompactSettings, compact_steps, save_compact
from trainer.backbones.whisper import Whisper
from trainer.compact.beginning import begin, compact_settings, measure_standard
from trainer.compact.lessons import Lessons, load_teacher, make_lessons
from trainer.compact.settings import EncoderRecipe
from trainer.errors import TrainerError
from trainer.prepare import Places

LAYERS = 3
WHOLE = {"stride": 1, "hidden": HIDDEN, "depth": 3}


def _lessons(recipe: EncoderRecipe, places: Places) -> Lessons:
    teacher = load_teacher(recipe.teacher)
    return make_lessons(recipe, compact_settings(recipe, teacher), teacher, places)


def _rows(told: torch.Tensor, frames: torch.Tensor, stride: int) -> list[torch.Tensor]:
    """The valid steps of each segment: float32 [layers, valid steps, width]."""
    counts = compact_steps(frames, stride).tolist()
    return [row[:, :count] for row, count in zip(told, counts, strict=True)]


def _copy(lessons: Lessons, copy: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    there = np.arange(lessons.frames.shape[1])
    return lessons.take(np.full(len(there), copy), there)


def _told(lessons: Lessons, copy: int) -> list[torch.Tensor]:
    """What the teacher said of the segments of a copy."""
    _, told, frames = _copy(lessons, copy)
    return _rows(told, frames, lessons.stride)


def _said(recipe: EncoderRecipe, lessons: Lessons, copy: int) -> list[torch.Tensor]:
    """What its highest layer says of the student's input."""
    teacher = load_teacher(recipe.teacher)
    standard = measure_standard(lessons, 0)
    whole = begin(teacher, compact_settings(recipe, teacher), lessons, standard, 0)
    mel, _, frames = _copy(lessons, copy)
    with torch.inference_mode():
        said, _ = whole.tell(mel, frames)
    said = said * standard.deviation[:, None] + standard.mean[:, None]
    return _rows(said, frames, lessons.stride)


def _apart(one: list[torch.Tensor], two: list[torch.Tensor]) -> float:
    """Mean difference of the highest layer over the steps that both have, in deviations."""
    pairs = [(a[-1], b[-1]) for a, b in zip(one, two, strict=True)]
    shorter = [min(len(a), len(b)) for a, b in pairs]
    off = [(a[:n] - b[:n]).abs().mean() for (a, b), n in zip(pairs, shorter, strict=True)]
    return float(torch.stack(off).mean() / torch.cat([a for a, _ in pairs]).std())


def test_shapes_and_speakers(make_recipe: MakeRecipe, everywhere: Places) -> None:
    lessons = _lessons(make_recipe(), everywhere)
    assert lessons.mel.shape == (2, 36, 300, MELS)
    assert lessons.level.shape == (MELS,)
    assert lessons.told.shape == (2, 36, LAYERS, 75, WIDTH)
    assert lessons.frames.shape == (2, 36)
    assert lessons.frames.min() > 10
    assert lessons.speakers == ("emodb/03", "emodb/08", "emodb/09")


def test_of_a_degraded_copy_the_teacher_hears_the_original(
    make_recipe: MakeRecipe, everywhere: Places
) -> None:
    # The same draws of voice and cut in both; only in one of them is the copy then degraded.
    loud = {"noise": 1.0, "gaussian": 1.0, "music": 0, "babble": 0, "snr_db": [0, 0]}
    recipe = make_recipe(augment={**loud, "clean_copies": 1}, sizes=WHOLE)
    degraded = _lessons(recipe, everywhere)
    clean = _lessons(make_recipe(augment={**loud, "clean_copies": 2}, sizes=WHOLE), everywhere)
    assert np.array_equal(degraded.frames, clean.frames)
    assert np.array_equal(degraded.mel[0], clean.mel[0])
    # Audio is rounded to 16 bits on one of the two ways, and the teacher counts in bfloat16.
    assert _apart(_told(degraded, 1), _told(clean, 1)) < 0.02
    # What is said of a degraded copy is not what a teacher would say that hears it.
    assert _apart(_told(clean, 1), _said(recipe, clean, 1)) < 0.02
    assert _apart(_told(degraded, 0), _said(recipe, degraded, 0)) < 0.02
    assert _apart(_told(degraded, 1), _said(recipe, degraded, 1)) > 0.3


def test_steps_are_left_out_and_not_averaged(make_recipe: MakeRecipe, everywhere: Places) -> None:
    every = _lessons(make_recipe(sizes={"stride": 1}), everywhere)
    third = _lessons(make_recipe(sizes={"stride": 3}), everywhere)
    assert every.key != third.key
    assert third.told.shape[3] == 50
    for whole, some in zip(_told(every, 0), _told(third, 0), strict=True):
        assert torch.equal(whole[:, ::3], some)


def test_the_student_may_hear_the_lowest_bands_alone(
    make_recipe: MakeRecipe, everywhere: Places
) -> None:
    whole = _lessons(make_recipe(), everywhere)
    low = _lessons(make_recipe(sizes={"bands": 10}), everywhere)
    assert low.mel.shape[3] == 10
    np.testing.assert_array_equal(low.told, whole.told)
    valid = np.arange(300) < whole.frames[0][:, None]
    level = np.asarray(whole.mel[0], np.float32)[valid].mean(axis=0)
    np.testing.assert_allclose(whole.level, level, atol=0.01)
    np.testing.assert_allclose(low.level, whole.level, atol=1e-6)


def test_the_cache_is_used_again_if_it_was_finished(
    make_recipe: MakeRecipe, made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, places = make_recipe(), Places(made_up, tmp_path)
    plain, calls = Whisper.forward, []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(Whisper, "forward", counted)
    first = _lessons(recipe, places)
    needed = len(calls)
    assert needed
    again = _lessons(recipe, places)
    assert len(calls) == needed
    assert again.key == first.key
    np.testing.assert_array_equal(again.told, first.told)

    next(tmp_path.glob("lessons-*.npz")).unlink()
    next(tmp_path.glob("lessons-*.told.npy")).write_bytes(b"half")
    redone = _lessons(recipe, places)
    assert len(calls) == 2 * needed
    np.testing.assert_array_equal(redone.told, first.told)


def test_lessons_depend_on_the_teachers_weights(
    make_recipe: MakeRecipe, everywhere: Places
) -> None:
    recipe = make_recipe()
    teacher = load_teacher(recipe.teacher)
    settings = compact_settings(recipe, teacher)
    first = make_lessons(recipe, settings, teacher, everywhere)
    teacher.conv1.bias.data += 0.5
    assert make_lessons(recipe, settings, teacher, everywhere).key != first.key


def test_a_full_disk_leaves_nothing_behind(
    make_recipe: MakeRecipe, made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.posix_fallocate

    def full(file: int, offset: int, length: int) -> None:
        if any(tmp_path.glob("lessons-*")):
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(file, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TrainerError, match=r"lessons-.*cannot be written: No space left"):
        _lessons(make_recipe(), Places(made_up, tmp_path))
    assert not list(tmp_path.glob("lessons-*"))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_segments_are_as_long_as_the_longest(stride: int) -> None:
    steps = -(-150 // stride)
    rng = np.random.default_rng(0)
    lessons = Lessons(
        mel=rng.normal(size=(1, 3, 300, 8)).astype(np.float16),
        told=rng.normal(size=(1, 3, 2, steps, 8)).astype(np.float16),
        frames=np.array([[40, 41, 300]]),
        level=np.zeros(8, np.float32),
        stride=stride,
        key="",
        speakers=(),
    )
    mel, told, frames = lessons.take(np.array([0, 0]), np.array([1, 0]))
    assert frames.tolist() == [41, 40]
    assert told.shape[2] == -(-41 // (2 * stride)) >= int(compact_steps(frames, stride).max())
    assert mel.shape[1] == told.shape[2] * 2 * stride
    np.testing.assert_array_equal(mel[0], lessons.mel[0, 1, : mel.shape[1]])
    np.testing.assert_array_equal(told[1], lessons.told[0, 0, :, : told.shape[2]])
    whole, said, _ = lessons.take(np.array([0]), np.array([2]))
    assert said.shape[2] == steps
    assert whole.shape[1] == steps * 2 * stride
    assert not whole[:, 300:].any()


def test_sounds_are_asked_for_only_where_they_are_used(
    make_recipe: MakeRecipe, made_up: Path, tmp_path: Path
) -> None:
    (tmp_path / "corpora").symlink_to(made_up / "corpora")
    places = Places(tmp_path, tmp_path / "cache")
    with pytest.raises(TrainerError, match="is missing: augmentation takes its sounds there"):
        _lessons(make_recipe(), places)
    alone = make_recipe(augment={"copies": 1})
    assert _lessons(alone, places).mel.shape[0] == 1


def test_what_cannot_teach_is_told(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    settings = make_recipe().teacher

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(TrainerError, match=message):
            load_teacher(settings.model_copy(update=changes))

    refused("teacher.layers: .* has layers 0 to 3, not 3, 4", layers=(3, 4))
    refused("teacher.encoder = 'package:nothing': the packages are", encoder="package:nothing")
    path = tmp_path / "encoder.pt"
    save_compact(Compact(CompactSettings(mels=8, width=8, heads=2, hidden=8)), path)
    refused("teacher.encoder = .* is no Whisper", encoder=str(path))


def test_what_is_left_out_is_told(make_recipe: MakeRecipe, made_up: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpora" / "emodb"
    corpus.mkdir(parents=True)
    for path in sorted((made_up / "corpora" / "emodb").iterdir())[:4]:
        (corpus / path.name).symlink_to(path)
    (corpus / "mistake.wav").symlink_to(path)
    recipe = make_recipe(augment={"copies": 1})
    said: list[str] = []
    places = Places(tmp_path, tmp_path / "cache")
    teacher = load_teacher(recipe.teacher)
    settings = compact_settings(recipe, teacher)
    make_lessons(recipe, settings, teacher, places, tell=said.append)
    assert len(said) == 1
    assert "emodb: left out 1" in said[0]
