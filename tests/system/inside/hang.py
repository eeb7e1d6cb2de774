"""``serd run`` whose speech stage never returns once a file is there; arguments as of ``serd``."""

import os
import threading
from pathlib import Path

from serd.cli import main
from serd.pulse import StagePulse
from serd.runtime.stage import SpeechStage

HANG = Path(os.environ["RUNTIME_DIRECTORY"]) / "hang"

work = SpeechStage.work


def work_or_hang(stage: SpeechStage, pulse: StagePulse | None = None) -> int:
    if HANG.exists():
        threading.Event().wait()
    return work(stage, pulse)


SpeechStage.work = work_or_hang  # type: ignore[assignment,method-assign]
main()
