from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from trainer.metrics import Reliability, reliability
from trainer.plots.calibration import reliability_chart
from trainer.plots.confusion import confusion_chart, short
from trainer.plots.curves import curve_charts, read_log
from trainer.plots.descriptors import DESCRIPTORS, describe, measure
from trainer.plots.projection import MOST_POINTS, project, projection_charts, subset
from trainer.plots.recordings import Recording, choose_examples, sample_evenly
from trainer.plots.sound import envelope, log_mel, sound_charts
from trainer.plots.style import SHADES, Chart, draw, label_colours, slug

ODD = ("<b>bold</b>", 'a & "b"', "$x^2$", "喜び", "#0072b2", 'url(#x) id="y"')


def _points(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot(range(9), range(9), "o", clip_on=True)
    axes.set_title('<b>&"$1')
    axes.imshow(np.eye(3))


def _texts(chart: Chart) -> list[str]:
    root = ElementTree.fromstring(chart.svg)
    return [element.text or "" for element in root.iter("text")]


def test_a_chart_is_the_same_every_time_and_leaves_nothing_behind() -> None:
    before = dict(mpl.rcParams)
    first, second = (draw("one", "Title", "Caption", _points) for _ in range(2))
    assert first == second
    assert dict(mpl.rcParams) == before
    assert first.png.startswith(b"\x89PNG")


def test_a_chart_is_an_element_that_refers_to_nothing_outside_itself() -> None:
    chart = draw("some-name", 'A "title" <i>', "Caption & more", _points)
    root = ElementTree.fromstring(chart.svg)
    assert root.get("aria-label") == 'A "title" <i>. Caption & more'
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(str(one).startswith("some-name-") for one in ids)
    for element in root.iter():
        target = element.get("href")
        if target is not None:
            assert target.startswith("data:image/png;base64,") or target[1:] in ids
    assert "http" not in chart.svg
    assert "<style" not in chart.svg


def test_colours_of_the_palette_become_variables_outside_text() -> None:
    counts = np.diag([3] * len(ODD)).astype(np.int64)
    chart = confusion_chart("odd", "Odd", "", counts, ODD)
    texts = _texts(chart)
    for label in ODD:
        assert {short(label), short(label, 14)} <= set(texts)
    for element in ElementTree.fromstring(chart.svg).iter():
        style = element.get("style") or ""
        assert not any(colour in style for colour in SHADES)
    assert "var(--c-0072b2)" in chart.svg


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=9, unique=True))
@settings(max_examples=50, deadline=None)
def test_labels_have_colours_of_their_own(labels: list[str]) -> None:
    colours = label_colours(labels)
    assert sorted(colours) == sorted(labels)
    assert len(set(colours.values())) == len(labels)
    assert set(colours.values()) <= set(SHADES)


@given(st.text())
def test_a_slug_is_a_file_name(text: str) -> None:
    assert slug(text).strip("abcdefghijklmnopqrstuvwxyz0123456789-") == ""
    assert slug(text)


def test_a_confusion_chart_says_which_row_is_empty() -> None:
    counts = np.asarray([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    chart = confusion_chart("c", "C", "Note.", counts, ("a", "b", "c"))
    texts = _texts(chart)
    assert "none in this part" in texts
    assert {"80", "20", "25", "75"} <= set(texts)
    assert "UAR 77.5 %" in chart.caption
    assert "14 utterances" in chart.caption


def test_a_reliability_chart_tells_the_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 400)
    sure = reliability(confidence, rng.random(400) < confidence)
    empty = Reliability(np.zeros(15, np.int64), np.full(15, np.nan), np.full(15, np.nan))
    chart = reliability_chart("r", "R", "", {"clean": sure, "telephone": empty})
    assert f"clean, ECE {sure.error:.3f}" in _texts(chart)


def test_a_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    assert read_log(path) is None
    path.write_text("epoch,loss,note,validation_uar\n1,2.0,x,0.3\n2,1.5,y,0.4\n3,1.\n,2", "utf-8")
    log = read_log(path)
    assert log is not None
    assert sorted(log) == ["epoch", "loss", "validation_uar"]
    np.testing.assert_array_equal(log["loss"], [2, 1.5, 1])
    assert np.isnan(log["validation_uar"][-1])
    path.write_bytes(b"epoch,loss\n")
    assert read_log(path) is None


def test_folds_of_different_length_share_their_first_epochs() -> None:
    logs = {
        name: {
            "epoch": np.arange(1.0, last + 1),
            "loss": np.linspace(2, 1, last),
            "accuracy": np.linspace(0.2, 0.8, last),
        }
        for name, last in (("fold-1", 4), ("fold-2", 7))
    }
    charts = curve_charts("k-fold-crnn", "k-fold, crnn", logs)
    assert [chart.name for chart in charts] == [
        "curve-loss-k-fold-crnn",
        "curve-accuracy-k-fold-crnn",
    ]
    assert "2 folds" in charts[0].caption


def test_folds_that_share_no_epoch_are_drawn_alone() -> None:
    logs = {
        "a": {"epoch": np.asarray([1.0, 2.0]), "loss": np.asarray([2.0, 1.0])},
        "b": {"epoch": np.asarray([7.0]), "loss": np.asarray([np.nan])},
    }
    (chart,) = curve_charts("n", "note", logs)
    assert "2 folds" in chart.caption


def _recording(path: str, speaker: str, label: str, intensity: str = "") -> Recording:
    return Recording(Path(path), "c", speaker, label, intensity=intensity)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=60),
    st.integers(1, 7),
)
@settings(deadline=None)
def test_samples_are_even_over_speakers(pairs: list[tuple[str, str]], most: int) -> None:
    recordings = [_recording(f"{i}", s, label) for i, (s, label) in enumerate(pairs)]
    chosen = sample_evenly(recordings, most)
    assert chosen == sample_evenly(list(recordings), most)
    assert len(set(chosen)) == len(chosen)
    for label in "xyz":
        here = [r for r in chosen if r.label == label]
        there = [r for r in recordings if r.label == label]
        assert len(here) == min(most, len(there))
        count = {s: sum(r.speaker == s for r in here) for s in "abc"}
        for speaker in "abc":
            left = sum(r.speaker == speaker for r in there) - count[speaker]
            assert not left or count[speaker] >= max(count.values()) - 1


