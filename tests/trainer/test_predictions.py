"""The predictions of a fold: what goes into the file comes out, and nonsense does not go in."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.predictions import (
    CONDITIONS,
    Predictions,
    join,
    load_predictions,
    save_predictions,
    softmax,
)

LABELS = ("happy", "sad", "angry")


def _made_up(counts: list[int], seed: int = 0, size: int = 4) -> Predictions:
    """Utterances with so many segments each."""
    rng = np.random.default_rng(seed)
    n, owner = len(counts), np.repeat(np.arange(len(counts)), counts)
    return Predictions(
        part="test",
        condition="clean",
        labels=LABELS,
        path=np.asarray([f"/data/ü/{i}.wav" for i in range(n)]),
        corpus=np.asarray(["emodb", "tess"] * n)[:n],
        speaker=np.asarray([f"s{i % 3}" for i in range(n)]),
        sex=np.asarray(["female", ""] * n)[:n],
        language=np.full(n, "de"),
        truth=rng.integers(0, 3, n),
        owner=owner,
        length=rng.integers(1, 48_001, len(owner)),
        logits=rng.standard_normal((len(owner), 3)).astype(np.float32),
        embedding=rng.standard_normal((n, size)).astype(np.float32),
    )


def _equal(one: Predictions, other: Predictions) -> bool:
    return all(
        np.array_equal(getattr(one, item.name), getattr(other, item.name))
        for item in fields(Predictions)
    )


COUNTS = st.lists(st.integers(1, 4), min_size=1, max_size=12)


@given(counts=COUNTS, size=st.sampled_from([0, 3]))
def test_a_file_gives_back_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], size: int
) -> None:
    path = tmp_path_factory.mktemp("fold") / "predictions.npz"
    saved = [replace(_made_up(counts, 1, size), condition=c) for c in CONDITIONS]
    save_predictions(path, saved)
    found = load_predictions(path)
    assert all(_equal(a, b) for a, b in zip(saved, found, strict=True))
    assert [p.condition for p in found] == list(CONDITIONS)
    assert list(path.parent.iterdir()) == [path]


@given(counts=COUNTS, temperature=st.floats(0.2, 5.0))
def test_scores_are_the_duration_weighted_mean(counts: list[int], temperature: float) -> None:
    one = _made_up(counts)
    scores = one.scores(temperature)
    for row in range(len(one)):
        mine = one.owner == row
        expected = np.average(
            softmax(one.logits[mine], temperature), axis=0, weights=one.length[mine]
        )
        assert scores[row] == pytest.approx(expected)
    assert scores.sum(axis=1) == pytest.approx(1.0)


def test_only_allowed_labels_compete() -> None:
    one = _made_up([2, 1, 3])
    allowed = np.array([[True, True, False], [True, True, True], [False, True, False]])
    scores = one.scores(1.0, allowed)
    assert not scores[~allowed].any()
    assert scores.sum(axis=1) == pytest.approx(1.0)
    assert scores[1] == pytest.approx(one.scores()[1])
    plain = softmax(one.logits[:2, :2])
    assert scores[0, :2] == pytest.approx(np.average(plain, axis=0, weights=one.length[:2]))


@given(counts=COUNTS, data=st.data())
def test_rows_and_join_undo_each_other(counts: list[int], data: st.DataObject) -> None:
    one = _made_up(counts)
    chosen = np.asarray(
        data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts)))
    )
    first, rest = one.rows(chosen), one.rows(~chosen)
    both = join([first, rest])
    order = np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)])
    assert np.array_equal(both.path, one.path[order])
    assert both.scores() == pytest.approx(one.scores()[order])
    assert np.array_equal(both.embedding, one.embedding[order])


def test_joining_models_of_different_embeddings_drops_them() -> None:
    both = join([_made_up([1], size=2), _made_up([1], size=3)])
    assert both.embedding.shape == (2, 0)
    with pytest.raises(ValueError, match="different"):
        join([_made_up([1]), replace(_made_up([1]), condition="whole-file")])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"speaker": np.asarray(["s"])}, "speaker has 1 rows, truth 2"),
        ({"logits": np.zeros((3, 2), np.float32)}, "logits have the shape"),
        ({"length": np.ones(2, np.int64)}, "length and owner"),
        ({"owner": np.asarray([0, 0, 0])}, "each utterance must own a segment"),
        ({"owner": np.asarray([0, 1, 2])}, "each utterance must own a segment"),
        ({"truth": np.asarray([0, 3])}, "a label that is not there"),
    ],
)
def test_nonsense_is_refused(change: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(_made_up([2, 1]), **change)  # type: ignore[arg-type]  # by name


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    with pytest.raises(TrainerError, match=r"predictions\.npz does not exist"):
        load_predictions(path)
    for content in (b"", b"not a zip file", b"PK\x03\x04 half a file"):
        path.write_bytes(content)
        with pytest.raises(TrainerError, match=r"predictions\.npz holds no predictions"):
            load_predictions(path)
    np.savez(path, version=1, count=1)
    with pytest.raises(TrainerError, match="holds no predictions"):
        load_predictions(path)
    np.savez(path, version=99, count=0)
    with pytest.raises(TrainerError, match="another version"):
        load_predictions(path)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "predictions.npz").mkdir()
    with pytest.raises(TrainerError, match=r"predictions\.npz cannot be written"):
        save_predictions(tmp_path / "predictions.npz", [_made_up([1])])
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.npz"]
