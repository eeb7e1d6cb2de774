"""Reports that people look at: one self-contained HTML file, and its figures as PNG beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.prepare import Places

CORPUS_PAGE = "corpus.html"
REPORT_PAGE = "report.html"


def write_corpus(wanted: str, folder: Path, data: Places, progress: bool = False) -> Path:
    """Write the page of a corpus, by name or by folder, and its figures into `folder`.

    Raises
    ------
    TrainerError
        there is no such corpus, nothing in it can be read, or `folder` cannot be written.
    """
    from trainer.pages.corpus import corpus_page, find_corpus
    from trainer.pages.markup import write_page

    source = find_corpus(wanted, data.shared / "corpora")
    return write_page(corpus_page(source, data.cache, progress), folder, CORPUS_PAGE)


def refresh_figures(folder: Path) -> str:
    """Make `report.json` anew from the predictions that are there; returns why that failed.

    So the page of an experiment that still runs shows what is done.
    """
    from trainer.errors import TrainerError
    from trainer.report import save_report
    from trainer.reporting.build import build_report

    try:
        save_report(build_report(folder), folder)
    except TrainerError as error:
        return str(error)
    return ""


def write_report(folder: Path, data: Places | None, progress: bool = False) -> Path:
    """Write the page of the experiment in `folder`, and its figures, from what lies there.

    Without `data`, or where corpora are missing, the page says what it cannot show.

    Raises
    ------
    TrainerError
        `folder` holds no experiment, or cannot be written.
    """
    from trainer.pages.experiment import experiment_page
    from trainer.pages.markup import write_page
    from trainer.pages.tree import read_experiment

    page = experiment_page(read_experiment(folder), data, progress)
    return write_page(page, folder, REPORT_PAGE)
