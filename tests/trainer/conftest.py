"""Made-up corpora, small enough to train on in a test."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

# Without the train extra there is nothing to collect here.
collect_ignore_glob = ["test_*.py"] if find_spec("torch") is None else []

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.needs_torch)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared folder: EMO-DB in its naming, three speakers, tones for voices; and noise."""
    import numpy as np
    import soundfile as sf

    root = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(5)
    corpus = root / "corpora" / "emodb"
    corpus.mkdir(parents=True)
    time = np.arange(int(0.9 * 16_000)) / 16_000
    for speaker, base_hz in (("03", 110.0), ("08", 210.0), ("09", 190.0)):
        for text in ("a01", "a02", "b01"):
            for emotion, rate in (("W", 3.0), ("N", 1.0), ("T", 0.5), ("L", 1.0)):
                tone = np.sin(2 * np.pi * base_hz * rate * time + rng.uniform(0, 6))
                noise = rng.standard_normal(len(time))
                sf.write(
                    corpus / f"{speaker}{text}{emotion}a.wav",
                    0.3 * tone + 0.01 * noise,
                    16_000,
                )
    for folder, names in (
        ("esc10", ("rain", "dog")),
        ("hold_music", ("track",)),
        ("impulse_responses", ("kitchen-true-stereo", "comb-saw1")),
    ):
        (root / "noise" / folder).mkdir(parents=True)
        for name in names:
            sound = rng.standard_normal(8_000) * np.exp(-np.arange(8_000) / 800.0) * 0.3
            sf.write(root / "noise" / folder / f"{name}.wav", sound, 16_000)
    return root


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe for the made-up corpus that trains in a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(
        """
name = "tiny"
seed = 3
labels = {neutral = "neutral", sad = "sad", angry = "angry"}
[corpora.emodb]
validation = ["08"]
test = ["09"]
[frontend]
n_mels = 16
hop_length = 400
[model]
channels = [4, 8]
time_strides = [2, 2]
projection = 8
hidden = 8
[augment]
copies = 2
[train]
epochs = 4
steps = 3
batch_size = 4
""",
        "utf-8",
    )
    return path
