"""What both kinds of page show of recordings: an example of each emotion, and descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.errors import TrainerError
from trainer.pages.markup import Block, Figures, Notice, Text
from trainer.plots.descriptors import measure
from trainer.plots.distributions import distribution_charts, profile_chart
from trainer.plots.recordings import Recording, choose_examples, read_speech, sample_evenly
from trainer.plots.sound import sound_charts

PER_LABEL = 40


def example_blocks(recordings: Sequence[Recording], labels: Sequence[str]) -> list[Block]:
    """Waveform and spectrogram of a recording of each label, or why there are none."""
    there = [r for r in recordings if r.path.is_file()]
    if not there:
        return [Notice(_absent(recordings))]
    found, faults = [], []
    for recording in choose_examples(there, labels):
        try:
            found.append((recording, read_speech(recording.path)))
        except TrainerError as error:
            faults.append(str(error))
    blocks: list[Block] = [
        Text(
            "One recording of each label, cut to its speech; one speaker for all as far as there "
            "is one. The waveform fills its frame; time and decibels are the same in all."
        ),
        Figures(sound_charts(found, labels)),
    ]
    heard = {r.label for r in there}
    silent = [label for label in labels if label not in heard]
    if silent:
        blocks.append(Notice(f"No recording here is labelled {', '.join(silent)}."))
    blocks.extend(Notice(fault) for fault in faults)
    return blocks


def feature_blocks(
    recordings: Sequence[Recording],
    labels: Sequence[str],
    cache: Path | None,
    progress: bool = False,
) -> list[Block]:
    """Distributions of descriptors by label, or why there are none."""
    chosen = sample_evenly([r for r in recordings if r.path.is_file()], PER_LABEL)
    if not chosen:
        return [Notice(_absent(recordings))]
    measured = measure(chosen, cache, progress)
    if not measured.recordings:
        return [Notice("Not one of the recordings can be read.")]
    speakers = len({r.speaker_id for r in measured.recordings})
    profile = profile_chart(measured, labels)
    charts = distribution_charts(measured, labels)
    return [
        Text(
            f"{len(measured.recordings)} recordings, at most {PER_LABEL} of each label, spread "
            f"evenly over {speakers} speakers. Pitch by pYIN over voiced frames."
        ),
        Figures([*([profile] if profile is not None else []), *charts]),
    ]


def _absent(recordings: Sequence[Recording]) -> str:
    if not recordings:
        return "No recordings are known, so there is nothing to show."
    return (
        f"The recordings are not on this machine (the first would be {recordings[0].path}): "
        "draw the page where they are."
    )
