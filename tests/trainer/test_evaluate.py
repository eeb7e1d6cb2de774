"""From segments to the figures of an utterance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.audio import Clips, Float32
from trainer.corpora import LABELS, Utterance
from trainer.evaluate import (
    Segments,
    corpus_mean_uar,
    cut_segments,
    logits_only,
    predict_clips,
    segment_logits,
    softmax,
    torch_hearing,
    torch_predictor,
    utterance_scores,
)
from trainer.features import LogMelSettings
from trainer.metrics import Int64
from trainer.models import CrnnSettings, build
from trainer.predictions import CONDITIONS


def _clips(seconds: list[float]) -> Clips:
    """Tones without silence, so that the speech is the recording."""
    pieces = [(8_000 * np.sin(np.arange(int(s * 16_000)) / 9.0)).astype(np.int16) for s in seconds]
    corpora = ["emodb" if i % 2 == 0 else "tess" for i in range(len(seconds))]
    return Clips(
        utterances=tuple(
            Utterance(Path(f"/{i}"), corpus, "s", LABELS[i % 8], "en")
            for i, corpus in enumerate(corpora)
        ),
        samples=np.concatenate(pieces),
        offsets=np.cumsum([0, *map(len, pieces)]),
        bounds=np.asarray([(0, len(piece)) for piece in pieces]),
    )


def test_segments_are_the_daemons() -> None:
    clips = _clips([1.0, 3.0, 4.5])
    segments = cut_segments(clips, [2, 0, 1], "clean")
    assert segments.owner.tolist() == [0, 0, 0, 1, 2]
    assert segments.length.tolist() == [48_000, 48_000, 48_000, 16_000, 48_000]
    assert segments.truth.tolist() == [2, 0, 1]
    assert segments.corpus.tolist() == ["emodb", "emodb", "tess"]
    whole = clips.clip(2).astype(np.float32) / 32768
    for row, start in enumerate((0, 16_000, 24_000)):
        assert np.array_equal(segments.audio[row], whole[start : start + 48_000])
    assert not segments.audio[3, 16_000:].any()


def test_the_telephone_changes_the_audio_and_nothing_else() -> None:
    clips = _clips([1.0, 4.0])
    clean = cut_segments(clips, [0, 1], "clean")
    far = cut_segments(clips, [0, 1], "telephone-mulaw-8k")
    assert np.array_equal(clean.length, far.length)
    assert np.array_equal(clean.owner, far.owner)
    assert not np.array_equal(clean.audio, far.audio)
    assert np.abs(clean.audio - far.audio)[:, 500:15_000].max() < 0.05


def test_scores_are_weighted_by_duration() -> None:
    segments = Segments(
        audio=np.zeros((3, 48_000), np.float32),
        length=np.array([48_000, 16_000, 8_000]),
        owner=np.array([0, 0, 1]),
        truth=np.array([0, 1]),
        corpus=np.array(["emodb", "tess"]),
    )
    logits = np.log(np.array([[0.9, 0.1], [0.1, 0.9], [0.3, 0.7]], np.float32))
    scores = utterance_scores(logits, segments)
    assert scores == pytest.approx(np.array([[0.7, 0.3], [0.3, 0.7]]))
    assert utterance_scores(logits, segments, 1e6) == pytest.approx(np.full((2, 2), 0.5), abs=1e-5)
    assert corpus_mean_uar(scores, segments) == 1.0


def test_corpora_count_alike() -> None:
    segments = Segments(
        audio=np.zeros((5, 48_000), np.float32),
        length=np.full(5, 48_000),
        owner=np.arange(5),
        truth=np.array([0, 0, 0, 0, 1]),
        corpus=np.array(["emodb"] * 4 + ["tess"]),
    )
    scores = np.eye(2)[[0, 0, 0, 1, 0]]
    assert corpus_mean_uar(scores, segments) == pytest.approx((0.75 + 0.0) / 2)


def test_batches_are_put_together_in_order() -> None:
    segments = cut_segments(_clips([1.0, 2.0, 3.0]), [0, 1, 2], "clean")
    found = segment_logits(lambda audio, length: length[:, None].astype(np.float32), segments, 2)
    assert found[:, 0].tolist() == segments.length.tolist()


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]


def _lengths(audio: Float32, length: Int64) -> Float32:
    return np.stack([length, audio[:, 0], audio[:, -1]], axis=1).astype(np.float32)


def test_a_whole_file_keeps_its_silence() -> None:
    clips = _clips([4.0])
    clips.bounds[0] = (20_000, 40_000)
    assert cut_segments(clips, [0], "clean").length.tolist() == [20_000 + 2 * 3_200]
    assert cut_segments(clips, [0], "whole-file").length.tolist() == [48_000, 48_000]


def test_predictions_are_of_every_condition_in_order() -> None:
    clips = _clips([1.0, 4.5, 2.0, 3.5, 0.5])
    found = predict_clips(
        logits_only(lambda a, n: np.tile(_lengths(a, n), 3)),
        clips,
        "test",
        ("x", *LABELS[:8]),
        batch=2,
    )
    assert [p.condition for p in found] == list(CONDITIONS)
    for p in found:
        expected = cut_segments(clips, range(5), p.condition, p.labels)
        assert np.array_equal(p.owner, expected.owner)
        assert np.array_equal(p.length, expected.length)
        assert np.array_equal(p.logits[:, :3], _lengths(expected.audio, expected.length))
        assert p.truth.tolist() == [1, 2, 3, 4, 5]
        assert p.path.tolist() == ["/0", "/1", "/2", "/3", "/4"]
        assert p.embedding.shape == (5, 0)


def test_embeddings_are_averaged_by_duration() -> None:
    clips = _clips([4.5, 1.0])

    def hear(audio: Float32, length: Int64) -> tuple[Float32, Float32]:
        logits = np.zeros((len(length), 8), np.float32)
        return logits, np.stack([length, audio[:, 100]], axis=1).astype(np.float32)

    (found,) = predict_clips(hear, clips, "validation", LABELS[:8], ["clean"])
    segments = cut_segments(clips, [0, 1], "clean")
    first = segments.audio[segments.owner == 0, 100]
    assert found.embedding == pytest.approx(
        np.asarray([[48_000, first.mean()], [16_000, segments.audio[-1, 100]]]), abs=1e-6
    )


def test_a_network_tells_its_embedding() -> None:
    torch.manual_seed(0)
    model = build(
        CrnnSettings(channels=(4, 8), time_strides=(2, 2), projection=8, hidden=8),
        LogMelSettings(n_mels=16, hop_length=400),
        3,
    ).eval()
    segments = cut_segments(_clips([1.0, 4.0]), [0, 1], "clean")
    logits, embedding = torch_hearing(model)(segments.audio, segments.length)
    assert embedding.shape == (3, model.embedding_size)
    assert logits == pytest.approx(
        torch_predictor(model)(segments.audio, segments.length), abs=1e-5
    )
    with torch.no_grad():
        assert logits == pytest.approx(model.head(torch.from_numpy(embedding)).numpy(), abs=1e-5)
