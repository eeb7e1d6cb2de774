"""What is wrong with a corpus: files that are missing, faulty or there twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile as sf
from tqdm import tqdm

from trainer.audio import SAMPLE_RATE_HZ, Int16, decode
from trainer.corpora import REGISTRY, Corpus, Scan, Utterance
from trainer.corpora.folder import scan_folder
from trainer.corpora.settings import CorpusSettings
from trainer.errors import TrainerError

Kind = Literal["unreadable", "empty", "silent", "clipped", "short", "duplicate", "sample-rate"]

# RMS in int16 units: about -72 dBFS, under any recording of speech.
_SILENCE_RMS = 8.0
_FULL_SCALE = 32_600
_CLIPPED_SHARE = 0.01
_SHORTEST_SAMPLES = SAMPLE_RATE_HZ // 4
_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Fault:
    """One file, and what is wrong with it."""

    path: Path
    kind: Kind
    detail: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Utterances of one speaker that the whole corpus has and the folder has not."""

    speaker: str
    count: int
    total: int
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.count == self.total:
            return f"speaker {self.speaker}: all {self.total}"
        some = ", ".join(self.names[:5]) + (", …" if len(self.names) > 5 else "")
        return f"speaker {self.speaker}: {self.count} of {self.total}" + (some and f": {some}")


