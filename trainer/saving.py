"""Torch's files, written whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from trainer.errors import TrainerError


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises
    ------
    TrainerError
        the folder cannot be written, or the disk is full; what was there stays as it is.
    """
    part = path.with_suffix(".part")
    try:
        torch.save(state, part)
        part.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise TrainerError(
            f"{path} cannot be written: {str(error).splitlines()[0]}. "
            "Is the disk full? Checkpoints already there are as they were."
        ) from None
