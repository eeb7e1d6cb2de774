"""Where an experiment's figures come from: data, recipe, versions, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainer.corpora import REGISTRY
from trainer.corpora.reading import read_corpora
from trainer.errors import TrainerError
from trainer.pages.corpus import read_headers
from trainer.pages.markup import Block, Code, Notice, Table
from trainer.pages.tree import Experiment
from trainer.plots.recordings import Recording, of_predictions, of_utterances

_PACKAGES = ("serd", "numpy", "torch", "librosa", "scikit-learn", "onnx", "soundfile", "matplotlib")


def recordings_of(experiment: Experiment, root: Path | None) -> tuple[list[Recording], list[str]]:
    """The recipe's recordings where its corpora are at hand, otherwise those that were tested.

    Also sentences on what is missing.
    """
    notes: list[str] = []
    if root is not None and experiment.recipes:
        recipe = next(iter(experiment.recipes.values()))
        try:
            reading = read_corpora(recipe.corpora, root, recipe.label_map, complete=False)
        except TrainerError as error:
            notes.append(f"The corpora are not at hand, so only what was tested is shown. {error}")
        else:
            return of_utterances(reading.utterances), reading.notes()
    heard = (p for run in experiment.runs for p in run.predictions() if p.condition == "clean")
    return of_predictions(heard), notes


def data_blocks(recordings: Sequence[Recording], notes: Sequence[str]) -> list[Block]:
    """A row for each corpus, and what is missing."""
    blocks: list[Block] = [Notice(note) for note in notes]
    if not recordings:
        return [*blocks, Notice("Which recordings were used is not known.")]
    seconds = {p: h.seconds for p, h in read_headers(recordings).items()}
    rows = []
    for name in sorted({r.corpus for r in recordings}):
        here = [r for r in recordings if r.corpus == name]
        known = REGISTRY.get(name)
        total = sum(seconds.get(r.path, 0.0) for r in here) / 3600
        rows.append(
            [
                name,
                known.title if known is not None else "a folder of recordings",
                ", ".join(sorted({r.language for r in here if r.language})) or "–",
                known.licence if known is not None else "not stated",
                known.source if known is not None else "–",
                str(len(here)),
                str(len({r.speaker for r in here})),
                f"{total:.2f}" if total else "–",
            ]
        )
    head = ("corpus", "title", "language", "licence", "from", "utterances", "speakers", "hours")
    missing = sum(r.path not in seconds for r in recordings)
    if missing:
        blocks.append(Notice(f"{missing} of {len(recordings)} recordings are not on this machine."))
    return [Table(head, rows, words=5), *blocks]


def recipe_blocks(experiment: Experiment) -> list[Block]:
    """The recipe as it was run."""
    if not experiment.recipe_text:
        return [Notice("There is no recipe.toml in the folder.")]
    return [Code(experiment.recipe_text.strip())]


def seed_of(experiment: Experiment) -> int:
    """The recipe's seed, 0 where there is no recipe."""
    return next((recipe.seed for recipe in experiment.recipes.values()), 0)


def version_blocks(experiment: Experiment) -> list[Block]:
    """Seed, and versions: those kept with the experiment, otherwise those at hand."""
    rows: list[tuple[str, str]] = []
    if experiment.recipes:
        rows.append(("seed", str(seed_of(experiment))))
    for key, value in experiment.details.items():
        if isinstance(value, str | int | float) and key not in {"name", "seed", "version"}:
            rows.append((key.replace("_", " "), str(value)))
    kept = experiment.details.get("versions")
    caption = "Versions as kept when it was trained."
    if isinstance(kept, Mapping):
        rows += [(str(name), str(number)) for name, number in kept.items()]
    else:
        caption = "Versions of the machine that drew this page: the experiment keeps none."
        rows += [(name, number) for name in _PACKAGES if (number := _version(name))]
    return [Table(("", ""), rows, caption, words=2)]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
