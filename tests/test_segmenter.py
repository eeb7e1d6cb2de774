"""The segmenter against a scalar reference that sees a whole recording at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.segmenter import Instruction, Offset, Onset, Segment, Segmenter, SegmenterOptions

FAR = 1 << 40  # 24 hours at 16 kHz are 1.4e9 samples; this is two years


@dataclass(frozen=True)
class Case:
    """One row's life: where it starts, its probabilities, how much audio follows them."""

    origin: int
    probability: list[float]
    tail: int


def reference(case: Case, options: SegmenterOptions, row: int) -> list[Instruction]:
    """All instructions of a row, the flush at its end included."""
    frame = options.frame_samples
    window, hop, longest = (
        round(seconds * options.sample_rate_hz)
        for seconds in (options.window_s, options.hop_s, options.max_utterance_s)
    )
    padding, hangover, minimum = (
        round(ms * options.sample_rate_hz / 1000)
        for ms in (options.padding_ms, options.hangover_ms, options.min_speech_ms)
    )
    needed = max(-(-minimum // frame), 1)
    count = len(case.probability)
    speech: list[bool] = []
    for value in case.probability:
        held = bool(speech) and speech[-1]
        speech.append(value >= (options.offset_threshold if held else options.onset_threshold))

    def end_of(k: int) -> int:
        return case.origin + (k + 1) * frame

    def ratio(start: int, end: int) -> float:
        covered = sum(
            max(0, min(end, end_of(k)) - max(start, end_of(k) - frame))
            for k in range(count)
            if speech[k]
        )
        return covered / (end - start)

    out: list[Instruction] = []
    number = 0
    floor = case.origin

    def utterance(
        start: int, begun: int, reach: dict[int, int], end: int, reason: str, final: int
    ) -> None:
        """Append an utterance closed at `final`; `reach` is what each frame before made certain."""
        nonlocal number, floor
        out.append(Onset(row, number, start, begun))
        spans = []
        place = start
        while place + window <= end:
            spans.append((place, place + window))
            place += hop
        if not spans or spans[-1][1] < end:
            spans.append((max(start, end - window), end))
        for index, (a, b) in enumerate(spans):
            regular = a == start + index * hop and b - a == window
            early = [d for d in sorted(reach) if regular and reach[d] >= b]
            decided = early[0] if early else final
            last = b == end and not early
            out.append(Segment(row, number, index, a, b, last, ratio(a, b), decided))
        out.append(Offset(row, number, start, end, reason, len(spans), ratio(start, end), final))
        number += 1
        floor = end

    k = 0
    while k < count:
        if not speech[k]:
            k += 1
            continue
        first, balance = k, 0
        while k < count and k < first + 2 * needed:
            balance += 1 if speech[k] else -1
            if balance in (0, needed):
                break
            k += 1
        if balance != needed:
            k = k + 1 if balance == 0 else k
            continue
        start, begun = max(floor, end_of(first) - frame - padding), end_of(k)
        reach: dict[int, int] = {}
        heard = end_of(k)
        while True:
            while heard > start + longest:
                utterance(start, begun, reach, start + longest, "max_utterance", end_of(k))
                start, begun, reach = start + longest, end_of(k), {}
            reach[end_of(k)] = min(heard + padding, end_of(k), start + longest)
            k += 1
            if k == count:
                finish = end_of(k - 1) + case.tail
                # The flush decides, at an index that the last frame's own decision may share.
                end = min(heard + padding, start + longest, finish)
                utterance(start, begun, reach, end, "end", finish)
                break
            if speech[k]:
                heard = end_of(k)
            elif end_of(k) - heard >= max(hangover, 1):
                end = min(heard + padding, start + longest)
                utterance(start, begun, reach, end, "silence", end_of(k))
                k += 1
                break
    return out


OPTIONS = SegmenterOptions(
    sample_rate_hz=1000,
    frame_samples=10,
    min_speech_ms=30,
    hangover_ms=50,
    padding_ms=25,
    window_s=0.12,
    hop_s=0.05,
    max_utterance_s=0.45,
)


@st.composite
def options_of_any_kind(draw: st.DrawFn) -> SegmenterOptions:
    hop = draw(st.integers(1, 90))
    window = draw(st.integers(max(hop, 11), 150))
    longest = draw(st.integers(window, 500))
    hangover = draw(st.integers(0, 100))
    return SegmenterOptions(
        sample_rate_hz=1000,
        frame_samples=draw(st.sampled_from([7, 10, 11])),
        min_speech_ms=draw(st.integers(0, 60)),
        hangover_ms=hangover,
        padding_ms=draw(st.integers(0, hangover)),
        window_s=window / 1000,
        hop_s=hop / 1000,
        max_utterance_s=longest / 1000,
    )


LEVELS = st.sampled_from([0.0, 0.2, 0.35, 0.45, 0.5, 1.0])
RUNS = st.lists(st.tuples(LEVELS, st.integers(1, 15)), min_size=1, max_size=12)
CASES = st.builds(
    lambda origin, runs, tail: Case(origin, [p for p, n in runs for _ in range(n)], tail),
    st.one_of(st.integers(0, 10_000), st.integers(FAR, FAR + 10_000)),
    RUNS,
    st.integers(0, 6),
)


def play(
    cases: list[Case], options: SegmenterOptions, order: np.random.Generator
) -> list[list[Instruction]]:
    """Run all rows with steps over random subsets; check the promises of `retain_from`."""
    segmenter = Segmenter(len(cases) + 2, options)
    rows = order.permutation(len(cases) + 2)[: len(cases)].astype(np.int64)
    segmenter.start(rows, np.array([case.origin for case in cases]))
    out: list[list[Instruction]] = [[] for _ in cases]
    where = {int(row): k for k, row in enumerate(rows)}
    promised = segmenter.retain_from(rows)
    done = [0] * len(cases)

    def take(instructions: list[Instruction]) -> None:
        for item in instructions:
            k = where[item.row]
            out[k].append(item)
            if isinstance(item, Onset):
                assert item.at >= promised[k]
            elif isinstance(item, Segment):
                assert item.start >= promised[k]

    while any(done[k] < len(case.probability) for k, case in enumerate(cases)):
        open_rows = [k for k, case in enumerate(cases) if done[k] < len(case.probability)]
        chosen = [k for k in order.permutation(open_rows).tolist() if order.random() < 0.7]
        values = np.array([cases[k].probability[done[k]] for k in chosen], np.float32)
        instructions = segmenter.step(rows[chosen], values)
        order_of_rows = [chosen.index(where[item.row]) for item in instructions]
        assert order_of_rows == sorted(order_of_rows)
        take(instructions)
        for k in chosen:
            done[k] += 1
        now = segmenter.retain_from(rows)
        assert (now >= promised).all()
        promised = now
    ends = [
        case.origin + len(case.probability) * options.frame_samples + case.tail for case in cases
    ]
    take(segmenter.flush(rows, np.array(ends), "end"))
    return out


def thresholds(options: SegmenterOptions) -> SegmenterOptions:
    # float32 0.35 is above the double: the reference compares what the segmenter compares.
    return replace(options, offset_threshold=0.3, onset_threshold=0.5)


@given(st.lists(CASES, min_size=1, max_size=4), options_of_any_kind(), st.integers(0, 2**32 - 1))
def test_every_row_does_what_the_reference_does(
    cases: list[Case], options: SegmenterOptions, seed: int
) -> None:
    options = thresholds(options)
    rows = play(cases, options, np.random.default_rng(seed))
    for case, got in zip(cases, rows, strict=True):
        row = got[0].row if got else 0
        assert got == reference(case, options, row)


@given(CASES, options_of_any_kind(), st.integers(0, 2**32 - 1))
def test_segments_tile_their_utterance(case: Case, options: SegmenterOptions, seed: int) -> None:
    (got,) = play([case], thresholds(options), np.random.default_rng(seed))
    window, hop = options.samples(options.window_s), options.samples(options.hop_s)
    before = case.origin
    segments: list[Segment] = []
    onset: Onset | None = None
    for item in got:
        if isinstance(item, Onset):
            assert onset is None
            assert item.at >= before
            onset, segments = item, []
        elif isinstance(item, Segment):
            segments.append(item)
        else:
            assert onset is not None
            assert (onset.at, onset.utterance) == (item.start, item.utterance)
            assert [s.index for s in segments] == list(range(item.segments))
            assert segments[0].start == item.start
            assert segments[-1].end == item.at
            assert all(a.end < b.end and b.start <= a.end for a, b in pairwise(segments))
            for segment in segments[:-1]:
                assert segment.start == item.start + segment.index * hop
                assert segment.end - segment.start == window
                assert not segment.last
            assert segments[-1].end - segments[-1].start == min(window, item.at - item.start)
            assert item.at - item.start <= options.samples(options.max_utterance_s)
            assert 0 < item.speech_ratio <= 1 or item.reason != "silence"
            before, onset = item.at, None
    assert onset is None


@given(CASES, st.integers(0, 2**32 - 1), st.sampled_from([FAR, FAR + 3, 2**50 + 1]))
def test_positions_do_not_drift(case: Case, seed: int, shift: int) -> None:
    (near,) = play([case], OPTIONS, np.random.default_rng(seed))
    (far,) = play([replace(case, origin=case.origin + shift)], OPTIONS, np.random.default_rng(seed))
    names = {"at", "start", "end", "decided"}
    moved = [
        item._replace(**{n: getattr(item, n) + shift for n in names & set(item._fields)})
        for item in near
    ]
    assert moved == far


def one_row(
    probability: list[float], options: SegmenterOptions = OPTIONS, origin: int = 1000
) -> tuple[Segmenter, list[Instruction]]:
    segmenter = Segmenter(1, options)
    rows = np.zeros(1, np.int64)
    segmenter.start(rows, np.array([origin]))
    out: list[Instruction] = []
    for value in probability:
        out += segmenter.step(rows, np.array([value], np.float32))
    return segmenter, out


def test_a_plain_utterance() -> None:
    _, got = one_row([0.0] * 10 + [1.0] * 20 + [0.0] * 10)
    # Speech is [1100, 1300); padding 25; three frames confirm; the hangover is over at 1350.
    assert got == [
        Onset(0, 0, 1075, 1130),
        Segment(0, 0, 0, 1075, 1195, False, 95 / 120, 1200),
        Segment(0, 0, 1, 1125, 1245, False, 1.0, 1250),
        Segment(0, 0, 2, 1175, 1295, False, 1.0, 1300),
        Segment(0, 0, 3, 1205, 1325, True, 95 / 120, 1350),
        Offset(0, 0, 1075, 1325, "silence", 4, 200 / 250, 1350),
    ]


def test_a_day_of_speech_ends_every_utterance_on_the_sample() -> None:
    options = SegmenterOptions(8000, 256)
    segmenter = Segmenter(1, options)
    rows = np.zeros(1, np.int64)
    origin = 24 * 3600 * 8000 + 1
    segmenter.start(rows, np.array([origin]))
    speech = np.ones(1, np.float32)
    ends = [
        item.at
        for _ in range(12 * 1875)
        for item in segmenter.step(rows, speech)
        if isinstance(item, Offset)
    ]
    assert ends == [origin + 480_000 * k for k in range(1, len(ends) + 1)]
    assert len(ends) == 11


@pytest.mark.parametrize(
    "probability",
    [[1.0, 1.0] + [0.0] * 20, [1.0, 0.0] * 40, [0.45] * 40, [float("nan")] * 20],
    ids=["too short", "clicks", "never reaches the onset threshold", "not a number"],
)
def test_no_utterance(probability: list[float]) -> None:
    segmenter, got = one_row(probability)
    assert got == []
    end = 1000 + 10 * len(probability)
    assert segmenter.flush(np.zeros(1, np.int64), np.array([end]), "end") == []


def test_a_candidate_that_never_decides_is_bounded() -> None:
    segmenter, got = one_row([1.0, 1.0] + [0.0, 1.0] * 30)
    assert [type(item) for item in got] == []
    assert segmenter.retain_from(np.zeros(1, np.int64))[0] >= 1620 - 60 - 25


def test_a_long_utterance_goes_on_unconfirmed_after_its_cut() -> None:
    _, got = one_row([1.0] * 50 + [0.0] * 10)
    # [1000, 1450) is as long as an utterance may be; frame 45 ends beyond it.
    cut = next(k for k, item in enumerate(got) if isinstance(item, Offset))
    assert got[cut] == Offset(0, 0, 1000, 1450, "max_utterance", 8, 1.0, 1460)
    assert got[cut + 1] == Onset(0, 1, 1450, 1460)
    assert got[-1] == Offset(0, 1, 1450, 1525, "silence", 1, 50 / 75, 1550)


def test_padding_stops_at_the_longest_utterance() -> None:
    _, got = one_row([1.0] * 44 + [0.0] * 10)
    assert got[-1] == Offset(0, 0, 1000, 1450, "silence", 8, 440 / 450, 1490)


def test_a_due_segment_waits_in_a_pause() -> None:
    pause = [1.0] * 9 + [0.0] * 4
    assert [type(item) for item in one_row(pause)[1]] == [Onset]
    assert one_row([*pause, 1.0])[1][1] == Segment(0, 0, 0, 1000, 1120, False, 90 / 120, 1140)
    ended = one_row([*pause, 0.0])[1]
    assert ended[1] == Segment(0, 0, 0, 1000, 1115, True, 90 / 115, 1140)


def test_utterances_share_no_audio() -> None:
    options = replace(OPTIONS, hangover_ms=25)
    _, got = one_row([1.0] * 5 + [0.0] * 3 + [1.0] * 5 + [0.0] * 5, options)
    assert [(o.start, o.at) for o in got if isinstance(o, Offset)] == [(1000, 1075), (1075, 1155)]


def test_flush_reports_what_was_confirmed_up_to_the_end() -> None:
    segmenter, got = one_row([0.0] * 2 + [1.0] * 3)
    assert [type(item) for item in got] == [Onset]
    flushed = segmenter.flush(np.zeros(1, np.int64), np.array([1057]), "lost")
    assert flushed == [
        Segment(0, 0, 0, 1000, 1057, True, 30 / 57, 1057),
        Offset(0, 0, 1000, 1057, "lost", 1, 30 / 57, 1057),
    ]
    assert segmenter.flush(np.zeros(1, np.int64), np.array([1057]), "lost") == []


def test_flush_forgets_a_candidate() -> None:
    segmenter, got = one_row([0.0] * 4 + [1.0] * 2 + [0.0])
    rows = np.zeros(1, np.int64)
    assert segmenter.retain_from(rows).tolist() == [1040 - 25]
    assert got + segmenter.flush(rows, np.array([1070]), "end") == []
    assert segmenter.retain_from(rows).tolist() == [1070 - 25]


def test_flush_cannot_end_before_a_frame_that_was_taken() -> None:
    segmenter, _ = one_row([1.0] * 5)
    with pytest.raises(ValueError, match="before its last frame"):
        segmenter.flush(np.zeros(1, np.int64), np.array([1049]), "end")


@pytest.mark.parametrize(("keep", "number"), [(False, 0), (True, 1)])
def test_a_row_starts_again(keep: bool, number: int) -> None:
    segmenter, _ = one_row([1.0] * 10 + [0.0] * 10)
    rows = np.zeros(1, np.int64)
    segmenter.start(rows, np.array([5000]), keep_utterances=keep)
    assert segmenter.retain_from(rows).tolist() == [5000]
    got = [item for _ in range(3) for item in segmenter.step(rows, np.ones(1, np.float32))]
    assert got == [Onset(0, number, 5000, 5030)]


def test_an_empty_step_does_nothing() -> None:
    segmenter, _ = one_row([])
    assert segmenter.step(np.empty(0, np.int64), np.empty(0, np.float32)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"padding_ms": 600}, "padding_ms <= hangover_ms"),
        ({"padding_ms": -1}, "0 <= padding_ms"),
        ({"offset_threshold": 0.6}, "offset_threshold <= onset_threshold"),
        ({"onset_threshold": 1.1}, "onset_threshold <= 1"),
        ({"hop_s": 4.0}, "hop_s <= window_s"),
        ({"hop_s": 0.0}, "0 < hop_s"),
        ({"hop_s": 1e-9}, "shorter than a sample"),
        ({"max_utterance_s": 2.0}, "window_s <= max_utterance_s"),
        ({"min_speech_ms": -1}, "min_speech_ms"),
        ({"window_s": 0.02, "hop_s": 0.01}, "shorter than a frame"),
        ({"sample_rate_hz": 0}, "must be positive"),
    ],
)
def test_contradictions_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(SegmenterOptions(8000, 256), **change)  # type: ignore[arg-type]  # on purpose
