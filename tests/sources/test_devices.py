"""Choosing the device that is meant."""

from __future__ import annotations

import pytest

from serd.errors import SourceError
from serd.sources.devices import select_device
from tests.sources.fake_backend import device

DEVICES = [
    device(0, "HDA Intel: ALC257 (hw:0,0)"),
    device(2, "USB Headset: Audio (hw:1,0)"),
    device(3, "USB Webcam: Audio (hw:2,0)"),
    device(4, "pulse", is_default=True),
    device(5, "pulse monitor"),
    device(6, "Größe"),
]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (None, 4),
        (2, 2),
        ("headset", 2),
        ("USB Web", 3),
        ("hw:0,0", 0),
        ("pulse", 4),  # the whole name goes before a part of another
        ("PULSE, alsa", 4),
        ("monitor", 5),
        ("GRÖSSE", 6),
    ],
)
def test_finds_the_device_that_is_meant(wanted: str | int | None, index: int) -> None:
    assert select_device(DEVICES, wanted).index == index


@pytest.mark.parametrize(
    ("wanted", "code", "told"),
    [
        ("usb", "device_ambiguous", ["[2] USB Headset", "[3] USB Webcam"]),
        ("nothing", "device_not_found", ["'nothing'", "[0] HDA Intel", "[5] pulse monitor"]),
        (1, "device_not_found", ["index 1", "[0] HDA Intel"]),
    ],
)
def test_lists_the_candidates_when_it_cannot(wanted: str | int, code: str, told: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        select_device(DEVICES, wanted)
    assert caught.value.code == code
    assert all(words in caught.value.message for words in told)
    assert "no microphone is running" not in caught.value.message


def test_says_when_there_is_nothing_at_all() -> None:
    with pytest.raises(SourceError, match="no default input device; there are: none") as caught:
        select_device([], None)
    assert caught.value.code == "device_not_found"
