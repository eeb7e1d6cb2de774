"""The encoder before it has learnt: a piece of its teacher, and how little a narrow one loses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainer.compact.made_up_teacher import HIDDEN, MELS, WIDTH, MakeRecipe
from trainer.backbones.compact import Compact
from trainer.backbones.whisper import Whisper
from trainer.compact.beginning import Standard, begin, compact_settings, measure_standard
from trainer.compact.lessons import Lessons, load_teacher
from trainer.compact.settings import EncoderRecipe
from trainer.errors import TrainerError

WHOLE = {"stride": 1, "hidden": HIDDEN, "depth": 3}
LENGTH = torch.tensor([16_000, 9_000, 5_000])


def _audio() -> Tensor:
    audio = 0.1 * torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0))
    return audio * (torch.arange(16_000) < LENGTH[:, None])


def _lessons(teacher: Whisper, layers: tuple[int, ...], stride: int, bands: int) -> Lessons:
    """What a teacher says of noise, and nonsense beyond the end of each segment."""
    with torch.no_grad():
        mel, frames = teacher.log_mel(_audio(), LENGTH)
        told, steps = teacher(_audio(), LENGTH, layers)
    for row, count in zip(told, steps, strict=True):
        row[:, int(count) :] = 1000
    level = mel.sum(dim=(0, 1)) / frames.sum()
    return Lessons(
        mel[None, :, :, :bands].numpy().astype(np.float16),
        told[None, :, :, ::stride].numpy().astype(np.float16),
        frames[None].numpy(),
        level.numpy(),
        stride,
        "",
        (),
    )


def _begin(
    recipe: EncoderRecipe, change: Callable[[Any], None] = lambda _: None
) -> tuple[Whisper, Compact, Standard]:
    teacher = load_teacher(recipe.teacher)
    with torch.no_grad():
        change(teacher)
    settings = compact_settings(recipe, teacher)
    lessons = _lessons(teacher, settings.layers, settings.stride, settings.bands)
    standard = measure_standard(lessons, recipe.seed)
    encoder = begin(teacher, settings, lessons, standard, recipe.seed)
    assert encoder.settings == settings
    return teacher, encoder, standard


def _hidden(encoder: Compact) -> tuple[Tensor, Tensor]:
    """Its last layer [batch, steps, width], and the valid steps."""
    same = nn.Linear(encoder.width, encoder.width)
    nn.init.eye_(same.weight)
    nn.init.zeros_(same.bias)
    encoder.maps = nn.ModuleList([same])
    mel, frames = encoder.log_mel(_audio(), LENGTH)
    said, steps = encoder.tell(mel, frames)
    return said[:, 0], steps


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_whole_of_it_says_what_the_teacher_says(make_recipe: MakeRecipe, depth: int) -> None:
    sizes = {"stride": 1, "hidden": HIDDEN, "depth": depth}
    teacher, encoder, standard = _begin(make_recipe(sizes=sizes))
    with torch.inference_mode():
        expected, counts = teacher(_audio(), LENGTH, (depth,))
        said, steps = encoder(_audio(), LENGTH, (depth,))
    assert torch.equal(steps, counts)
    own = depth - 1
    said = said * standard.deviation[own] + standard.mean[own]
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(
            said[row, 0, :count], expected[row, 0, :count], atol=1e-4, rtol=1e-4
        )


def test_what_it_says_is_standardised(make_recipe: MakeRecipe) -> None:
    _, encoder, _ = _begin(make_recipe(sizes={"stride": 1, "hidden": HIDDEN, "depth": 3}))
    with torch.inference_mode():
        said, steps = encoder(_audio(), LENGTH, (3,))
    valid = torch.cat([row[0, :count] for row, count in zip(said, steps.tolist(), strict=True)])
    torch.testing.assert_close(valid.mean(dim=0), torch.zeros(WIDTH), atol=0.01, rtol=0)
    torch.testing.assert_close(valid.std(dim=0), torch.ones(WIDTH), atol=0.02, rtol=0)


def test_its_steps_are_some_of_the_teachers(make_recipe: MakeRecipe) -> None:
    teacher, encoder, _ = _begin(make_recipe(sizes={"stride": 2, "hidden": HIDDEN}))
    assert encoder.settings.positions == 750
    encoder.blocks = nn.ModuleList()
    with torch.inference_mode():
        before, counts = teacher(_audio(), LENGTH, (0,))
        hidden, steps = _hidden(encoder)
    assert torch.equal(steps, (counts + 1) // 2)
    for row, count in enumerate(steps.tolist()):
        torch.testing.assert_close(
            hidden[row, :count], before[row, 0, ::2][:count], atol=1e-4, rtol=1e-4
        )


def test_units_that_never_change_are_dropped_without_loss(make_recipe: MakeRecipe) -> None:
    dull = [0, 3, 4, 9, 10, 11, 12, 17, 20, 21, 22, 23]

    def make_dull(teacher: Any) -> None:
        for block in teacher.blocks:
            block.widen.weight[dull] = 0.0
            block.widen.bias[dull] = 2.0

    _loses_nothing(make_recipe(sizes=WHOLE | {"hidden": HIDDEN - len(dull)}), make_dull)


def test_heads_that_find_nothing_are_dropped_without_loss(make_recipe: MakeRecipe) -> None:
    def make_dull(teacher: Any) -> None:
        for number, block in enumerate(teacher.blocks):
            # Values are the last third of the product.
            first = 2 * WIDTH + (0 if number % 2 else WIDTH // 2)
            half = slice(first, first + WIDTH // 2)
            block.attend.weight[half] = 0.0
            block.attend.bias[half] = 2.0

    _loses_nothing(make_recipe(sizes=WHOLE | {"heads": 1}), make_dull)


def test_bands_that_never_change_are_dropped_without_loss(make_recipe: MakeRecipe) -> None:
    def make_deaf(teacher: Any) -> None:
        teacher.conv1.weight[:, 10:] = 0.0

    _loses_nothing(make_recipe(sizes=WHOLE | {"bands": 10}), make_deaf)


def _loses_nothing(recipe: EncoderRecipe, change: Callable[[Any], None]) -> None:
    teacher, encoder, standard = _begin(recipe, change)
    with torch.inference_mode():
        expected, counts = teacher(_audio(), LENGTH, (3,))
        said, _ = encoder(_audio(), LENGTH, (3,))
    said = said * standard.deviation[2] + standard.mean[2]
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(
            said[row, 0, :count], expected[row, 0, :count], atol=5e-3, rtol=5e-3
        )


@pytest.mark.parametrize("narrower", [{"hidden": 8}, {"heads": 1}])
def test_what_is_dropped_is_replaced_by_its_mean(
    make_recipe: MakeRecipe, narrower: dict[str, int]
) -> None:
    one = WHOLE | {"depth": 1}
    _, whole, _ = _begin(make_recipe(sizes=one))
    _, narrow, _ = _begin(make_recipe(sizes=one | narrower))
    # The dense part comes after the attention, and bends what that adds.
    for encoder in (whole, narrow):
        if "heads" in narrower:
            nn.init.zeros_(encoder.blocks[0].narrow.weight)  # type: ignore[union-attr, arg-type]
    with torch.inference_mode():
        (there, steps), (kept, _) = _hidden(whole), _hidden(narrow)
    off = torch.cat([(a - b)[:n] for a, b, n in zip(there, kept, steps.tolist(), strict=True)])
    assert off.abs().mean() > 0.01
    assert off.mean(dim=0).abs().max() < 0.05 * off.abs().mean()


def test_bands_that_are_not_heard_are_taken_at_their_mean(make_recipe: MakeRecipe) -> None:
    teacher, encoder, _ = _begin(make_recipe(sizes=WHOLE | {"bands": 10}))
    lessons = _lessons(teacher, (1,), 1, MELS)
    mel = torch.randn(1, MELS, 50)
    mel[:, 10:] = torch.from_numpy(lessons.level[10:])[:, None]
    with torch.inference_mode():
        expected, found = teacher.conv1(mel), encoder.conv1(mel[:, :10])
    # At the ends the convolution hears nothing instead.
    torch.testing.assert_close(found[..., 1:-1], expected[..., 1:-1], atol=1e-4, rtol=1e-4)


def test_all_of_it_learns_and_nothing_of_the_teacher(make_recipe: MakeRecipe) -> None:
    teacher, encoder, _ = _begin(make_recipe())
    assert all(value.requires_grad for value in encoder.parameters())
    theirs = {value.data_ptr() for value in teacher.parameters()}
    assert not theirs & {value.data_ptr() for value in encoder.state_dict().values()}


def test_sizes_come_from_the_teacher(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    teacher = load_teacher(recipe.teacher)
    settings = compact_settings(recipe, teacher)
    assert (settings.mels, settings.width, settings.heads) == (MELS, WIDTH, 2)
    assert (settings.depth, settings.hidden, settings.layers) == (1, 12, (1, 2, 3))
    assert (settings.bands, settings.head_size) == (MELS, 8)
    assert compact_settings(make_recipe(sizes={"hidden": None}), teacher).hidden == HIDDEN
    for name, there in (("hidden", HIDDEN), ("heads", 2), ("bands", MELS)):
        with pytest.raises(TrainerError, match=rf"sizes\.{name}: the teacher has {there}, not"):
            compact_settings(make_recipe(sizes={name: there + 1}), teacher)
