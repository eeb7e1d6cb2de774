"""Sounds without speech laid into the pauses of mixtures at training time.

Done on the log mel bands, where powers add: every epoch a voice meets other sounds, and what is
loud is no longer mostly speech.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.vad.bank import Bank
from trainer.vad.settings import TrainSettings

_PAUSE = 0.02


class Filling:
    """The sounds drawn for one batch.

    Parameters
    ----------
    rows
        int64 [batch], mixtures of the bank.

    A share `settings.fill` of the rows gets a sound: a mixture of the bank at the same rate that
    has no speech, at a level drawn from `settings.fill_db` over the row's own.
    """

    def __init__(
        self,
        bank: Bank,
        rows: npt.NDArray[np.int64],
        settings: TrainSettings,
        rng: np.random.Generator,
    ) -> None:
        self._bank = bank
        chosen = rng.random(len(rows)) < settings.fill
        sound = np.zeros(len(rows), np.int64)
        for wide in (False, True):
            of_rate = bank.wide[rows] == wide
            there = np.flatnonzero(bank.alone & (bank.wide == wide))
            if len(there):
                sound[of_rate] = rng.choice(there, int(of_rate.sum()))
            else:
                chosen[of_rate] = False
        self._places = np.flatnonzero(chosen)
        self._sounds = sound[self._places]
        over_db = rng.uniform(*settings.fill_db, len(self._places))
        level = bank.level[rows[self._places]] - bank.level[self._sounds]
        self._shift = (level + over_db * math.log(10) / 10).astype(np.float32)

    def lay_into(self, features: Tensor, label: npt.NDArray[np.floating], at: int) -> None:
        """Add the sounds' frames from `at` on to `features` (float32 [batch, frames, features])
        in place, where `label` ([batch, frames]) says that nobody speaks.
        """
        if not len(self._places):
            return
        frames = features.shape[1]
        sound = torch.from_numpy(self._bank.features[self._sounds, at : at + frames]).float()
        sound += torch.from_numpy(self._shift)[:, None, None]
        pause = torch.from_numpy(label[self._places] < _PAUSE)[:, :, None]
        places = torch.from_numpy(self._places)
        own = features[places]
        features[places] = torch.where(pause, torch.logaddexp(own, sound), own)
