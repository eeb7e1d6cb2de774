"""Settings of the protocols: who trains, who chooses the epoch, and who is tested.

Every kind but "random" keeps speakers apart. "random" is the split of most published notebooks;
its figures measure how well a model knows voices that it has trained on, and are named
*speaker-dependent* wherever they are shown.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.splits import SpeakerSplit

# A folder's name in the experiment's tree.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
Share = Annotated[float, Field(ge=0, lt=1)]
Validation = Literal["next", "none"]


class _Protocol(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    corpora: tuple[str, ...] = Field((), description="the recipe's corpora it uses; none: all")


class HeldOut(_Protocol):
    """One split by speakers named for each corpus, here or under the recipe's `corpora`."""

    kind: Literal["held-out"] = "held-out"
    name: Name = "held-out"
    speakers: dict[str, SpeakerSplit] = Field(
        {}, description="by corpus; none: those under the recipe's corpora"
    )


class KFold(_Protocol):
    """Folds of consecutive speakers within each corpus; each is tested once."""

    kind: Literal["k-fold"] = "k-fold"
    name: Name = "k-fold"
    folds: int = Field(5, ge=2)
    tested: tuple[str, ...] = Field(
        (), description="corpora that are tested, the others only train; none: all"
    )
    validation: Validation = Field(
        "next", description="the next fold's speakers choose the epoch, or nobody does"
    )

    @model_validator(mode="after")
    def _someone_trains(self) -> KFold:
        if self.folds < 3 and self.validation == "next":
            raise ValueError('folds = 2 leaves nobody to train on unless validation = "none"')
        return self


class LeaveOneSpeakerOut(_Protocol):
    """A fold for each speaker."""

    kind: Literal["leave-one-speaker-out"] = "leave-one-speaker-out"
    name: Name = "leave-one-speaker-out"
    tested: tuple[str, ...] = Field(
        (), description="corpora that are tested, the others only train; none: all"
    )
    validation: Validation = Field(
        "next", description="the next speaker of the corpus chooses the epoch, or nobody does"
    )


class CrossCorpus(_Protocol):
    """Train on some corpora and test on another, all of it.

    With `train`, one fold that tests all of `test`; without, a fold for each corpus of `test`
    (none named: for each corpus) on which all others train.
    """

    kind: Literal["cross-corpus"] = "cross-corpus"
    name: Name = "cross-corpus"
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    validation_share: Share = Field(
        0.2, description="of the speakers of each training corpus with three speakers or more"
    )

    @model_validator(mode="after")
    def _apart(self) -> CrossCorpus:
        both = sorted(set(self.train) & set(self.test))
        if both:
            raise ValueError(f"{', '.join(both)} is under both train and test")
        if self.train and not self.test:
            raise ValueError("train is named, test is not")
        return self


class Random(_Protocol):
    """Utterances at random, stratified by corpus and label: *speaker-dependent*."""

    kind: Literal["random"] = "random"
    name: Name = "random"
    test_share: float = Field(0.25, gt=0, lt=1)
    validation_share: Share = Field(0.1, description="of all utterances; 0: nobody validates")

    @model_validator(mode="after")
    def _someone_trains(self) -> Random:
        if self.test_share + self.validation_share >= 1:
            raise ValueError("test_share and validation_share leave nothing to train on")
        return self


class All(_Protocol):
    """Everybody trains, nobody is tested: for the model that is shipped."""

    kind: Literal["all"] = "all"
    name: Name = "all"


ProtocolSettings = Annotated[
    HeldOut | KFold | LeaveOneSpeakerOut | CrossCorpus | Random | All,
    Field(discriminator="kind"),
]


def is_speaker_dependent(settings: ProtocolSettings) -> bool:
    """Whether test speakers may have trained."""
    return settings.kind == "random"


def describe(settings: ProtocolSettings) -> str:
    """The protocol in words, for the head of a table."""
    match settings:
        case HeldOut():
            return "held-out speakers, speaker-independent"
        case KFold():
            return f"{settings.folds} folds by speaker, speaker-independent"
        case LeaveOneSpeakerOut():
            return "leave one speaker out, speaker-independent"
        case CrossCorpus():
            return "cross-corpus, speaker-independent"
        case Random():
            share = round(100 * settings.test_share)
            return f"random split {100 - share}:{share}, speaker-dependent"
        case All():
            return "all speakers train, none is tested"
