"""What the student hears, and what its teacher says of the same before it was degraded.

Both are computed once for every copy of every recording and kept on disk. For each utterance of 3 s
and less that is up to 48 kB of the student's, and with three layers of 384 at every second step
173 kB of the teacher's, times the copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from trainer.audio import WINDOW_SAMPLES, Clips, Float32, load_clips, to_float
from trainer.augment import Augmenter, NoiseLibrary, load_noise
from trainer.backbones.compact import CompactSettings
from trainer.backbones.load import load_encoder
from trainer.backbones.whisper import Whisper
from trainer.backbones.whisper_mel import HOP_SAMPLES, WhisperMel
from trainer.bank import Bank, create_array, original, render
from trainer.cache import load_arrays, save_atomically
from trainer.compact.settings import EncoderRecipe, TeacherSettings
from trainer.corpora.reading import read_corpora
from trainer.distil import Float16
from trainer.errors import TrainerError
from trainer.labels import NAMED
from trainer.metrics import Int64
from trainer.prepare import Places

_BATCH = 32
_FRAMES = WINDOW_SAMPLES // HOP_SAMPLES
# Of the teacher: frames of 10 ms to steps of 20.
_FRAMES_A_STEP = 2
# Widths of batches are multiples of this, so that few sizes occur.
_ROUND_SAMPLES = 1_600


@dataclass(frozen=True, slots=True)
class Lessons:
    """Segments to learn from.

    Attributes
    ----------
    mel
        float16 [copies, utterances, 300, bands], the student's input; see `WhisperMel`.
    told
        float16 [copies, utterances, layers, steps, width], the teacher's layers at every
        `stride`-th of its steps; of no meaning beyond a segment's end.
    frames
        int64 [copies, utterances], valid frames of 10 ms.
    level
        float32 [mels], mean of each of the teacher's bands over what nothing was done to.
    stride
        of the teacher's steps.
    key
        digest of everything that the content depends on.
    speakers
        `corpus/speaker` of everybody who is heard, sorted.
    """

    mel: Float16
    told: Float16
    frames: Int64
    level: Float32
    stride: int
    key: str
    speakers: tuple[str, ...]

    def take(self, copies: Int64, utterances: Int64) -> tuple[Tensor, Tensor, Tensor]:
        """Some segments, as long as the longest of them.

        Parameters
        ----------
        copies, utterances
            int64 [segments].

        Returns
        -------
        The student's input, float32 [segments, frames, bands], zero beyond a segment's end; what
        the teacher says, float32 [segments, layers, steps, width]; valid frames,
        int64 [segments].
        """
        frames = self.frames[copies, utterances]
        step = _FRAMES_A_STEP * self.stride
        steps = -(-int(frames.max()) // step)
        mel = np.zeros((len(frames), steps * step, self.mel.shape[3]), np.float32)
        told = np.zeros((len(frames), self.told.shape[2], steps, self.told.shape[4]), np.float32)
        for row, (copy, utterance) in enumerate(zip(copies, utterances, strict=True)):
            heard = self.mel[copy, utterance, : steps * step]
            mel[row, : len(heard)] = heard
            told[row] = self.told[copy, utterance, :, :steps]
        return torch.from_numpy(mel), torch.from_numpy(told), torch.from_numpy(frames)


def load_teacher(settings: TeacherSettings) -> Whisper:
    """The teacher, without the layers above those that it tells of.

    Raises
    ------
    TrainerError
        it cannot be had, is no Whisper, or has no such layer.
    """
    try:
        teacher = load_encoder(settings.encoder)
        if not isinstance(teacher, Whisper):
            raise TrainerError(
                f"teacher.encoder = {settings.encoder!r} is no Whisper, and no other can teach."
            )
        teacher.cut(settings.layers)
    except TrainerError as error:
        # Where an encoder is a part of a model, its keys are the model's.
        raise TrainerError(str(error).replace("model.", "teacher.", 1)) from None
    return teacher


def make_lessons(
    recipe: EncoderRecipe,
    settings: CompactSettings,
    teacher: Whisper,
    places: Places,
    processes: int = 1,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Lessons:
    """Make the lessons, or open them where the cache already holds them.

    Parameters
    ----------
    settings
        the student's: its bands, its stride and the layers that it is told of.
    teacher
        see `load_teacher`.
    processes
        that decode and degrade.
    tell
        is given sentences on recordings that are left out.

    Raises
    ------
    TrainerError
        a corpus or the noise is missing, or the cache cannot be written or is damaged.
    """
    clips = _read_clips(recipe, places, processes, progress, tell)
    augment, library = recipe.augment, NoiseLibrary()
    if augment.copies > augment.clean_copies and augment.needs_sounds:
        library = load_noise(places.shared / "noise")
    bank = render(clips, augment, library, recipe.seed, places.cache, processes, progress)
    student = (settings.bands, settings.stride, settings.layers)
    identity = f"lessons 1 {bank.key} {_digest(teacher)} {student}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    mel_path, told_path = (places.cache / f"lessons-{key}.{what}.npy" for what in ("mel", "told"))
    done_path = places.cache / f"lessons-{key}.npz"
    if not done_path.is_file():
        augmenter = Augmenter(augment, library, clips)
        hearing = _Hearing(teacher, settings, bank, augmenter, clips, recipe.seed)
        try:
            level = hearing.write(mel_path, told_path, progress)
        except OSError as error:
            for path in (mel_path, told_path):
                path.unlink(missing_ok=True)
            raise TrainerError(f"{told_path} cannot be written: {error.strerror}.") from None
        frames = np.maximum(bank.length // HOP_SAMPLES, 1)
        # This comes last: its presence says that the others are whole.
        save_atomically(done_path, frames=frames, level=level)
    done = load_arrays(done_path)
    return Lessons(
        np.load(mel_path, mmap_mode="r"),
        np.load(told_path, mmap_mode="r"),
        done["frames"],
        done["level"],
        settings.stride,
        key,
        tuple(sorted({u.speaker_id for u in clips.utterances})),
    )


def _read_clips(
    recipe: EncoderRecipe,
    places: Places,
    processes: int,
    progress: bool,
    tell: Callable[[str], None] | None,
) -> Clips:
    # Labels teach nothing here; this map leaves none of the corpora's out.
    reading = read_corpora(recipe.corpora, places.shared / "corpora", NAMED["nine"], complete=False)
    if tell is not None:
        for note in reading.notes():
            tell(note)
    utterances = sorted(reading.utterances, key=lambda u: str(u.path))
    return load_clips(utterances, places.cache, progress, processes=processes)


@dataclass(frozen=True, slots=True)
class _Hearing:
    """A bank as the student hears it, and its originals as the teacher does."""

    teacher: Whisper
    settings: CompactSettings
    bank: Bank
    augmenter: Augmenter
    clips: Clips
    seed: int

    def write(self, mel_path: Path, told_path: Path, progress: bool) -> Float32:
        """Write both arrays; the level of the teacher's bands, see `Lessons`."""
        shape, settings = self.bank.length.shape, self.settings
        steps = -(-_FRAMES // (_FRAMES_A_STEP * settings.stride))
        layers = (len(settings.layers), steps, settings.width)
        mel = create_array(mel_path, np.float16, (*shape, _FRAMES, settings.bands))
        told = create_array(told_path, np.float16, (*shape, *layers))
        student = WhisperMel(settings.mels, settings.bands)
        level, frames = torch.zeros(settings.mels, dtype=torch.float64), 0
        batches = list(self._batches())
        for copy, rows in tqdm(batches, "hearing", disable=None if progress else True):
            count = torch.from_numpy(self.bank.length[copy, rows])
            heard, clean = self._audio(copy, rows)
            with torch.inference_mode():
                features, valid = student(heard, count)
                with torch.autocast("cpu", torch.bfloat16):
                    said, _ = self.teacher(clean, count, settings.layers)
                if copy == 0:
                    level += self.teacher.log_mel(clean, count)[0].double().sum(dim=(0, 1))
                    frames += int(valid.sum())
            said = said[:, :, :: settings.stride]
            mel[copy, rows, : features.shape[1]] = features.half().numpy()
            told[copy, rows, :, : said.shape[2]] = said.half().numpy()
        mel.flush()
        told.flush()
        return np.asarray((level / frames).numpy(), np.float32)

    def _batches(self) -> Iterator[tuple[int, Int64]]:
        """A copy and utterances, in rising order; short ones together: padding is paid for."""
        copies, utterances = self.bank.length.shape
        for copy in range(copies):
            order = np.argsort(self.bank.length[copy], kind="stable")
            for first in range(0, utterances, _BATCH):
                yield copy, np.sort(order[first : first + _BATCH])

    def _audio(self, copy: int, rows: Int64) -> tuple[Tensor, Tensor]:
        """Some segments of a copy, and what they were made of: float32 [segments, samples]."""
        length = self.bank.length[copy, rows]
        longest = -(-int(length.max()) // _ROUND_SAMPLES) * _ROUND_SAMPLES
        heard = to_float(np.asarray(self.bank.audio[copy, rows, :longest]))
        if copy < self.augmenter.settings.clean_copies:
            return torch.from_numpy(heard), torch.from_numpy(heard)
        clean = np.zeros_like(heard)
        for place, (index, count) in enumerate(zip(rows.tolist(), length, strict=True)):
            samples, _ = original(self.augmenter, self.clips, self.seed, copy, index)
            clean[place, :count] = samples[:count]
        return torch.from_numpy(heard), torch.from_numpy(clean)


def _digest(teacher: Whisper) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(teacher.state_dict().items()):
        digest.update(name.encode())
        array: npt.NDArray[np.generic] = values.contiguous().numpy()
        digest.update(array.tobytes())
    return digest.hexdigest()
