"""Label maps: from the canonical labels of the corpora to a model's classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.corpora.base import LABELS, Utterance
from trainer.errors import TrainerError

EIGHT: tuple[str, ...] = LABELS[:8]
DEFAULT = "eight"


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Which labels make which class.

    Attributes
    ----------
    name
        a named map's name, or "custom".
    labels
        the classes, in the order of the model's logits.
    members
        the corpora's labels that make each class, in the order of `labels`. A label in no
        class is left out of training and of every figure.
    """

    name: str
    labels: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    def class_of(self, label: str) -> str | None:
        """The class of a corpus's label, or None where the map leaves it out."""
        for name, members in zip(self.labels, self.members, strict=True):
            if label in members:
                return name
        return None

    def index(self, name: str) -> int:
        """Position of a class among the logits.

        Raises
        ------
        TrainerError
            the map has no such class.
        """
        if name not in self.labels:
            raise TrainerError(f"Label map {self.name} has no class {name!r}.")
        return self.labels.index(name)

    def apply(self, utterances: Iterable[Utterance], *, complete: bool = True) -> list[Utterance]:
        """Utterances with classes for labels, in their order; those of no class left out.

        `complete` asks for at least one utterance of each class, as training does; a model may
        be measured on corpora that lack some.

        Raises
        ------
        TrainerError
            a class has no utterance, or the map names a label that is neither canonical nor
            in the data.
        """
        given = list(utterances)
        heard = {u.label for u in given}
        for name, members in zip(self.labels, self.members, strict=True):
            for label in members:
                if label not in heard and label not in LABELS:
                    raise TrainerError(
                        f"labels.{name}: {label!r} is neither one of {', '.join(LABELS)} nor "
                        f"a label of these corpora, which have {', '.join(sorted(heard))}."
                    )
        classes = {label: self.class_of(label) for label in heard}
        kept = [replace(u, label=c) for u in given if (c := classes[u.label]) is not None]
        counts = Counter(u.label for u in kept)
        for name, members in zip(self.labels, self.members, strict=True):
            if complete and not counts[name]:
                corpora = ", ".join(sorted({u.corpus for u in given})) or "no corpus"
                raise TrainerError(
                    f"Label map {self.name}: class {name!r} ({', '.join(members)}) has no "
                    f"utterance in {corpora}. Choose another map, or leave the class out."
                )
        return kept


def _map(name: str, **classes: str) -> LabelMap:
    members = tuple(tuple(labels.split()) for labels in classes.values())
    return LabelMap(name, tuple(classes), members)


_FIVE = {
    "neutral": "neutral calm",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fearful": "fearful",
}

NAMED: dict[str, LabelMap] = {
    entry.name: entry
    for entry in (
        # Valence as Schuller et al. divide it in "Cross-corpus acoustic emotion recognition:
        # variances and strategies" (2010): boredom is negative, surprise positive.
        _map(
            "three",
            negative="sad angry fearful disgust bored",
            neutral="neutral calm",
            positive="happy surprised",
        ),
        _map("angry-happy-sad", angry="angry", happy="happy", sad="sad"),
        _map("five", **_FIVE),
        # CREMA-D's six.
        _map("six", **_FIVE, disgust="disgust"),
        _map("seven", **_FIVE, disgust="disgust", surprised="surprised"),
        _map("eight", **{label: label for label in EIGHT}),
        _map("nine", **{label: label for label in LABELS}),
        # EMO-DB's own seven.
        _map(
            "emodb-seven",
            **{label: label for label in LABELS if label not in {"calm", "surprised"}},
        ),
    )
}


def parse_labels(value: str | Mapping[str, str | Sequence[str]] = DEFAULT) -> LabelMap:
    """The map that a recipe's `labels` asks for: a name, or a table of classes.

    ```toml
    labels = "seven"
    labels = {excited = ["angry", "happy", "surprised"], quiet = ["sad", "neutral", "calm"]}
    ```

    Raises
    ------
    TrainerError
        there is no such map, fewer than two classes, a class without a label, or a label in two.
    """
    if isinstance(value, str):
        if value not in NAMED:
            raise TrainerError(
                f"labels: there is no map {value!r}; there are {', '.join(NAMED)}, "
                "or a table of your own."
            )
        return NAMED[value]
    members = {
        name: (labels,) if isinstance(labels, str) else tuple(labels)
        for name, labels in value.items()
    }
    if len(members) < 2:
        raise TrainerError("labels: a map needs two classes at least.")
    class_of: dict[str, str] = {}
    for name, labels in members.items():
        if not labels:
            raise TrainerError(f"labels.{name}: the class takes no label.")
        for label in labels:
            if class_of.setdefault(label, name) != name:
                raise TrainerError(f"labels: {label!r} is in both {class_of[label]} and {name}.")
    return LabelMap("custom", tuple(members), tuple(members.values()))
