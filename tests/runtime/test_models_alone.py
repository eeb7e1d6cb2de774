"""Models between the process that tries them and the pipeline that takes them, which is a fake."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from serd.clock import SystemClock
from serd.config.loading import load
from serd.errors import ModelError
from serd.inference.model import EmotionModel
from serd.inference.worker import InferenceWorker, WorkerOptions
from serd.runtime.models import Models
from serd.runtime.pipeline import Pipeline, wanted
from serd.runtime.proving import REHEARSAL
from tests.fakes import wait_until
from tests.inference import broken

# Says of whatever it is given that it will do.
CREDULOUS = """
import json, sys
from serd.inference.candidate import digest
from serd.inference.manifest import load_emotion_manifest
found = digest(load_emotion_manifest(json.loads(sys.argv[1])["manifest"]))
print(json.dumps({"ok": True, "digest": found}))
"""


class FakePipeline:
    """Takes models. While `hold` is set, making a model's twins lasts until `release`."""

    def __init__(self, model: EmotionModel) -> None:
        self.model = model
        self.listener: Any = None
        self.hold = False
        self.release = threading.Event()
        self.held = 0
        self.worker = InferenceWorker(
            [model], WorkerOptions(1, 1, 0.0), lambda _: None, lambda *_: None, SystemClock()
        )

    def one_a_worker(self, model: EmotionModel) -> list[EmotionModel]:
        if self.hold:
            self.held += 1
            assert self.release.wait(120)
        return [model]

    def use_model(self, models: list[EmotionModel]) -> None:
        self.model = models[0]


class Stage:
    """Models with a fake pipeline, and the manifest of another model."""

    def __init__(self, folder: Path, rehearsal: tuple[str, ...], load_timeout_s: float) -> None:
        first = broken.sound(folder, "first")
        self.folder = folder
        self.second = broken.sound(folder, "second")
        config = load(
            None,
            [
                f"inference.model={first}",
                f"inference.load_timeout_s={load_timeout_s}",
                "inference.device=cpu",
                "segment.window_s=0.5",
                "segment.hop_s=0.25",
            ],
        )
        self.pipeline = FakePipeline(wanted(config, first).open())
        self.models = Models(
            config,
            cast("Pipeline", self.pipeline),
            lambda _: None,
            SystemClock(),
            lambda: False,
            rehearsal,
        )

    def refusal(self, manifest: Path) -> ModelError:
        with pytest.raises(ModelError) as refused:
            self.models.use(str(manifest))
        assert self.pipeline.model.manifest.name == "first"
        return refused.value

    def close(self) -> None:
        self.pipeline.release.set()
        wait_until(
            lambda: not [t for t in threading.enumerate() if t.name == "serd-model"],
            "the threads that opened models",
        )
        self.models.stop()


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, (sys.executable, "-c", CREDULOUS), 3.0)
    yield made
    made.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, REHEARSAL, 3600.0)
    yield made
    made.close()


def test_a_model_that_was_tried_is_taken(stage: Stage) -> None:
    assert stage.models.use(str(stage.second)).startswith("second-")
    assert stage.pipeline.model.manifest.name == "second"
    assert stage.models.counts()["inference.swaps"] == 1


def test_a_model_that_hangs_in_the_daemon_alone_is_left_behind(impatient: Stage) -> None:
    impatient.pipeline.hold = True
    for left_behind in range(1, 4):
        assert impatient.refusal(impatient.second).code == "model_timeout"
        assert impatient.models.counts()["inference.model_loads_abandoned"] == left_behind
    impatient.pipeline.hold = False
    assert impatient.refusal(impatient.second).code == "model_busy"
    impatient.pipeline.release.set()
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name == "serd-model"], "the threads"
    )
    assert impatient.models.use(str(impatient.second)).startswith("second-")


def test_what_only_the_daemon_finds_wrong_is_told(impatient: Stage) -> None:
    wrong = broken.nothing_finite(impatient.folder, "broken")
    assert impatient.refusal(wrong).code == "model_not_finite"


def test_another_model_than_was_tried_is_not_taken(tmp_path: Path) -> None:
    said = json.dumps({"ok": True, "digest": "of another"})
    stage = Stage(tmp_path, (sys.executable, "-c", f"print({said!r})"), 3600.0)
    assert stage.refusal(stage.second).code == "model_changed"
    stage.close()


def test_giving_up_ends_the_opening_in_the_daemon(stage: Stage) -> None:
    stage.pipeline.hold = True
    codes: list[str] = []
    asking = threading.Thread(target=lambda: codes.append(stage.refusal(stage.second).code))
    asking.start()
    wait_until(lambda: stage.pipeline.held, "the second opening")
    # One at a time, and nobody waits for it.
    assert stage.refusal(stage.second).code == "model_busy"
    stage.models.give_up()
    asking.join(60)
    assert codes == ["model_stopping"]


def test_after_the_end_no_model_is_taken(stage: Stage) -> None:
    stage.models.stop()
    stage.models.stop()
    with capture_logs() as logs:
        assert stage.refusal(stage.second).code in ("model_busy", "model_stopping")
    assert [entry["event"] for entry in logs] == ["model.refused"]


def test_stop_ends_what_is_under_way(stage: Stage) -> None:
    stuck = "import time\ntime.sleep(3600)"
    stage.models._rehearsal = (sys.executable, "-c", stuck)
    codes: list[str] = []
    asking = threading.Thread(target=lambda: codes.append(stage.refusal(stage.second).code))
    asking.start()
    wait_until(stage.models._changing.locked, "the model to be tried")
    stage.models.stop()
    asking.join(60)
    assert codes == ["model_stopping"]