def test_examples_are_of_the_speaker_with_most_labels() -> None:
    recordings = [
        _recording("1", "a", "sad"),
        _recording("2", "b", "angry", "normal"),
        _recording("3", "b", "angry", "strong"),
        _recording("4", "b", "sad"),
        _recording("5", "c", "calm"),
    ]
    chosen = choose_examples(recordings, ("angry", "sad", "calm", "bored"))
    assert [r.path.name for r in chosen] == ["3", "4", "5"]


def test_descriptors_of_a_tone() -> None:
    time = np.arange(24_000) / 16_000
    values = describe((0.1 * np.sin(2 * np.pi * 220 * time)).astype(np.float32))
    found = dict(zip([d.key for d in DESCRIPTORS], values, strict=True))
    assert found["duration"] == pytest.approx(1.5)
    assert found["pitch"] == pytest.approx(220, rel=0.01)
    assert found["level"] == pytest.approx(-23.0, abs=0.05)
    assert found["zcr"] == pytest.approx(440, rel=0.02)
    assert found["pitch_range"] < 0.5


@pytest.mark.parametrize("samples", [1, 100, 3000])
def test_descriptors_of_next_to_nothing(samples: int) -> None:
    values = describe(np.zeros(samples, np.float32))
    assert np.isnan(values[[d.key for d in DESCRIPTORS].index("pitch")])
    assert len(values) == len(DESCRIPTORS)


def test_measuring_skips_what_cannot_be_read_and_notices_changes(tmp_path: Path) -> None:
    tone, broken = tmp_path / "tone.wav", tmp_path / "broken.wav"
    time = np.arange(8_000) / 16_000
    sf.write(tone, 0.2 * np.sin(2 * np.pi * 150 * time), 16_000)
    broken.write_bytes(b"no sound")
    recordings = [
        Recording(path, "c", "s", "sad") for path in (tone, broken, tmp_path / "absent.wav")
    ]
    first = measure(recordings, tmp_path / "cache")
    assert [r.path for r in first.recordings] == [tone]
    again = measure(recordings, tmp_path / "cache")
    np.testing.assert_array_equal(first.values, again.values)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    sf.write(tone, 0.2 * np.sin(2 * np.pi * 250 * np.arange(9_000) / 16_000), 16_000)
    changed = measure(recordings, tmp_path / "cache")
    assert changed.column("pitch")[0] == pytest.approx(250, rel=0.02)


@pytest.mark.parametrize("samples", [1, 30, 5000])
def test_sounds_of_any_length_are_drawn(samples: int) -> None:
    audio = np.random.default_rng(0).integers(-3000, 3000, samples).astype(np.int16)
    time, low, high = envelope(audio)
    assert len(time) == len(low) == len(high) <= 500
    assert (low <= high).all()
    assert log_mel(audio).shape[0] == 80
    (chart,) = sound_charts([(_recording("x.wav", "s", "<sad>"), audio)], ("<sad>",))
    assert "speaker s" in chart.caption


def test_projections_are_the_same_every_time() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 15)
    embedding = rng.normal(size=(30, 6)) + 4 * truth[:, None]
    first, second = project(embedding, 3), project(embedding, 3)
    assert [name.partition(" ")[0] for name, _ in first] == ["PCA", "t-SNE"]
    for (_, ours), (_, theirs) in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert abs(first[0][1][:15, 0].mean() - first[0][1][15:, 0].mean()) > 2


def test_what_cannot_be_projected_is_left_out() -> None:
    assert project(np.zeros((30, 4)), 0) == []
    assert project(np.full((30, 4), np.nan), 0) == []
    assert project(np.random.default_rng(0).normal(size=(4, 3)), 0) == []


def test_many_groups_share_a_legend() -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"speaker {i}" for i in range(40))
    charts = projection_charts(
        "p", "", rng.normal(size=(11, 3)), [("speaker", names, np.asarray(names[:11]))]
    )
    assert [chart.name for chart in charts] == ["p-pca-speaker"]
    member = np.asarray([names[i % 40] for i in range(80)])
    (chart,) = projection_charts("p", "", rng.normal(size=(80, 3)), [("s", names, member)])[:1]
    assert "others" in _texts(chart)


def test_a_subset_of_points_is_in_order() -> None:
    rows = subset(5 * MOST_POINTS, 1)
    assert len(rows) == MOST_POINTS
    assert (np.diff(rows) > 0).all()
    assert len(subset(7, 1)) == 7
