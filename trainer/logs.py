"""What a run writes while it goes: `log.csv`, and events for TensorBoard."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Line = dict[str, float]

LOG = "log.csv"


class Logs:
    """The logs of one run. A resumed run replaces the lines of epochs that it repeats."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._first = epoch + 1

    def add(self, line: Line) -> None:
        """One epoch's line; its `epoch` counts from 1.

        Raises
        ------
        TrainerError
            the folder cannot be written.
        """
        try:
            _append(self._folder / LOG, line)
            self._events(line)
        except OSError as error:
            raise TrainerError(
                f"{self._folder / LOG} cannot be written: {error.strerror}."
            ) from None

    def _events(self, line: Line) -> None:
        # Its import takes a second, which the command line should not pay.
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=self._first)
        for name, value in line.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(line["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Write out what is still held back, as far as there is room."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


def read_log(path: Path) -> list[dict[str, str]]:
    """Lines of a log, by column; none where there is no log."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, line: Line) -> None:
    rows = [r for r in read_log(path) if int(r["epoch"]) < line["epoch"]]
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(line), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({k: int(v) if k == "epoch" else f"{v:.6g}" for k, v in line.items()})
    part.replace(path)
