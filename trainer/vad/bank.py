"""Mixtures as features and targets, made once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from trainer.cache import save_atomically
from trainer.errors import TrainerError
from trainer.pcm import Float32, Int16, to_float
from trainer.vad.frontend import Frontend
from trainer.vad.mixture import ALONE, CONDITIONS, HARD, Mixer, Mixture, Style, load_sounds
from trainer.vad.network import RATES_HZ, widen
from trainer.vad.settings import FrontendSettings, VadRecipe
from trainer.vad.teacher import Teacher
from trainer.vad.voices import load_voices

_SHARD = 128
_VERSION = 1  # of what mixtures are drawn from the same settings
_TRAIN, _VALIDATION, _HARD, _ALONE = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Bank:
    """Mixtures of one length.

    Attributes
    ----------
    features
        float16 [mixtures, frames, features of 16 kHz], log mel bands.
    wide
        bool [mixtures]: at 16 kHz.
    label, clean, noisy
        float16 [mixtures, frames], see `trainer.vad.settings.TargetSettings`.
    alone
        bool [mixtures]: without any speech.
    level
        float32 [mixtures], natural logarithm of the mean power of the bands that both rates have.
    """

    features: npt.NDArray[np.float16]
    wide: npt.NDArray[np.bool_]
    label: npt.NDArray[np.float16]
    clean: npt.NDArray[np.float16]
    noisy: npt.NDArray[np.float16]
    alone: npt.NDArray[np.bool_]
    level: Float32


class Featurer:
    """Features of whole recordings at either rate, in the places of 16 kHz."""

    def __init__(self, settings: FrontendSettings) -> None:
        self._settings = settings
        self._frontends = {rate: Frontend(settings, rate) for rate in RATES_HZ}

    def __call__(self, samples: Int16, rate_hz: int) -> Float32:
        """int16 [samples] to float32 [whole frames, features]."""
        frontend = self._frontends[rate_hz]
        whole = samples[: len(samples) // frontend.size * frontend.size]
        with torch.inference_mode():
            features = frontend.recording(torch.from_numpy(to_float(whole))[None])[0]
            if rate_hz == 8000:
                features = widen(features, self._settings)
        return np.asarray(features.numpy(), np.float32)


def build_bank(recipe: VadRecipe, data: Path, cache: Path, progress: bool = False) -> Path:
    """Make what of the recipe's bank is not there yet; its folder.

    Raises
    ------
    TrainerError
        see `load_voices`, `load_sounds` and `Teacher`; or the disk is full.
    """
    folder = cache / f"bank-{_fingerprint(recipe)}"
    missing = [shard for shard in _shards(recipe, folder) if not shard.path.is_file()]
    if not missing and _validation_path(folder).is_file():
        return folder
    voices, held_voices = load_voices(recipe.speech, data, cache, progress)
    sounds, held_sounds = load_sounds(recipe.noise, data / "noise")
    teacher, featurer = Teacher(), Featurer(recipe.frontend)
    seconds = recipe.mixture.seconds
    if not _validation_path(folder).is_file():
        _save_validation(recipe, Mixer(held_voices, held_sounds, seconds), folder)
    mixer = Mixer(voices, sounds, seconds)
    for shard in tqdm(missing, "mixing", disable=not progress):
        mixtures = [
            mixer.draw(shard.style, np.random.default_rng([recipe.seed, *key]))
            for key in shard.keys
        ]
        save_atomically(shard.path, **_arrays(mixtures, teacher, featurer))
    return folder


def load_bank(recipe: VadRecipe, folder: Path) -> Bank:
    """The training part of a bank that `build_bank` made.

    Raises
    ------
    TrainerError
        some of it is missing.
    """
    parts: list[dict[str, npt.NDArray[np.generic]]] = []
    for shard in _shards(recipe, folder):
        if not shard.path.is_file():
            raise TrainerError(f"{shard.path} is missing: the bank was not finished.")
        with np.load(shard.path) as arrays:
            parts.append(dict(arrays))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    alone = ~joined["label"].any(axis=1)
    level = np.array([_level(row, recipe.frontend) for row in joined["features"]], np.float32)
    # Dtypes are those that _arrays wrote.
    return Bank(**joined, alone=alone, level=level)  # type: ignore[arg-type]


def _level(features: npt.NDArray[np.generic], settings: FrontendSettings) -> float:
    shared = np.asarray(features[::4], np.float32).reshape(-1, settings.low + settings.high)
    return float(np.log(np.mean(np.exp(shared[:, : settings.low]))))


def load_validation(folder: Path) -> Iterator[tuple[str, int, Int16, Float32]]:
    """Per condition: name, rate, int16 [mixtures, samples], label float32 [mixtures, frames]."""
    with np.load(_validation_path(folder)) as arrays:
        for name in CONDITIONS:
            rate_hz = CONDITIONS[name].rate_hz
            assert rate_hz is not None
            yield name, rate_hz, arrays[f"samples {name}"], arrays[f"label {name}"]


def _arrays(
    mixtures: Sequence[Mixture], teacher: Teacher, featurer: Featurer
) -> dict[str, npt.NDArray[np.generic]]:
    noisy = np.zeros((len(mixtures), len(mixtures[0].label)), np.float16)
    # The teacher is wrong about a sound whose mixture has no speech.
    spoken = any(mixture.label.any() for mixture in mixtures)
    for rate_hz in RATES_HZ if spoken else ():
        rows = [k for k, mixture in enumerate(mixtures) if mixture.rate_hz == rate_hz]
        heard = teacher.listen([mixtures[k].samples for k in rows], rate_hz)
        for k, probability in zip(rows, heard, strict=True):
            noisy[k] = probability
    return {
        "features": np.stack([featurer(m.samples, m.rate_hz) for m in mixtures]).astype(np.float16),
        "wide": np.array([m.rate_hz == 16_000 for m in mixtures]),
        "label": np.stack([m.label for m in mixtures]).astype(np.float16),
        "clean": np.stack([m.clean for m in mixtures]).astype(np.float16),
        "noisy": noisy,
    }


def _save_validation(recipe: VadRecipe, mixer: Mixer, folder: Path) -> None:
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for place, (name, style) in enumerate(CONDITIONS.items()):
        seeds = [[recipe.seed, _VALIDATION, place, k] for k in range(recipe.mixture.validation)]
        mixtures = [mixer.draw(style, np.random.default_rng(seed)) for seed in seeds]
        arrays[f"samples {name}"] = np.stack([m.samples for m in mixtures])
        arrays[f"label {name}"] = np.stack([m.label for m in mixtures])
    save_atomically(_validation_path(folder), **arrays)


def _fingerprint(recipe: VadRecipe) -> str:
    content = recipe.model_dump(mode="json", exclude={"name", "network", "targets", "train"})
    for name in ("train", "hard", "alone"):
        content["mixture"].pop(name)
    content["version"] = _VERSION
    content["styles"] = [asdict(style) for style in (Style(), HARD, ALONE, *CONDITIONS.values())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class _Shard:
    path: Path
    style: Style
    keys: tuple[tuple[int, int], ...]


def _shards(recipe: VadRecipe, folder: Path) -> list[_Shard]:
    shards: list[_Shard] = []
    for name, style, part, count in (
        ("mixtures", Style(), _TRAIN, recipe.mixture.train),
        ("hard", HARD, _HARD, recipe.mixture.hard),
        ("alone", ALONE, _ALONE, recipe.mixture.alone),
    ):
        for first in range(0, count, _SHARD):
            last = min(first + _SHARD, count)
            path = folder / f"{name}-{first:06d}-{last:06d}.npz"
            shards.append(_Shard(path, style, tuple((part, k) for k in range(first, last))))
    return shards


def _validation_path(folder: Path) -> Path:
    return folder / "validation.npz"
