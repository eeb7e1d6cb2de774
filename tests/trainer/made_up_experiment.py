"""An experiment's folder with predictions out of thin air."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.predictions import CONDITIONS, Condition, Predictions, save_predictions
from trainer.report import save_report
from trainer.reporting.build import build_report
from trainer.splits import Part

HARDNESS: dict[Condition, float] = {"clean": 1.0, "telephone-mulaw-8k": 1.35, "whole-file": 1.1}


def made_up_predictions(
    part: Part,
    condition: Condition,
    labels: Sequence[str],
    paths: Sequence[str],
    truth: Sequence[int],
    speakers: Sequence[str],
    corpus: str,
    rng: np.random.Generator,
    size: int = 12,
) -> Predictions:
    """Two segments an utterance, right more often than not."""
    count, many = len(truth), len(labels)
    target = np.asarray(truth, np.int64)
    logits = rng.normal(0, HARDNESS[condition], size=(2 * count, many)).astype(np.float32)
    owner = np.repeat(np.arange(count), 2)
    logits[np.arange(2 * count), target[owner]] += 2.2
    centres = np.random.default_rng(1).normal(0, 1.6, size=(many, size))
    embedding = (centres[target] + rng.normal(size=(count, size))).astype(np.float32)
    return Predictions(
        part=part,
        condition=condition,
        labels=tuple(labels),
        path=np.asarray(paths, np.str_),
        corpus=np.full(count, corpus),
        speaker=np.asarray(speakers, np.str_),
        sex=np.asarray(["male" if ord(s[-1]) % 2 else "female" for s in speakers], np.str_),
        language=np.full(count, "en"),
        truth=target,
        owner=owner,
        length=np.full(2 * count, 32_000, np.int64),
        logits=logits,
        embedding=embedding,
    )


def make_up_experiment(
    folder: Path,
    labels: Sequence[str],
    recordings: Sequence[tuple[str, str, str]],
    recipe: str,
    corpus: str = "emodb",
    folds: int = 2,
    models: Sequence[str] = ("crnn",),
    kinds: Sequence[str] = ("k-fold", "random"),
    epochs: int = 6,
) -> Path:
    """Write the tree of an experiment: recordings are (path, label, speaker).

    The last fold of the last protocol and model has failed.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe, "utf-8")
    speakers = sorted({speaker for _, _, speaker in recordings})
    runs = []
    for kind in kinds:
        for model in models:
            for fold in range(folds):
                tested = set(speakers[fold::folds])
                chosen = [r for r in recordings if r[2] in tested]
                run = folder / kind / model / f"fold-{fold}"
                run.mkdir(parents=True)
                failed = (kind, model, fold) == (kinds[-1], models[-1], folds - 1) and folds > 1
                runs.append(
                    {
                        "protocol": kind,
                        "model": model,
                        "fold": run.name,
                        "folder": str(run.relative_to(folder)),
                        "state": "failed" if failed else "done",
                        "reason": "the loss diverged in epoch 3" if failed else "",
                    }
                )
                if failed:
                    continue
                save_predictions(
                    run / "predictions.npz",
                    [
                        made_up_predictions(
                            "test",
                            condition,
                            labels,
                            [path for path, _, _ in chosen],
                            [list(labels).index(label) for _, label, _ in chosen],
                            [speaker for _, _, speaker in chosen],
                            corpus,
                            rng,
                        )
                        for condition in CONDITIONS
                    ],
                )
                parts = {
                    "train": [s for s in speakers if s not in tested],
                    "validation": [],
                    "test": sorted(tested),
                }
                named = {part: [f"{corpus}/{s}" for s in names] for part, names in parts.items()}
                (run / "split.json").write_text(json.dumps({"speakers": named}), "utf-8")
                _write_log(run / "log.csv", epochs, rng)
    protocols = [{"kind": kind, "name": kind} for kind in kinds]
    (folder / "experiment.json").write_text(
        json.dumps({"recipe": {"protocols": protocols}, "runs": runs}), "utf-8"
    )
    save_report(build_report(folder), folder)
    return folder


def _write_log(path: Path, epochs: int, rng: np.random.Generator) -> None:
    lines = ["epoch,loss,accuracy,learning_rate,validation_loss,validation_uar,telephone_uar"]
    for epoch in range(1, epochs + 1):
        loss = 2 / epoch**0.5 + rng.normal(0, 0.03)
        score = 0.75 - 0.6 / epoch + rng.normal(0, 0.015)
        rate = 1e-3 * (1 - epoch / (epochs + 1))
        lines.append(
            f"{epoch},{loss:.5g},{score + 0.1:.4f},{rate:.5g},{loss + 0.2:.5g},"
            f"{score:.4f},{score - 0.03:.4f}"
        )
    path.write_text("\n".join(lines) + "\n", "utf-8")
