"""The sounds to degrade with, read from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.audio import Float32, decode, to_float
from trainer.augment.levels import rms
from trainer.corpora.base import audio_files
from trainer.errors import TrainerError

# Of the Web Audio set, those that are rooms or a microphone in one; the rest are effects.
ROOMS = (
    "ambisonic-1o-ir",
    "binaural-s3_r4_bd",
    "cardiod-35-10-spread",
    "cardiod-rear-35-10",
    "cardiod-true-stereo-15-8",
    "diffusor3",
    "echo-chamber",
    "kitchen-true-stereo",
    "matrix-reverb2",
    "omni-35-10",
    "spatialized1",
    "spatialized4",
    "spatialized7",
    "super-ceiling-35-10",
    "tim-warehouse-stretch1",
)


@dataclass(frozen=True, slots=True)
class NoiseLibrary:
    """Decoded material to degrade with: float32 arrays at 16 kHz; any list may be empty."""

    noises: tuple[Float32, ...] = ()
    music: tuple[Float32, ...] = ()
    rooms: tuple[Float32, ...] = ()


def load_noise(folder: Path) -> NoiseLibrary:
    """Read `esc10`, `hold_music` and `impulse_responses` under `folder`.

    Raises
    ------
    TrainerError
        the folder or one of the three is missing.
    """

    def read(name: str) -> dict[str, Float32]:
        if not (folder / name).is_dir():
            raise TrainerError(f"{folder / name} is missing: augmentation takes its sounds there.")
        return {path.stem: to_float(decode(path)) for path in audio_files(folder / name)}

    responses = read("impulse_responses")
    return NoiseLibrary(
        noises=tuple(sound for sound in read("esc10").values() if rms(sound) > 1e-4),
        music=tuple(read("hold_music").values()),
        rooms=tuple(responses[name] for name in ROOMS if name in responses),
    )