@dataclass(slots=True)
class Findings:
    """A corpus's totals, its faulty files, and what is not there or not used.

    Attributes
    ----------
    complete
        utterances of the whole corpus, None where that is not known.
    missing
        by speaker, where it is known what each of them said.
    absent_speakers
        speakers of whom nothing is there, where nothing more is known of them.
    ignored
        files that the loader left out, and why.
    """

    corpus: str
    folder: Path
    utterances: int
    seconds: float = 0.0
    speakers: tuple[str, ...] = ()
    speakers_known: bool = True
    labels: Counter[str] = field(default_factory=Counter)
    sample_rates_hz: Counter[int] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    complete: int | None = None
    missing: list[Missing] = field(default_factory=list)
    absent_speakers: tuple[str, ...] = ()
    ignored: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """No file is faulty; some may be missing, or of an odd sample rate."""
        return all(fault.kind == "sample-rate" for fault in self.faults)

    def as_json(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        return {
            "corpus": self.corpus,
            "folder": str(self.folder),
            "utterances": self.utterances,
            "complete": self.complete,
            "seconds": round(self.seconds, 3),
            "speakers": list(self.speakers) if self.speakers_known else None,
            "labels": dict(sorted(self.labels.items())),
            "sample_rates_hz": {str(k): n for k, n in sorted(self.sample_rates_hz.items())},
            "sound": self.sound,
            "faults": [
                {"path": str(f.path), "kind": f.kind, "detail": f.detail} for f in self.faults
            ],
            "missing": [
                {"speaker": m.speaker, "count": m.count, "of": m.total, "names": list(m.names)}
                for m in self.missing
            ],
            "absent_speakers": list(self.absent_speakers),
            "ignored": [{"path": str(path), "reason": reason} for path, reason in self.ignored],
        }


def fault_of(samples: Int16) -> tuple[Kind, str] | None:
    """What is wrong with a recording, or None: int16 [samples] at 16 kHz."""
    if not len(samples):
        return "empty", "no samples"
    if not samples.any():
        return "silent", "all samples are zero"
    if len(samples) < _SHORTEST_SAMPLES:
        return "short", f"only {len(samples) / SAMPLE_RATE_HZ:.2f} s long"
    values = samples.astype(np.float64)
    rms = float(np.sqrt(np.mean(values**2)))
    if rms < _SILENCE_RMS:
        return "silent", f"its level is {20 * np.log10(rms / 32768):.0f} dBFS"
    clipped = float(np.mean(np.abs(values) >= _FULL_SCALE))
    if clipped > _CLIPPED_SHARE:
        return "clipped", f"{clipped:.1%} of its samples are at full scale"
    return None


def missing_of(corpus: Corpus, folder: Path, scan: Scan, findings: Findings) -> None:
    """Put into `findings` what the whole corpus has and `scan` has not."""
    inventory = corpus.inventory(folder, scan.utterances)
    findings.complete = inventory.total
    there: dict[str, set[str]] = {}
    for utterance in scan.utterances:
        there.setdefault(utterance.speaker, set()).add(corpus.key(utterance))
    absent = []
    for speaker, whole in inventory.speakers.items():
        found = there.get(speaker, set())
        if isinstance(whole, frozenset):
            names = tuple(sorted(whole - found))
            if names:
                findings.missing.append(Missing(speaker, len(names), len(whole), names))
        elif whole is not None:
            if len(found) < whole:
                findings.missing.append(Missing(speaker, whole - len(found), whole))
        elif not found:
            absent.append(speaker)
    findings.absent_speakers = tuple(absent)


def _examine(findings: Findings, utterances: Sequence[Utterance]) -> None:
    first_with: dict[bytes, Utterance] = {}
    rates: dict[Path, int] = {}
    for utterance in tqdm(utterances, f"checking {findings.corpus}", disable=None):
        path = utterance.path
        try:
            with path.open("rb") as file:
                head = file.read(len(_LFS))
            if not head:
                findings.faults.append(Fault(path, "empty", "the file has no bytes"))
                continue
            if head == _LFS:
                detail = "a git-lfs pointer, not the file: git lfs pull fetches it"
                findings.faults.append(Fault(path, "unreadable", detail))
                continue
            samples = decode(path)
            rates[path] = sf.info(path).samplerate
        except (TrainerError, OSError, sf.SoundFileError) as error:
            reason = str(error).removeprefix(f"{path} ")
            findings.faults.append(Fault(path, "unreadable", reason))
            continue
        findings.seconds += len(samples) / SAMPLE_RATE_HZ
        fault = fault_of(samples)
        if fault is not None:
            findings.faults.append(Fault(path, *fault))
        if fault is not None and fault[0] in ("empty", "silent"):
            continue
        digest = hashlib.sha256(samples.tobytes()).digest()
        other = first_with.setdefault(digest, utterance)
        if other is not utterance:
            detail = f"the same recording as {other.path}"
            if other.label != utterance.label:
                detail += f", which is labelled {other.label} and this {utterance.label}"
            if other.speaker != utterance.speaker and utterance.speaker_known:
                detail += f", which {other.speaker} speaks and this {utterance.speaker}"
            findings.faults.append(Fault(path, "duplicate", detail))
    findings.sample_rates_hz = Counter(rates.values())
    if rates:
        usual = findings.sample_rates_hz.most_common(1)[0][0]
        for path, rate in rates.items():
            if rate != usual:
                detail = f"sampled at {rate} Hz, where most of the corpus is at {usual} Hz"
                findings.faults.append(Fault(path, "sample-rate", detail))
        if usual < SAMPLE_RATE_HZ:
            detail = f"sampled at {usual} Hz, as most files here: nothing above {usual // 2} Hz"
            findings.faults.append(Fault(findings.folder, "sample-rate", detail))


def identify(folder: Path) -> Corpus | None:
    """The corpus that a folder holds: by its own name, otherwise by its files' names."""
    named = REGISTRY.get(folder.resolve().name.lower())
    if named is not None:
        return named
    counts = {name: len(corpus.scan(folder).utterances) for name, corpus in REGISTRY.items()}
    best = max(counts, key=lambda name: counts[name])
    return REGISTRY[best] if counts[best] else None


def check_folder(
    folder: Path, corpus: Corpus | None = None, settings: CorpusSettings | None = None
) -> Findings:
    """Decode every file of a folder that its loader takes, going on after each fault.

    Parameters
    ----------
    folder
        holds one corpus.
    corpus
        which one; None: a folder of the user's own.
    settings
        how a folder of the user's own is read; default: a directory for each label.

    Raises
    ------
    TrainerError
        the folder holds no file that the loader takes, or a table is not as it should be.
    """
    if corpus is not None:
        scan = corpus.scan(folder)
        name, wanted = corpus.name, f"audio file named as {corpus.title} names them"
    else:
        name, wanted = folder.resolve().name, "recording with a label"
        scan = scan_folder(name, folder, settings or CorpusSettings(loader="folder"))
    if not scan.utterances:
        why = f" ({scan.ignored[0].path}: {scan.ignored[0].reason})" if scan.ignored else ""
        raise TrainerError(f"{folder} holds no {wanted}{why}.")
    findings = Findings(
        corpus=name,
        folder=folder,
        utterances=len(scan.utterances),
        speakers=tuple(sorted({u.speaker for u in scan.utterances})),
        speakers_known=all(u.speaker_known for u in scan.utterances),
        labels=Counter(u.label for u in scan.utterances),
        ignored=[(i.path, i.reason) for i in scan.ignored],
    )
    if corpus is not None:
        missing_of(corpus, folder, scan, findings)
    _examine(findings, scan.utterances)
    return findings
