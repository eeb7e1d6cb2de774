"""Predictions without a model, and experiments made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.predictions import CONDITIONS, Condition, Predictions, save_predictions
from trainer.splits import Part

LABELS = ("neutral", "calm", "happy", "sad")


def said_of(
    speakers: Sequence[str],
    corpus: str = "ravdess",
    truths: Sequence[int] = (0, 1, 2, 3),
    each: int = 5,
    part: Part = "test",
    condition: Condition = "clean",
    certainty: float = 2.0,
    seed: int = 0,
) -> Predictions:
    """`each` utterances of each label by each speaker, of one or two segments.

    The same utterances come out for the same arguments whatever the seed, which makes the logits.
    """
    names = [(s, t, i) for s in speakers for t in truths for i in range(each)]
    count = len(names)
    owner = np.repeat(np.arange(count), 1 + np.arange(count) % 2)
    truth = np.asarray([t for _, t, _ in names], np.int64)
    rng = np.random.default_rng([seed, len(condition)])
    logits = rng.standard_normal((len(owner), len(LABELS))) + certainty * np.eye(4)[truth[owner]]
    return Predictions(
        part=part,
        condition=condition,
        labels=LABELS,
        path=np.asarray([f"/data/{corpus}/{s}-{t}-{i}.wav" for s, t, i in names]),
        corpus=np.full(count, corpus),
        speaker=np.asarray([s for s, _, _ in names]),
        sex=np.asarray(["female" if int(s) % 2 else "male" for s, _, _ in names]),
        language=np.full(count, "en" if corpus == "ravdess" else "de"),
        intensity=np.asarray(["strong" if i % 2 else "normal" for _, _, i in names]),
        truth=truth,
        owner=owner,
        length=16_000 + 1_000 * (np.arange(len(owner)) % 7),
        logits=logits.astype(np.float32),
        embedding=np.zeros((count, 2), np.float32),
    )


def fold_of(
    test: Sequence[str],
    validation: Sequence[str] = (),
    certainty: float = 2.0,
    seed: int = 0,
    **options: Any,
) -> list[Predictions]:
    """A fold's predictions under every condition; the telephone costs some certainty."""
    cost: dict[Condition, float] = {
        "clean": 0.0,
        "telephone-mulaw-8k": 0.5,
        "whole-file": 0.2,
    }
    found = []
    parts: list[tuple[Part, Sequence[str]]] = [("test", test), ("validation", validation)]
    for part, speakers in parts:
        if speakers:
            first = said_of(speakers, part=part, seed=seed, **options)
            found += [
                replace(
                    first,
                    condition=condition,
                    logits=said_of(
                        speakers,
                        part=part,
                        condition=condition,
                        certainty=certainty - cost[condition],
                        seed=seed,
                        **options,
                    ).logits,
                )
                for condition in CONDITIONS
            ]
    return found


def write_experiment(
    folder: Path,
    protocols: Sequence[dict[str, Any]],
    folds: dict[tuple[str, str, str], list[Predictions] | str],
) -> Path:
    """An experiment's folder; a fold that is a string failed for that reason."""
    runs = []
    for (protocol, model, fold), predictions in folds.items():
        place = f"{protocol}/{model}/{fold}"
        (folder / place).mkdir(parents=True)
        failed = isinstance(predictions, str)
        if not isinstance(predictions, str):
            save_predictions(folder / place / "predictions.npz", predictions)
        runs.append(
            {
                "protocol": protocol,
                "model": model,
                "fold": fold,
                "folder": place,
                "state": "failed" if failed else "done",
                "reason": predictions if failed else None,
            }
        )
    content = {"recipe": {"name": folder.name, "protocols": list(protocols)}, "runs": runs}
    (folder / "experiment.json").write_text(json.dumps(content), "utf-8")
    return folder
