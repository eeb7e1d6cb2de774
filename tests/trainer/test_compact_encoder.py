"""The compact encoder itself: rows apart from each other, layers by name, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.backbones.compact import (
    Compact,
    CompactSettings,
    compact_steps,
    load_compact,
    save_compact,
)
from trainer.backbones.load import load_encoder
from trainer.errors import TrainerError

_SIZES: dict[str, Any] = {
    "mels": 16,
    "bands": 14,
    "width": 12,
    "heads": 2,
    "head_size": 4,
    "hidden": 20,
    "depth": 2,
}
LAYERS = (1, 2, 4)


def _encoder(**sizes: Any) -> Compact:
    torch.manual_seed(0)
    encoder = Compact(CompactSettings(**{**_SIZES, "layers": LAYERS, **sizes})).eval()
    encoder.positions.normal_()
    return encoder


def _audio(rows: int, samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_row_hears_itself_alone(stride: int) -> None:
    encoder, length = _encoder(stride=stride), torch.tensor([12_000, 7_321, 16_000])
    audio = _audio(3, 16_000)
    with torch.inference_mode():
        together, steps = encoder(audio, length, LAYERS)
        for row, count in enumerate(length.tolist()):
            alone, own = encoder(audio[row : row + 1, :count], length[row : row + 1], LAYERS)
            valid = int(own)
            assert valid == int(steps[row]) == -(-(count // 160 // 2) // stride)
            torch.testing.assert_close(
                together[row, :, :valid], alone[0, :, :valid], atol=1e-5, rtol=1e-4
            )
    assert together.shape[1] == 3
    assert together.shape[3] == 12


def test_there_is_a_step_of_the_shortest_sound() -> None:
    assert compact_steps(torch.tensor([1, 2, 3, 4, 5, 300]), 2).tolist() == [1, 1, 1, 1, 1, 75]
    with torch.inference_mode():
        said, steps = _encoder()(_audio(1, 400), torch.tensor([400]), (4,))
    assert steps.tolist() == [1]
    assert said.isfinite().all()


def test_layers_are_asked_for_by_the_teachers_number() -> None:
    encoder, audio, length = _encoder(), _audio(2, 8_000), torch.tensor([8_000, 6_000])
    assert (encoder.first, encoder.depth) == (1, 4)
    with torch.inference_mode():
        everything, _ = encoder(audio, length, LAYERS)
        some, _ = encoder(audio, length, (2, 4))
        assert torch.equal(some, everything[:, 1:])
        encoder.cut((2, 4))
        cut, _ = encoder(audio, length, (2, 4))
    assert torch.equal(cut, some)
    assert len(encoder.maps) == 2
    with pytest.raises(TrainerError, match=r"model\.layers: .*the layers 2, 4, not 1, 3"):
        encoder.cut((1, 3, 4))


def test_a_file_gives_back_the_encoder(tmp_path: Path) -> None:
    encoder, path = _encoder(), tmp_path / "encoder.pt"
    save_compact(encoder, path, speakers=["emodb/03"])
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.pt"]
    assert torch.load(path, weights_only=True)["speakers"] == ["emodb/03"]
    audio, length = _audio(1, 8_000), torch.tensor([8_000])
    expected, _ = encoder(audio, length, LAYERS)
    for again in (load_compact(path), load_encoder(str(path))):
        assert isinstance(again, Compact)
        assert again.name == "encoder.pt"
        assert again.settings == encoder.settings
        said, _ = again(audio, length, LAYERS)
        # It is stored in halves.
        torch.testing.assert_close(said, expected, atol=0.01, rtol=0.01)
    assert not any(value.requires_grad for value in again.parameters())


def _other_sizes(path: Path) -> None:
    content = {
        "settings": _encoder().settings.model_dump(),
        "model": _encoder(width=16).state_dict(),
    }
    torch.save(content, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "cannot be read: No such file.*serd-trainer encoder train"),
        (lambda path: path.write_bytes(b""), "is no compact encoder"),
        (lambda path: path.write_bytes(b"text, no weights"), "is no compact encoder"),
        (lambda path: torch.save({"recipe": {}}, path), "is no compact encoder"),
        (lambda path: torch.save([1, 2], path), "is no compact encoder"),
        (_other_sizes, "is no compact encoder: .*size mismatch"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, write: Any, message: str) -> None:
    path = tmp_path / "encoder.pt"
    if write is not None:
        write(path)
    with pytest.raises(TrainerError, match=rf"(?s)encoder\.pt {message}"):
        load_compact(path)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"encoder\.pt cannot be written"):
        save_compact(_encoder(), tmp_path / "nowhere" / "encoder.pt")
