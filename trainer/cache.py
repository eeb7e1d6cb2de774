"""Arrays on disk that are never half written and never read when damaged."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.errors import TrainerError


def save_atomically(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """Write an uncompressed .npz so that a reader never sees half of it.

    Raises
    ------
    TrainerError
        the folder cannot be written, or the disk is full.
    """
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # numpy's stub takes only arrays of Any behind **.
        np.savez(part, **arrays)  # type: ignore[arg-type]
        part.replace(path)
    except OSError as error:
        raise TrainerError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        # Nothing is left to remove unless something failed, or somebody interrupted.
        with contextlib.suppress(OSError):
            part.unlink()


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz; the archive's checksums are verified.

    Raises
    ------
    FileNotFoundError
        there is none.
    TrainerError
        it is damaged, or cannot be read.
    """
    try:
        # numpy leaves a file open that it opened itself and could not make sense of.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainerError(f"{path} is damaged: {error}") from None
