"""Sound devices that can record, and which of them a configuration means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serd.errors import SourceError


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device that can record.

    Attributes
    ----------
    index
        PortAudio's number of it; may change when devices come and go.
    input_channels
        Most channels it records at once.
    default_sample_rate_hz
        Rate that it runs at when left alone.
    is_default
        Whether it is what the machine records from by default.
    """

    index: int
    name: str
    host_api: str
    input_channels: int
    default_sample_rate_hz: int
    is_default: bool

    @property
    def label(self) -> str:
        """Name and host API, as PortAudio's users write a device in full."""
        return f"{self.name}, {self.host_api}"


def select_device(
    devices: Sequence[DeviceInfo], wanted: str | int | None, stale: bool = False
) -> DeviceInfo:
    """The one device that is meant.

    Parameters
    ----------
    devices
        All that can record.
    wanted
        An index; a name or ``name, host API``, whole or in part, in any case; or None for the
        default. A whole name is preferred to parts of others.
    stale
        Whether `devices` may lack what was plugged in lately; told in the error.

    Raises
    ------
    SourceError
        ``device_not_found`` or ``device_ambiguous``; the message lists the candidates.
    """
    if wanted is None:
        matches = [device for device in devices if device.is_default]
        what = "no default input device"
    elif isinstance(wanted, int):
        matches = [device for device in devices if device.index == wanted]
        what = f"no input device has index {wanted}"
    else:
        text = wanted.casefold()
        matches = [d for d in devices if text in (d.name.casefold(), d.label.casefold())]
        matches = matches or [d for d in devices if text in d.label.casefold()]
        what = f"no input device is called {wanted!r}"
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise SourceError(
            "device_ambiguous",
            f"{wanted!r} could be any of these: {_listing(matches)}; "
            "write more of the name, or the index",
        )
    hint = " (others are looked for once no microphone is running)" if stale else ""
    raise SourceError("device_not_found", f"{what}; there are: {_listing(devices)}{hint}")


def _listing(devices: Sequence[DeviceInfo]) -> str:
    return "; ".join(f"[{device.index}] {device.label}" for device in devices) or "none"
