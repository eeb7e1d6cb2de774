from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.trainer.made_up_experiment import make_up_experiment
from trainer.cli import main
from trainer.errors import TrainerError
from trainer.html import write_corpus, write_report
from trainer.pages.markup import Figures, Page, Section, render, write_page
from trainer.plots.style import draw
from trainer.prepare import Places

LABELS = ("neutral", "sad", "angry")
RECIPE = """
name = "tiny"
seed = 3
labels = "angry-happy-sad"
[corpora.emodb]
validation = ["08"]
test = ["09"]
"""
_VOID = {"meta", "br", "img", "link", "hr", "input"}
SECTIONS = ("results", "models", "examples", "features", "data", "recipe", "versions")


class _Checker(HTMLParser):
    """Checks nesting, and collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self._attributes(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._attributes(tag, attrs)

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} {name}"
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                (self.links if (value or "").startswith("#") else self.loaded).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def _check(path: Path) -> _Checker:
    page = path.read_text("utf-8")
    checker = _Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids))
    assert {link[1:] for link in checker.links} <= set(checker.ids)
    assert all(one.startswith("data:image/png;base64,") for one in checker.loaded)
    assert "script" not in checker.tags
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    return checker


def _recordings(shared: Path) -> list[tuple[str, str, str]]:
    label = {"N": "neutral", "T": "sad", "W": "angry"}
    return [
        (str(path), label[path.stem[5]], path.stem[:2])
        for path in sorted((shared / "corpora" / "emodb").iterdir())
        if path.stem[5] in label
    ]


@pytest.fixture(scope="module")
def experiment(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with a fold that failed, and its page."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = RECIPE.replace('"angry-happy-sad"', "{neutral='neutral', sad='sad', angry='angry'}")
    make_up_experiment(folder, LABELS, _recordings(made_up), recipe)
    write_report(folder, Places(made_up, folder.parent / "cache"))
    return folder


def test_the_page_stands_alone_and_has_every_section(experiment: Path) -> None:
    page = _check(experiment / "report.html")
    assert set(SECTIONS) <= set(page.ids)
    assert "data:image/png" in page.loaded[0]
    for words in (
        "UAR at a glance",
        "Confusion, clean",
        "Confusion, telephone",
        "Reliability",
        "By class, clean",
        "Learning rate",
        "t-SNE by emotion",
        "PCA",
        "by speaker",
        "Pitch (median F0)",
        "MFCC 1",
        "What sets the emotions apart",
        "By fold",
        "By corpus",
        "By sex",
        "EMO-DB",
        "seed",
        'validation = ["08"]',
        "the loss diverged in epoch 3",
        "3 of 4",
    ):
        assert words in page.text, words


def test_every_figure_is_also_a_png(experiment: Path) -> None:
    text = (experiment / "report.html").read_text("utf-8")
    pictures = list((experiment / "figures").iterdir())
    assert text.count("<figure") == len(pictures) > 20
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_speaker_dependent_figures_are_marked_everywhere(experiment: Path) -> None:
    page = (experiment / "report.html").read_text("utf-8")
    rows = re.findall(r"<tr>.*?</tr>", page, re.DOTALL)
    overview = [row for row in rows if 'scope="row">random' in row and 'class="n"' in row]
    random = page[page.index("<summary>random") :]
    random = random[: random.index("</details>")]
    assert "Speaker-dependent: the speakers that are tested have also trained" in random
    details = re.findall(r"<tr><th scope=\"row\".*?</tr>", random, re.DOTALL)
    figures = [row for row in details if 'class="n"' in row]
    assert len(overview) == 3
    assert len(figures) > 3
    for row in (*overview, *figures):
        assert '<span class="mark">speaker-dependent</span>' in row
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", random)
    assert len(captions) > 8
    assert all("speaker-dependent" in caption for caption in captions)
    apart = page[page.index("<summary>k-fold") : page.index("<summary>random")]
    assert 'class="mark"' not in apart


@pytest.fixture
def bare(experiment: Path, tmp_path: Path) -> Path:
    """The same experiment's first fold with nothing but its log, and no rows in the report."""
    folder = tmp_path / "bare"
    run = folder / "k-fold/crnn/fold-0"
    run.mkdir(parents=True)
    shutil.copy(experiment / "k-fold/crnn/fold-0/log.csv", run)
    shutil.copy(experiment / "recipe.toml", folder)
    details = json.loads((experiment / "experiment.json").read_text())
    details["runs"] = details["runs"][:1]
    (folder / "experiment.json").write_text(json.dumps(details))
    values = json.loads((experiment / "report.json").read_text())
    values["entries"] = [{**values["entries"][0], "rows": []}]
    (folder / "report.json").write_text(json.dumps(values))
    return folder


def test_the_page_is_the_same_every_time(bare: Path) -> None:
    before = write_report(bare, None).read_bytes()
    stale = bare / "figures" / "of-a-former-page.png"
    stale.write_bytes(b"")
    assert write_report(bare, None).read_bytes() == before
    assert len(list((bare / "figures").iterdir())) == 4
    assert not stale.exists()


