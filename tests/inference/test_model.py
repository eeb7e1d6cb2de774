from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.audio.resample import to_model_rate
from serd.errors import DeviceError, ModelError
from serd.inference.manifest import EmotionManifest, load_emotion_manifest
from serd.inference.model import BATCH_SIZES, EmotionModel, calibrate
from serd.inference.providers import CPU, CUDA, LiveSession
from serd.inference.runner import PlainRunner
from serd.inference.worker import SegmentJob
from serd.types import Float32Array, Int16Array
from tests.inference.tiny import (
    FRAME,
    LABELS,
    SAMPLES,
    build_model,
    emotion_manifest,
    segments,
    write,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(path: Path) -> EmotionModel:
    model = EmotionModel.load(path, "cpu")
    model.warm_up()
    return model


@pytest.fixture(autouse=True)
def _run_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake session has no place on a device, whatever provider it claims."""
    monkeypatch.setattr(
        "serd.inference.model.runner",
        lambda live, output, columns: PlainRunner(live.session, output),
    )


class Argument:
    def __init__(self, name: str, element: str, shape: list[Any]) -> None:
        self.name, self.type, self.shape = name, element, shape


class FakeSession:
    """Stands for a session; remembers the batches that it saw and answers as told."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.batches: list[int] = []
        self.lengths: list[list[int]] = []
        self.energies: list[list[float]] = []

    def get_inputs(self) -> list[Argument]:
        return [
            Argument("audio", "tensor(float)", ["batch", SAMPLES]),
            Argument("length", "tensor(int64)", ["batch"]),
        ]

    def get_outputs(self) -> list[Argument]:
        return [Argument("logits", "tensor(float)", ["batch", len(LABELS)])]

    def run(self, outputs: Sequence[str], feed: dict[str, Any]) -> list[Any]:
        assert list(outputs) == ["logits"]
        rows = len(feed["audio"])
        self.batches.append(rows)
        self.lengths.append(feed["length"].tolist())
        self.energies.append(np.abs(feed["audio"]).sum(axis=1).tolist())
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return [self.answer]
        return [np.zeros((rows, len(LABELS)), dtype=np.float32)]


MANIFEST = EmotionManifest.model_validate_json(json.dumps(emotion_manifest()))


def with_session(
    tmp_path: Path, session: FakeSession, sizes: Sequence[int], provider: str = CPU
) -> EmotionModel:
    manifest = load_emotion_manifest(write(tmp_path / "fake.json", emotion_manifest()))
    return EmotionModel(manifest, LiveSession(session, provider, ""), sizes)


def test_a_model_says_what_it_is(model: EmotionModel) -> None:
    assert model.labels == LABELS
    assert (model.samples, model.sample_rate_hz, model.abstain_below) == (SAMPLES, 16000, 0.3)
    assert model.provider == CPU
    assert model.identity == f"tiny-3@sha256:{model.manifest.file.sha256[:12]}"
    assert (model.batch_sizes, model.largest_batch) == ((1, 2, 4, 8), 8)


def test_scores_are_probabilities_that_depend_on_the_audio(
    model: EmotionModel, rng: np.random.Generator
) -> None:
    audio, length = segments(rng, 50)
    scores = model.run(audio, length)
    assert scores.shape == (50, len(LABELS))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-6)
    assert scores.min() >= 0.0
    assert scores.std(axis=0).min() > 1e-2


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 70))
def test_a_segment_scores_the_same_whatever_batch_it_rides_in(
    model: EmotionModel, seed: int, rows: int
) -> None:
    audio, length = segments(np.random.default_rng(seed), rows)
    together = model.run(audio, length)
    alone = np.concatenate(
        [model.run(audio[row : row + 1], length[row : row + 1]) for row in range(rows)]
    )
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


def test_a_second_run_gives_the_same_bits(model: EmotionModel, rng: np.random.Generator) -> None:
    audio, length = segments(rng, 7)
    first = model.run(audio, length)
    model.run(*segments(rng, 32))
    np.testing.assert_array_equal(model.run(audio, length), first)


def test_what_lies_beyond_the_length_does_not_matter(
    model: EmotionModel, rng: np.random.Generator
) -> None:
    audio, length = segments(rng, 5)
    dirty = np.where(np.arange(SAMPLES) < length[:, None], audio, np.float32(0.9))
    np.testing.assert_allclose(model.run(dirty, length), model.run(audio, length), atol=1e-5)


