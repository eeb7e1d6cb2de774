"""What a batch is made of: how often a recording comes, and how it is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.batches import draw_cuts, sampling_weights, shift_left
from trainer.corpora import Utterance
from trainer.distil import STEP_SAMPLES


def test_balance_moves_the_weight_from_utterances_to_cells() -> None:
    utterances = [Utterance(Path(f"/{i}"), "tess", "OAF", "sad", "en") for i in range(9)]
    utterances.append(Utterance(Path("/x"), "tess", "OAF", "angry", "en"))
    assert sampling_weights(utterances, 0.0)[-1] == pytest.approx(0.1)
    assert sampling_weights(utterances, 1.0)[-1] == pytest.approx(0.5)
    assert sampling_weights(utterances, 0.5)[-1] == pytest.approx(1 / (9 / 3 + 1))


@given(length=st.integers(0, 48_000), most=st.integers(0, 10_000), seed=st.integers(0, 99))
def test_a_shift_keeps_what_it_does_not_cut(length: int, most: int, seed: int) -> None:
    audio = np.zeros((1, 48_000), np.int16)
    audio[0, :length] = np.arange(1, length + 1) % 30_000 + 1
    cut = draw_cuts(np.array([length]), most, np.random.default_rng(seed))
    shifted = shift_left(audio, cut)
    first = int(cut[0])
    assert first % STEP_SAMPLES == 0
    assert first <= min(most, length // 5)
    assert np.array_equal(shifted[0, : length - first] * 32768, audio[0, first:length])
    assert not shifted[0, length - first :].any()
