from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serd.bench.expected import expect, speech_probability
from serd.segmenter import Segment, Segmenter, SegmenterOptions
from serd.vad.energy import EnergyDetector

OPTIONS = SegmenterOptions(sample_rate_hz=8000, frame_samples=256)


@given(
    lengths=st.lists(st.integers(1, 60_000), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_streams_are_cut_as_each_would_be_alone(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Long stretches of either, as in speech.
    probability = np.repeat(rng.integers(0, 2, (12, 2)), 20, axis=0).astype(np.float32)
    conversation = rng.integers(0, 2, len(lengths))
    found = expect(probability, OPTIONS, conversation, np.array(lengths))
    row = np.zeros(1, np.int64)
    utterances = 0
    for stream, length in enumerate(lengths):
        alone = Segmenter(1, OPTIONS)
        alone.start(row, row)
        wanted = []
        for frame in range(length // OPTIONS.frame_samples):
            wanted += alone.step(row, probability[[frame], conversation[stream]])
        wanted += alone.flush(row, np.array([length]), "end")
        segments = [item for item in wanted if isinstance(item, Segment)]
        mine = found.stream == stream
        assert found.start[mine].tolist() == [segment.start for segment in segments]
        assert found.end[mine].tolist() == [segment.end for segment in segments]
        assert found.decided[mine].tolist() == [segment.decided for segment in segments]
        # What is cut while speech goes on is certain within the padding behind its end.
        assert (found.decided[mine] - found.end[mine] < 4000)[~found.closing[mine]].all()
        utterances += len({segment.utterance for segment in segments})
    assert found.utterances == utterances


def test_conversations_are_heard_over_and_over() -> None:
    rng = np.random.default_rng(3)
    audio = (rng.normal(0, 3000, (2, 10 * 256)) * (np.arange(10 * 256) < 1280)).astype(np.int16)
    heard = speech_probability(audio, EnergyDetector(8000, 2), 30)
    twice = speech_probability(np.tile(audio, 3), EnergyDetector(8000, 2), 30)
    np.testing.assert_array_equal(heard, twice)
    assert heard.shape == (30, 2)