def test_the_arguments_are_left_alone(model: EmotionModel, rng: np.random.Generator) -> None:
    audio, length = segments(rng, 3)
    audio_before, length_before = audio.copy(), length.copy()
    model.run(audio, length)
    np.testing.assert_array_equal(audio, audio_before)
    np.testing.assert_array_equal(length, length_before)


def test_nothing_gives_nothing(model: EmotionModel) -> None:
    scores = model.run(np.empty((0, SAMPLES), np.float32), np.empty(0, np.int64))
    assert scores.shape == (0, len(LABELS))


@pytest.mark.parametrize(
    ("provider", "rows", "batches"),
    [
        (CPU, 1, [1]),
        (CPU, 3, [1, 1, 1]),
        (CPU, 7, [4, 1, 1, 1]),
        (CPU, 8, [8]),
        (CPU, 21, [8, 8, 4, 1]),
        (CUDA, 1, [1]),
        (CUDA, 2, [4]),
        (CUDA, 5, [8]),
        (CUDA, 9, [8, 1]),
        (CUDA, 21, [8, 8, 8]),
    ],
)
def test_the_session_sees_only_the_fixed_batch_sizes(
    tmp_path: Path, provider: str, rows: int, batches: list[int]
) -> None:
    session = FakeSession()
    model = with_session(tmp_path, session, (8, 1, 4), provider)
    audio = np.zeros((rows, SAMPLES), np.float32)
    audio[:, 0] = np.arange(rows)
    assert len(model.run(audio, np.full(rows, SAMPLES))) == rows
    assert session.batches == batches
    seen = [energy for energies in session.energies for energy in energies]
    assert seen[:rows] == list(range(rows))


@given(
    sizes=st.sets(st.integers(1, 40), min_size=1, max_size=6),
    rows=st.integers(1, 150),
    provider=st.sampled_from([CPU, CUDA]),
)
def test_any_batch_is_covered_by_any_sizes(sizes: set[int], rows: int, provider: str) -> None:
    session = FakeSession()
    model = EmotionModel(MANIFEST, LiveSession(session, provider, ""), tuple(sizes))
    audio = np.broadcast_to(np.float32(1.0), (rows, SAMPLES))
    assert len(model.run(audio, np.arange(1, rows + 1))) == rows
    assert set(session.batches) <= sizes
    lengths = [length for batch in session.lengths for length in batch]
    assert lengths[:rows] == list(range(1, rows + 1))
    assert len(lengths) - rows < max(sizes)


def test_rows_that_only_fill_up_are_silent(tmp_path: Path) -> None:
    session = FakeSession()
    model = with_session(tmp_path, session, (4,))
    model.run(np.ones((4, SAMPLES), np.float32), np.array([1, 2, 3, 4]))
    model.run(np.ones((1, SAMPLES), np.float32), np.array([5]))
    assert session.lengths[-1] == [5, SAMPLES, SAMPLES, SAMPLES]
    assert session.energies[-1] == [SAMPLES, 0.0, 0.0, 0.0]


def test_warming_up_runs_every_batch_size(tmp_path: Path) -> None:
    session = FakeSession()
    with_session(tmp_path, session, (2, 16, 4), CUDA).warm_up()
    assert session.batches == [2, 4, 16]


@pytest.mark.parametrize(
    ("provider", "sizes", "used"),
    [
        (CPU, BATCH_SIZES, (1, 2, 4, 8)),
        (CPU, (16, 32), (16,)),
        (CUDA, BATCH_SIZES, BATCH_SIZES),
    ],
)
def test_batches_that_gain_nothing_on_the_cpu_are_left_out(
    tmp_path: Path, provider: str, sizes: Sequence[int], used: tuple[int, ...]
) -> None:
    model = with_session(tmp_path, FakeSession(), sizes, provider)
    assert (model.batch_sizes, model.largest_batch) == (used, used[-1])


def test_a_model_that_raises_is_a_model_error(tmp_path: Path) -> None:
    model = with_session(tmp_path, FakeSession(RuntimeError("CUDA failure 700")), (1,))
    with pytest.raises(ModelError, match="CUDA failure 700") as caught:
        model.warm_up()
    assert caught.value.code == "model_failed"


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_a_model_error(tmp_path: Path, poison: float) -> None:
    answer = np.zeros((4, len(LABELS)), np.float32)
    answer[2, 1] = poison
    model = with_session(tmp_path, FakeSession(answer), (4,))
    with pytest.raises(ModelError, match="NaN or infinity in 1 of 3 results") as caught:
        model.run(np.zeros((3, SAMPLES), np.float32), np.full(3, SAMPLES))
    assert caught.value.code == "model_not_finite"


