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
    """Read corpus `name` from `root/name`: speech alone, under the corpora's labels.

    A recipe's corpora are read by `trainer.corpora.reading`.

    Raises
    ------
    TrainerError
        the folder is missing or holds no file in the corpus's naming.
    """
    from trainer.corpora.reading import scan_section
    from trainer.corpora.settings import CorpusSettings

    get(name)
    return scan_section(name, CorpusSettings(), root)
