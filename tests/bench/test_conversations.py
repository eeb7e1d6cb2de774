from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serd.bench.conversations import (
    SPEECH_SHARE,
    draw_turns,
    find_speech,
    make_conversations,
)
from serd.types import Int16Array, Int64Array

RATE_HZ = 8000
BLOCK = 160


def tone(seconds: float, level: float = 0.3) -> Int16Array:
    phase = 2 * np.pi * 300 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.rint(32767 * level * np.sin(phase)).astype(np.int16)


class TestTurns:
    @given(samples=st.integers(100, 2_000_000), seed=st.integers(0, 2**32))
    def test_each_channel_speaks_for_its_share_and_nobody_interrupts(
        self, samples: int, seed: int
    ) -> None:
        channels = draw_turns(samples, RATE_HZ, np.random.default_rng(seed))
        for spans in channels:
            spoken = int((spans[:, 1] - spans[:, 0]).sum())
            assert SPEECH_SHARE[0] * samples - 1 <= spoken <= SPEECH_SHARE[1] * samples + 1
        both: Int64Array = np.concatenate(channels)
        both = both[np.argsort(both[:, 0])]
        assert (both[:, 1] > both[:, 0]).all()
        assert (both[1:, 0] >= both[:-1, 1]).all()
        assert both[0, 0] >= 0
        assert both[-1, 1] <= samples

    def test_talkspurts_last_a_second_and_turns_are_taken(self) -> None:
        a, b = draw_turns(3600 * RATE_HZ, RATE_HZ, np.random.default_rng(1))
        lengths_s = np.concatenate([a, b]) @ [-1, 1] / RATE_HZ
        assert 0.9 < lengths_s.mean() < 1.1
        who = np.argsort(np.concatenate([a[:, 0], b[:, 0]])) < len(a)
        turns = 1 + np.count_nonzero(np.diff(who.astype(int)))
        assert 3.5 < len(who) / turns < 4.5


class TestFindSpeech:
    def test_cuts_at_silences_that_are_longer_than_a_pause(self) -> None:
        silence = np.zeros(RATE_HZ // 2, np.int16)
        pause = np.zeros(RATE_HZ // 10, np.int16)
        click = tone(0.06)
        recording = np.concatenate(
            [silence, tone(0.6), pause, tone(0.4), silence, click, silence, tone(1.0, 0.1)]
        )
        assert [len(piece) / RATE_HZ for piece in find_speech(recording, RATE_HZ)] == [
            pytest.approx(1.1, abs=0.03),
            pytest.approx(1.0, abs=0.03),
        ]

    @pytest.mark.parametrize("samples", [0, 100, RATE_HZ])
    def test_finds_none_in_silence(self, samples: int) -> None:
        assert find_speech(np.zeros(samples, np.int16), RATE_HZ) == []


class TestConversations:
    def test_are_the_same_for_the_same_seed(self) -> None:
        speech = [tone(0.7), tone(1.3, 0.1)]
        one, same, other = (
            make_conversations(speech, 3, 10 * RATE_HZ, RATE_HZ, seed, BLOCK) for seed in (7, 7, 8)
        )
        np.testing.assert_array_equal(one.samples, same.samples)
        assert not np.array_equal(one.samples, other.samples)
        assert one.samples.shape == (3, 10 * RATE_HZ)

    @given(seconds=st.floats(2, 30), seed=st.integers(0, 1000))
    def test_are_loud_where_somebody_speaks_and_suppressed_only_where_nobody_does(
        self, seconds: float, seed: int
    ) -> None:
        samples = round(seconds * 50) * BLOCK
        made = make_conversations([tone(2.0)], 2, samples, RATE_HZ, seed, BLOCK)
        assert SPEECH_SHARE[0] - 0.001 <= made.speech_share <= SPEECH_SHARE[1] + 0.001
        # The quietest speech is 12 dB below the tone, the loudest noise at -50 dBFS.
        loud = np.abs(made.samples.astype(int)) > 1000
        blocks = loud.reshape(2, -1, BLOCK).any(axis=2)
        assert not (blocks & made.silent).any()
        assert loud.mean() > 0.5 * made.speech_share
        assert made.silent.mean() < 1 - made.speech_share

    def test_most_lines_are_noisy_and_some_digitally_silent(self) -> None:
        made = make_conversations([tone(2.0)], 40, 20 * RATE_HZ, RATE_HZ, 1, BLOCK)
        silent = np.array([(channel == 0).mean() > 0.3 for channel in made.samples])
        assert 0.1 < silent.mean() < 0.45