def test_the_page_says_what_is_missing(bare: Path) -> None:
    (bare / "k-fold/crnn/fold-0/log.csv").unlink()
    page = _check(write_report(bare, None))
    assert set(SECTIONS) <= set(page.ids)
    for words in (
        "No curves",
        "No projection of the embeddings",
        "Nobody was held out",
        "No recordings are known",
        "Which recordings were used is not known",
        "the experiment keeps none",
    ):
        assert words in page.text, words


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (["report.json"], "There are no figures yet"),
        (["experiment.json"], "experiment.json is missing"),
        (["recipe.toml"], "There is no recipe.toml"),
        (["report.json", "experiment.json"], "No model has been trained in this folder"),
    ],
)
def test_the_page_lives_without(bare: Path, lost: list[str], said: str) -> None:
    (bare / "k-fold/crnn/fold-0/log.csv").unlink()
    for name in lost:
        (bare / name).unlink()
    page = _check(write_report(bare, None))
    assert set(SECTIONS) <= set(page.ids)
    assert said in page.text


@pytest.mark.parametrize("name", ["report.json", "experiment.json", "recipe.toml"])
def test_damaged_files_are_told(bare: Path, name: str) -> None:
    for run in (bare / "k-fold/crnn/fold-0").iterdir():
        run.unlink()
    (bare / name).write_bytes(b"\xff{")
    if name != "report.json":
        (bare / "report.json").unlink()
    page = _check(write_report(bare, None))
    assert name in page.text


def test_odd_names_are_text(tmp_path: Path) -> None:
    labels = ("<script>alert(1)</script>", 'a & "b"', "$喜び$")
    recordings = [(f"/nowhere/<{i}>.wav", labels[i % 3], f"s<{i % 4}>") for i in range(24)]
    recipe = 'name = "</code><b>"\n'
    make_up_experiment(
        tmp_path / "odd", labels, recordings, recipe, corpus="<i>mine</i>", folds=1, epochs=1,
        kinds=("k-fold",),
    )  # fmt: skip
    path = tmp_path / "odd" / "experiment.json"
    details = json.loads(path.read_text())
    details["runs"][0] |= {"state": "failed", "reason": "<img src=x onerror=alert(1)>"}
    path.write_text(json.dumps(details))
    page = _check(write_report(tmp_path / "odd", None))
    assert not {"script", "img", "b", "i"} & page.tags
    for words in (*labels, "<i>mine</i>", "<img src=x onerror=alert(1)>", "</code><b>"):
        assert words in page.text, words


def test_a_folder_that_holds_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="holds no experiment"):
        write_report(tmp_path, None)
    with pytest.raises(TrainerError, match="is not a folder"):
        write_report(tmp_path / "absent", None)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    chart = draw("one", "One", "", lambda figure: None)
    page = Page("t", "k", "l", [Section("s", "S", [Figures([chart])])])
    write_page(page, tmp_path, "page.html")
    before = (tmp_path / "page.html").read_bytes()
    shutil.rmtree(tmp_path / "figures")
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(TrainerError, match=r"page\.html cannot be written"):
        write_page(page, tmp_path, "page.html")
    assert (tmp_path / "page.html").read_bytes() == before


def test_two_figures_of_one_name_are_a_fault(tmp_path: Path) -> None:
    chart = draw("one", "One", "", lambda figure: None)
    page = Page("t", "k", "l", [Section("s", "S", [Figures([chart, chart])])])
    with pytest.raises(ValueError, match="same name"):
        write_page(page, tmp_path, "page.html")


def test_a_page_in_the_dark_and_on_paper() -> None:
    text = render(Page("t", "k", "l", []))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "width=device-width" in text


def test_the_page_of_a_corpus(made_up: Path, tmp_path: Path) -> None:
    places = Places(made_up, tmp_path / "cache")
    page = _check(write_corpus("emodb", tmp_path / "out", places))
    assert {"overview", "contents", "examples", "features"} <= set(page.ids)
    for words in ("EMO-DB", "36", "Utterances by speaker", "Length of the files", "bored"):
        assert words in page.text, words


def test_the_page_of_a_folder_of_ones_own(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as in the test above
    monkeypatch.setattr("trainer.pages.corpus.feature_blocks", lambda *_: [])
    source = sorted((made_up / "corpora" / "emodb").iterdir())
    for label, path in zip(("<joy>", "<joy>", "anger"), source, strict=False):
        (tmp_path / "mine" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "mine" / label / f"{path.stem}x.wav")
    page = _check(
        write_corpus(str(tmp_path / "mine"), tmp_path / "out", Places(made_up, tmp_path / "c"))
    )
    assert "Who speaks is not known" in page.text
    assert "<joy>" in page.text


def test_the_command(experiment: Path, made_up: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    nothing = runner.invoke(main, ["visualize"])
    assert nothing.exit_code == 2
    assert "Name either" in nothing.output
    absent = runner.invoke(main, ["visualize", str(tmp_path / "absent")])
    assert absent.exit_code == 65
    assert "is not a folder" in absent.output
    unknown = runner.invoke(main, ["visualize", "--corpus", "nosuch"])
    assert unknown.exit_code == 65
    assert "neither a folder nor one of the corpora" in unknown.output
    for name in ("experiment.json", "recipe.toml"):
        shutil.copy(experiment / name, tmp_path)
    details = json.loads((tmp_path / "experiment.json").read_text())
    (tmp_path / "experiment.json").write_text(json.dumps({**details, "runs": []}))
    done = runner.invoke(main, ["visualize", str(tmp_path), "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.json").is_file()
    assert done.output.strip().endswith("report.html")
