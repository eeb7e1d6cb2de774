"""From the predictions of an experiment's folds to its report; no model runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainer.errors import TrainerError
from trainer.predictions import CONDITIONS, Condition, Predictions, load_predictions
from trainer.protocol_settings import HeldOut, ProtocolSettings, describe, is_speaker_dependent
from trainer.report import Entry, ExperimentReport, FoldMean, Loss, Row, Unfinished
from trainer.reporting.calibration import calibrate_folds, calibration_figures
from trainer.reporting.rows import (
    GROUPS,
    Scored,
    fold_mean,
    losses_of,
    own_labels,
    rows_of,
    score,
)
from trainer.splits import Part

_PROTOCOL: TypeAdapter[ProtocolSettings] = TypeAdapter(ProtocolSettings)


@dataclass(frozen=True, slots=True)
class FoldRun:
    """One fold of one protocol and model, as `experiment.json` lists it."""

    protocol: ProtocolSettings
    model: str
    fold: str
    folder: Path
    state: str
    reason: str

    @property
    def predictions(self) -> Path:
        """Its file of predictions."""
        return self.folder / "predictions.npz"


def read_experiment(folder: Path) -> list[FoldRun]:
    """The runs of an experiment, in the order of `experiment.json`.

    Those of a protocol that its recipe names no more are left out: nothing says what they are.

    Raises
    ------
    TrainerError
        the folder is not that of an experiment.
    """
    path = folder / "experiment.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        listed = content["recipe"].get("protocols") or [HeldOut().model_dump()]
        protocols = [_PROTOCOL.validate_python(values) for values in listed]
        by_name = {settings.name: settings for settings in protocols}
        return [
            FoldRun(
                protocol=by_name[run["protocol"]],
                model=str(run["model"]),
                fold=str(run["fold"]),
                folder=folder / run["folder"],
                state=str(run["state"]),
                reason=str(run.get("reason") or ""),
            )
            for run in content["runs"]
            if run["protocol"] in by_name
        ]
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist: is this the folder of an experiment?") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise TrainerError(f"{path} is not an experiment of this trainer: {error}") from None


def build_report(folder: Path) -> ExperimentReport:
    """The report of an experiment's folder; folds without predictions are listed as unfinished.

    Raises
    ------
    TrainerError
        the folder is not that of an experiment, or a file of predictions is damaged.
    """
    folds: dict[tuple[str, str], dict[str, list[Predictions]]] = {}
    settings: dict[str, ProtocolSettings] = {}
    unfinished = []
    for run in read_experiment(folder):
        settings[run.protocol.name] = run.protocol
        there = folds.setdefault((run.protocol.name, run.model), {})
        if run.state == "done" and run.predictions.is_file():
            there[run.fold] = load_predictions(run.predictions)
        elif run.state != "done" or run.protocol.kind != "all":
            unfinished.append(
                Unfinished(
                    protocol=run.protocol.name,
                    model=run.model,
                    fold=run.fold,
                    reason=run.reason or _why_not(run),
                )
            )
    return ExperimentReport(
        name=folder.resolve().name,
        entries=[
            entry_of(settings[protocol], model, predictions)
            for (protocol, model), predictions in folds.items()
            if any(predictions.values())
        ],
        unfinished=unfinished,
    )


def _why_not(run: FoldRun) -> str:
    return f"{run.predictions} is missing" if run.state == "done" else f"it is {run.state}"


def entry_of(
    settings: ProtocolSettings, model: str, folds: Mapping[str, Sequence[Predictions]]
) -> Entry:
    """The figures of one protocol and model, from the predictions of its folds by name."""
    fitted = calibrate_folds(folds)
    temperature = {one.fold: one.temperature for one in fitted}
    everything = [one for predictions in folds.values() for one in predictions]
    own = own_labels(everything)
    rows: list[Row] = []
    losses: list[Loss] = []
    means: list[FoldMean] = []
    for competing in (None, own) if not all(there.all() for there in own.values()) else (None,):
        tested: dict[Condition, Scored] = {}
        for condition in CONDITIONS:
            for part in ("test", "validation"):
                chosen = _chosen(folds, temperature, part, condition)
                if not chosen:
                    continue
                scored = score(chosen, competing)
                found = rows_of(scored, GROUPS if part == "test" else ("corpus",))
                rows += found
                if part == "test":
                    tested[condition] = scored
                    mean = fold_mean([row for row in found if row.group == "fold"])
                    means += [mean] if mean is not None else []
        if {"clean", "telephone-mulaw-8k"} <= set(tested):
            losses += losses_of(tested["clean"], tested["telephone-mulaw-8k"])
    return Entry(
        protocol=settings.name,
        description=describe(settings),
        speaker_dependent=is_speaker_dependent(settings),
        model=model,
        labels=everything[0].labels,
        folds=list(folds),
        rows=rows,
        losses=losses,
        fold_means=means,
        calibration=calibration_figures(folds, fitted),
    )


def _chosen(
    folds: Mapping[str, Sequence[Predictions]],
    temperature: Mapping[str, float],
    part: Part,
    condition: Condition,
) -> list[tuple[str, float, Predictions]]:
    return [
        (name, temperature[name], one)
        for name, predictions in folds.items()
        for one in predictions
        if one.part == part and one.condition == condition and len(one)
    ]
