"""From a recipe and a folder of corpora to what the training loop reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.audio import Clips, load_clips
from trainer.augment import Augmenter, NoiseLibrary, load_noise
from trainer.bank import Bank, render, voice_groups
from trainer.batches import TrainingData
from trainer.corpora.base import Utterance, require_speakers
from trainer.corpora.reading import read_corpora
from trainer.distil import Targets
from trainer.errors import TrainerError
from trainer.evaluate import cut_segments
from trainer.feature_bank import FeatureBank, is_fixed, measure_bank
from trainer.metrics import Int64
from trainer.protocols import Fold, ProtocolSettings, check_fold, folds
from trainer.recipe import Recipe
from trainer.splits import Part, Split

if TYPE_CHECKING:
    from trainer.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie: `corpora/NAME` and `noise/` under `shared`, and a cache."""

    shared: Path
    cache: Path


def read_utterances(
    recipe: Recipe, places: Places, tell: Callable[[str], None] | None = None
) -> list[Utterance]:
    """The recipe's corpora under its label map; what is left out is told.

    Raises
    ------
    TrainerError
        a corpus is missing, or the label map leaves a class empty.
    """
    reading = read_corpora(recipe.corpora, places.shared / "corpora", recipe.label_map)
    if tell is not None:
        for note in reading.notes():
            tell(note)
    return reading.utterances


def find_folds(
    recipe: Recipe, protocol: ProtocolSettings, utterances: Sequence[Utterance]
) -> list[Fold]:
    """The folds of one of the recipe's protocols.

    Raises
    ------
    TrainerError
        the corpora do not allow it; see `trainer.protocols.folds`.
    """
    if protocol.kind not in ("random", "all"):
        require_speakers(utterances, f"protocols.{protocol.name}")
    return folds(protocol, utterances, recipe.seed, recipe.corpora)


def choose_clips(clips: Clips, indices: Int64) -> Clips:
    """Some of the recordings, in the order given."""
    pieces = [clips.clip(index) for index in indices.tolist()]
    return Clips(
        tuple(clips.utterances[index] for index in indices.tolist()),
        np.concatenate(pieces) if pieces else np.zeros(0, np.int16),
        np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        clips.bounds[indices],
    )


class Stock:
    """What all folds share: recordings, their copies, features of those, a teacher's view.

    Models that are compared side by side share it too, as their recipes differ in nothing that
    concerns it. Everything is made when it is first asked for.
    """

    def __init__(
        self,
        recipe: Recipe,
        members: Sequence[Fold],
        places: Places,
        processes: int = 1,
        progress: bool = False,
    ) -> None:
        self._recipe, self._places = recipe, places
        self._splits = [fold.split for fold in members]
        self._processes, self._progress = processes, progress
        self._features: dict[str, FeatureBank | None] = {}
        self._teachers: dict[str, Teacher] = {}

    @cached_property
    def clips(self) -> Clips:
        """Every recording that some fold uses and that can be read."""
        used: dict[str, Utterance] = {}
        for split in self._splits:
            for utterance in (*split.train, *split.validation, *split.test):
                used.setdefault(str(utterance.path), utterance)
        return load_clips(
            [used[path] for path in sorted(used)],
            self._places.cache,
            progress=self._progress,
            prepare=self._recipe.prepare,
            processes=self._processes,
        )

    @cached_property
    def _place(self) -> dict[str, int]:
        return {str(u.path): i for i, u in enumerate(self.clips.utterances)}

    def _indices(self, utterances: Iterable[Utterance]) -> Int64:
        found = [self._place[str(u.path)] for u in utterances if str(u.path) in self._place]
        return np.asarray(found, np.int64)

    def part(self, split: Split, part: Part) -> Clips:
        """The recordings of one part."""
        return choose_clips(self.clips, self._indices(split.part(part)))

    @cached_property
    def _trained(self) -> Int64:
        """Places of the recordings that train in some fold."""
        return np.unique(np.concatenate([self._indices(s.train) for s in self._splits]))

    @cached_property
    def _groups(self) -> Int64:
        """Of those recordings, see `voice_groups`."""
        trained = [self.clips.utterances[i] for i in self._trained.tolist()]
        return voice_groups(trained, self._splits)

    @cached_property
    def library(self) -> NoiseLibrary:
        """What is mixed in; nothing where the recipe mixes nothing in."""
        settings = self._recipe.augment
        if settings.copies == 1 or not settings.needs_sounds:
            return NoiseLibrary()
        return load_noise(self._places.shared / "noise")

    @cached_property
    def bank(self) -> Bank:
        """Copies of every recording that trains in some fold."""
        trained = choose_clips(self.clips, self._trained)
        return render(
            trained,
            self._recipe.augment,
            self.library,
            self._recipe.seed,
            self._places.cache,
            self._processes,
            progress=self._progress,
            groups=self._groups,
        )

    def _features_of(self, recipe: Recipe) -> FeatureBank | None:
        if not is_fixed(recipe):
            return None
        key = recipe.model_dump_json(include={"frontend", "model"})
        if key not in self._features:
            self._features[key] = measure_bank(
                self.bank, recipe, self._places.cache, self._progress
            )
        return self._features[key]

    def training_data(self, recipe: Recipe, fold: Fold) -> TrainingData:
        """What the loop reads to train a model on one fold.

        Raises
        ------
        TrainerError
            the training part lacks a label that is validated or tested, or has no recording.
        """
        check_fold(fold)
        rows = np.searchsorted(self._trained, self._indices(fold.split.train))
        if not len(rows):
            raise TrainerError(f"{fold.name}: not one training recording can be read.")
        bank = self.bank.subset(rows)
        features = self._features_of(recipe)
        if features is not None:
            features = replace(features, rows=bank.rows)
        utterances = tuple(self.clips.utterances[i] for i in self._trained[rows].tolist())
        held = self.part(fold.split, "validation")
        labels = recipe.label_map.labels
        validation = (
            tuple(cut_segments(held, range(len(held)), c, labels) for c in recipe.train.select)
            if len(held)
            else ()
        )
        targets = self._teach(recipe, utterances, rows)
        return TrainingData(bank, utterances, validation, targets, features)

    def _teach(
        self, recipe: Recipe, utterances: Sequence[Utterance], rows: Int64
    ) -> Targets | None:
        if recipe.distil is None:
            return None
        from trainer.teacher import Teacher, hear_bank

        settings, cache = recipe.distil, self._places.cache
        key = settings.model_dump_json()
        if key not in self._teachers:
            clips = choose_clips(self.clips, self._trained)
            augmenter = Augmenter(recipe.augment, self.library, clips, self._groups)
            heard = hear_bank(
                self.bank, clips, augmenter, settings, recipe.seed, cache, self._processes
            )
            self._teachers[key] = Teacher(
                heard,
                self.bank.key,
                settings,
                recipe.label_map.labels,
                recipe.train.balance,
                recipe.seed,
                cache,
            )
        return self._teachers[key].targets(utterances, rows, self._groups[rows])


def prepare(recipe: Recipe, places: Places, processes: int = 1) -> TrainingData:
    """The training data of the first fold of the recipe's first protocol.

    Raises
    ------
    TrainerError
        see `read_utterances`, `find_folds` and `Stock.training_data`.
    """
    members = find_folds(recipe, recipe.protocols[0], read_utterances(recipe, places))
    stock = Stock(recipe, members, places, processes, progress=True)
    return stock.training_data(recipe, members[0])
