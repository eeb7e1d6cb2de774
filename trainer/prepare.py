"""From a recipe and a folder of corpora to what the training loop reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.audio import Clips, load_clips
from trainer.augment import Augmenter, load_noise
from trainer.bank import render
from trainer.corpora import Utterance, load
from trainer.errors import TrainerError
from trainer.evaluate import CONDITIONS, cut_segments
from trainer.recipe import Recipe
from trainer.splits import Split, split_by_speaker
from trainer.train import TrainingData


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie: `corpora/NAME` and `noise/` under `shared`, and a cache."""

    shared: Path
    cache: Path


def load_split(recipe: Recipe, places: Places) -> Split:
    """The recipe's corpora, divided by its speakers.

    Raises
    ------
    TrainerError
        a corpus is missing, or a speaker is not in it.
    """
    utterances: list[Utterance] = []
    for name in recipe.corpora:
        utterances.extend(load(name, places.shared / "corpora").utterances)
    return split_by_speaker(utterances, recipe.corpora)


def decode_part(utterances: tuple[Utterance, ...], places: Places) -> Clips:
    """The recordings of one part, decoded."""
    return load_clips(utterances, places.cache, progress=True)


def prepare(recipe: Recipe, places: Places, processes: int = 1) -> TrainingData:
    """Decode, degrade and cut, or take from the cache what was done before.

    Raises
    ------
    TrainerError
        see `load_split`; or a part is empty; or noise is missing.
    """
    split = load_split(recipe, places)
    for part in ("train", "validation"):
        if not getattr(split, part):
            raise TrainerError(f"The recipe leaves no utterance for {part}.")
    clips = decode_part(split.train, places)
    library = load_noise(places.shared / "noise")
    bank = render(
        clips,
        recipe.augment,
        library,
        recipe.seed,
        places.cache,
        processes,
        progress=True,
    )
    held = decode_part(split.validation, places)
    validation = tuple(cut_segments(held, range(len(held)), c) for c in CONDITIONS)
    targets = None
    if recipe.distil is not None:
        from trainer.teacher import teach

        targets = teach(
            clips,
            Augmenter(recipe.augment, library, clips),
            bank,
            recipe.distil,
            recipe.train.balance,
            recipe.seed,
            places.cache,
            processes,
        )
    return TrainingData(bank, clips.utterances, validation, targets)
