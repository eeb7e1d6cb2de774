"""The licence of weights, from the licences of the recordings that they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NON_COMMERCIAL = "CC-BY-NC-SA-4.0"
SHARE_ALIKE = "CC-BY-SA-4.0"
ATTRIBUTION = "CC-BY-4.0"
UNKNOWN = "as the recordings"


@dataclass(frozen=True, slots=True)
class Licence:
    """A manifest's `licence`, and a sentence that says why."""

    name: str
    reason: str


def licence_of(corpora: Mapping[str, str | None]) -> Licence:
    """The strictest terms of any corpus hold for the weights.

    Parameters
    ----------
    corpora
        each corpus's licence by its name; None for recordings whose licence nobody stated.
    """
    unknown = [name for name, licence in corpora.items() if licence is None]
    if unknown:
        return Licence(
            UNKNOWN,
            f"The recordings of {', '.join(unknown)} come without a stated licence: settle their "
            "terms before the weights are passed on.",
        )
    given = {name: (licence or "").lower() for name, licence in corpora.items()}
    bound = [name for name, text in given.items() if "-nc" in text or "research" in text]
    if bound:
        return Licence(
            NON_COMMERCIAL,
            f"The weights inherit the non-commercial terms of {', '.join(bound)}.",
        )
    alike = [name for name, text in given.items() if "-sa" in text or "odbl" in text]
    if alike:
        return Licence(SHARE_ALIKE, f"The weights inherit the share-alike of {', '.join(alike)}.")
    return Licence(ATTRIBUTION, "No corpus asks for more than that it be named.")
