"""Choosing rates, and who may re-initialise PortAudio when."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from serd.errors import SourceError
from serd.sources.devices import DeviceInfo
from serd.sources.portaudio import Choice, PortAudio, SoundDeviceBackend, Stream
from tests.sources.fake_backend import FakeBackend, device


def open_(
    portaudio: PortAudio,
    wanted: str | None = None,
    rate_hz: int | None = None,
    channels: tuple[int, ...] = (1,),
) -> tuple[Stream, int]:
    rates: list[int] = []

    def prepare(
        found: DeviceInfo, chosen_hz: int
    ) -> tuple[Callable[..., None], Callable[[], None]]:
        rates.append(chosen_hz)
        return lambda *_: None, lambda: None

    stream = portaudio.open(Choice(wanted, rate_hz, channels), 20, prepare)
    return stream, rates[0]


@pytest.mark.parametrize(
    ("supported", "default_hz", "chosen"),
    [
        ({16_000, 44_100}, 44_100, 16_000),
        ({44_100, 48_000}, 44_100, 44_100),
        ({96_000, 48_000}, 96_000, 48_000),
        ({96_000, 8000}, 96_000, 8000),
        ({11_025}, 11_025, 11_025),
    ],
)
def test_takes_16_khz_or_else_what_the_device_likes(
    supported: set[int], default_hz: int, chosen: int
) -> None:
    backend = FakeBackend([device(0, "mic", rate_hz=default_hz, is_default=True)])
    backend.rates_hz = supported
    assert open_(PortAudio(backend))[1] == chosen


@pytest.mark.parametrize(("supported", "wanted_hz"), [({96_000}, None), ({16_000}, 44_100)])
def test_refuses_when_no_rate_fits(supported: set[int], wanted_hz: int | None) -> None:
    backend = FakeBackend([device(0, "mic", rate_hz=96_000, is_default=True)])
    backend.rates_hz = supported
    with pytest.raises(SourceError) as caught:
        open_(PortAudio(backend), rate_hz=wanted_hz)
    assert caught.value.code == "rate_unsupported"


def test_refuses_a_channel_that_the_device_lacks() -> None:
    backend = FakeBackend([device(0, "mic", channels=2, is_default=True)])
    with pytest.raises(SourceError, match="has 2 input channels; channel 3") as caught:
        open_(PortAudio(backend), channels=(1, 3))
    assert caught.value.code == "channel_missing"


def test_initialises_anew_only_while_nothing_is_open() -> None:
    backend = FakeBackend([device(0, "one"), device(1, "two")])
    portaudio = PortAudio(backend)
    first, _ = open_(portaudio, "one")
    assert backend.rescans == 0
    backend.plug(device(2, "three"))
    with pytest.raises(SourceError, match="once no microphone is running"):
        open_(portaudio, "three")
    second, _ = open_(portaudio, "two")
    portaudio.close(first)
    assert [found.name for found in portaudio.devices()] == ["one", "two"]
    assert backend.rescans == 0
    portaudio.close(second)
    third, _ = open_(portaudio, "three")
    assert backend.rescans == 1
    portaudio.close(third)


def test_an_attempt_that_failed_does_not_count_as_open() -> None:
    backend = FakeBackend([device(0, "mic")])
    portaudio = PortAudio(backend)
    backend.refuse = SourceError("device_failed", "busy")
    for _ in range(2):
        with pytest.raises(SourceError, match="busy"):
            open_(portaudio, "mic")
    assert backend.rescans == 1


def test_says_what_to_install_when_the_library_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoLibrary:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(SourceError, match="apt install libportaudio2") as caught:
        PortAudio(SoundDeviceBackend()).devices()
    assert caught.value.code == "portaudio_missing"
