"""Corpus loaders: one module a corpus, and the registry of them."""

from __future__ import annotations

from pathlib import Path

from trainer.corpora import cremad, emodb, emovo, nemo, ravdess, savee, tess
from trainer.corpora.base import LABELS, Corpus, Ignored, Scan, Utterance
from trainer.errors import TrainerError

REGISTRY: dict[str, Corpus] = {
    module.CORPUS.name: module.CORPUS
    for module in (ravdess, cremad, tess, savee, emodb, emovo, nemo)
}

__all__ = ["LABELS", "REGISTRY", "Corpus", "Ignored", "Scan", "Utterance", "get", "load"]


def get(name: str) -> Corpus:
    """The corpus called `name`.

    Raises
    ------
    TrainerError
        there is none; the message lists those there are.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        known = ", ".join(sorted(REGISTRY))
        raise TrainerError(f"No corpus is called {name!r}; there are {known}.") from None


def load(name: str, root: Path) -> Scan:
    """Read corpus `name` from `root/name`.

    Raises
    ------
    TrainerError
        the folder is missing or holds no file in the corpus's naming.
    """
    corpus = get(name)
    folder = root / name
    if not folder.is_dir():
        raise TrainerError(
            f"Corpus {name} is not at {folder}. It comes from {corpus.source} "
            f"(licence: {corpus.licence}); put its files there, in any layout."
        )
    scan = corpus.scan(folder)
    if not scan.utterances:
        raise TrainerError(f"{folder} holds no audio file named as {corpus.title} names them.")
    return scan