def test_nan_in_a_filling_row_harms_no_one(tmp_path: Path) -> None:
    answer = np.zeros((4, len(LABELS)), np.float32)
    answer[3] = np.nan
    model = with_session(tmp_path, FakeSession(answer), (4,))
    assert np.isfinite(model.run(np.zeros((3, SAMPLES), np.float32), np.full(3, SAMPLES))).all()


def test_an_output_of_another_width_is_a_model_error(tmp_path: Path) -> None:
    model = with_session(tmp_path, FakeSession(np.zeros((1, 9), np.float32)), (1,))
    with pytest.raises(ModelError, match=r"labels: are 4, .* shape \[1, 9\]") as caught:
        model.warm_up()
    assert caught.value.code == "model_signature"


@pytest.mark.parametrize(
    ("audio", "length"),
    [
        ((1, SAMPLES - 1), [1]),
        ((1, SAMPLES), [0]),
        ((1, SAMPLES), [SAMPLES + 1]),
        ((2, SAMPLES), [1]),
        ((1, SAMPLES, 1), [1]),
    ],
)
def test_arguments_of_other_shapes_are_refused(
    model: EmotionModel, audio: tuple[int, ...], length: list[int]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        model.run(np.zeros(audio, np.float32), np.array(length))


@pytest.mark.parametrize("sizes", [(), (0, 1), (-1,)])
def test_impossible_batch_sizes_are_refused(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        with_session(tmp_path, FakeSession(), sizes)


def test_a_model_with_other_labels_than_its_manifest_is_refused(tmp_path: Path) -> None:
    path = build_model(tmp_path, labels=5)
    with pytest.raises(ModelError, match="labels: is 4 here, 'logits' has 5") as caught:
        EmotionModel.load(path, "cpu")
    assert caught.value.code == "model_signature"


def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    path = build_model(tmp_path)
    with (tmp_path / "tiny.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError) as caught:
        EmotionModel.load(path, "cpu")
    assert caught.value.code == "model_sha256"


def test_an_unknown_device_is_refused(path: Path) -> None:
    with pytest.raises(DeviceError):
        EmotionModel.load(path, "gpu")


class TestCalibration:
    def test_it_is_the_softmax_of_the_scaled_logits(self) -> None:
        scores = calibrate(np.log(np.array([[1.0, 4.0, 16.0]])), 2.0)
        np.testing.assert_allclose(scores, [[1 / 7, 2 / 7, 4 / 7]], rtol=1e-7)

    def test_huge_logits_do_not_overflow(self) -> None:
        scores = calibrate(np.array([[1e30, -1e30], [3e4, 3e4]], np.float32), 0.01)
        np.testing.assert_array_equal(scores, [[1.0, 0.0], [0.5, 0.5]])

    @given(
        logits=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=10),
        temperature=st.floats(0.05, 20),
    )
    def test_scores_sum_to_one_and_keep_the_order(
        self, logits: list[float], temperature: float
    ) -> None:
        values = np.array([logits], np.float32)
        scores = calibrate(values, temperature)
        assert scores.dtype == np.float32
        assert scores.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-6)
        order = np.argsort(values[0], kind="stable")
        assert (np.diff(scores[0][order]) >= 0).all()

    def test_the_manifest_s_temperature_is_used(self, tmp_path: Path) -> None:
        logits = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
        content = emotion_manifest()
        content["calibration"]["temperature"] = 3.0
        manifest = load_emotion_manifest(write(tmp_path / "warm.json", content))
        model = EmotionModel(manifest, LiveSession(FakeSession(logits), CPU, ""), (1,))
        scores = model.run(np.zeros((1, SAMPLES), np.float32), np.array([SAMPLES]))
        np.testing.assert_array_equal(scores, calibrate(logits, 3.0))


def pieces(rng: np.random.Generator, *samples: int, rate: int = 16000) -> list[SegmentJob]:
    return [SegmentJob(spoken(rng, count), rate, 0) for count in samples]


def spoken(rng: np.random.Generator, samples: int) -> Int16Array:
    return (rng.standard_normal(samples) * rng.uniform(100, 4000)).astype(np.int16)


def padded(model: EmotionModel, segments: Sequence[SegmentJob]) -> Float32Array:
    """What `run` says of the segments."""
    audio = np.zeros((len(segments), model.samples), np.float32)
    length = np.zeros(len(segments), np.int64)
    for row, segment in enumerate(segments):
        heard = to_model_rate(segment.audio, segment.sample_rate_hz, model.sample_rate_hz)
        audio[row, : len(heard)] = heard
        length[row] = len(heard)
    return model.run(audio, length)


def test_segments_are_brought_to_the_model_s_rate_and_length(
    model: EmotionModel, rng: np.random.Generator
) -> None:
    narrow = pieces(rng, 4000, 77, 4000, rate=8000)
    mixed = [*pieces(rng, 8000, 1, 5001), *narrow, *pieces(rng, 8000, 160, 8000, 3)]
    np.testing.assert_allclose(model.score(mixed), padded(model, mixed), atol=1e-5, rtol=0)
    # What an earlier, longer segment left in a row is gone.
    for segment in reversed(mixed):
        alone = padded(model, [segment])
        np.testing.assert_allclose(model.score([segment]), alone, atol=1e-5, rtol=0)


@given(
    frames=st.lists(st.integers(1, SAMPLES // FRAME), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
def test_rows_of_one_length_go_together_and_score_the_same(
    whole: EmotionModel, frames: list[int], seed: int
) -> None:
    segments = pieces(np.random.default_rng(seed), *(FRAME * count for count in frames))
    np.testing.assert_allclose(whole.score(segments), padded(whole, segments), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> EmotionModel:
    model = EmotionModel.load(build_model(tmp_path_factory.mktemp("whole"), unpadded=True), "cpu")
    model.warm_up()
    return model


class WholeSession(FakeSession):
    """A graph for rows without padding; remembers their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def get_inputs(self) -> list[Argument]:
        return [Argument("audio", "tensor(float)", ["batch", "samples"])]

    def run(self, outputs: Sequence[str], feed: dict[str, Any]) -> list[Any]:
        self.shapes.append(feed["audio"].shape)
        return [np.zeros((len(feed["audio"]), len(LABELS)), dtype=np.float32)]


def with_two(
    tmp_path: Path, session: FakeSession, provider: str = CPU
) -> tuple[EmotionModel, FakeSession]:
    graph = {
        "file": {"path": "whole.onnx", "sha256": "0" * 64},
        "sample_rate_hz": 8000,
        "least_samples": 80,
    }
    manifest = load_emotion_manifest(
        write(tmp_path / "fake.json", emotion_manifest(unpadded=graph))
    )
    other = FakeSession()
    live = [LiveSession(one, provider, "") for one in (other, session)]
    return EmotionModel(manifest, live[0], (1, 2, 4), live[1]), other


def test_the_cpu_sees_every_length_as_it_is(tmp_path: Path, rng: np.random.Generator) -> None:
    session = WholeSession()
    model, other = with_two(tmp_path, session)
    narrow = pieces(rng, 4000, 80, 4000, 4000, 79, 4000, 4000, 80, rate=8000)
    assert model.score([*narrow, *pieces(rng, 8000)]).shape == (9, len(LABELS))
    assert session.shapes == [(4, 4000), (1, 4000), (2, 80)]
    assert other.batches == [2]
    assert other.lengths == [[158, 8000]]


def test_a_gpu_sees_whole_windows_in_the_fixed_batch_sizes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    session = WholeSession()
    model, other = with_two(tmp_path, session, CUDA)
    model.score(pieces(rng, *[4000] * 7, 3999, rate=8000))
    assert session.shapes == [(4, 4000), (4, 4000)]
    assert other.lengths == [[7998]]


def test_a_second_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="also wants length"):
        with_two(tmp_path, FakeSession())

    class Fixed(WholeSession):
        def get_inputs(self) -> list[Argument]:
            return [Argument("audio", "tensor(float)", ["batch", 4000])]

    with pytest.raises(ModelError, match=r"unpadded: 'audio' has 4000 samples"):
        with_two(tmp_path, Fixed())


def test_a_second_graph_is_verified_too(tmp_path: Path) -> None:
    path = build_model(tmp_path, unpadded=True)
    (tmp_path / "tiny-whole.onnx").write_bytes(b"another")
    with pytest.raises(ModelError, match=r"unpadded\.file\.sha256") as caught:
        EmotionModel.load(path, "cpu")
    assert caught.value.code == "model_sha256"


def test_compute_time_grows_with_every_run(model: EmotionModel, rng: np.random.Generator) -> None:
    before = model.compute_ns
    model.score(pieces(rng, 8000))
    assert model.compute_ns > before
