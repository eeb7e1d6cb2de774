"""Who may be analysed: roles, mixed channels, consent. No rows, no sockets.

What is not known for certain is decided for the person concerned: a role that does not exist, or
metadata that cannot be read, refuses the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from serd.rows import StreamInfo
from serd.types import Role

METADATA_INVALID: Final = "metadata_invalid"
"""Reason of a stream whose metadata cannot be read. It holds for the life of the stream."""


@dataclass(slots=True)
class Standing:
    """What is known of one channel of a tap, and what was decided.

    Attributes
    ----------
    info
        The newest.
    role_valid
        Whether the role that the tap named exists.
    consent
        What the tap said of it last; None for nothing.
    refusal
        Why the channel is not analysed; None where nothing stands against it.
    """

    info: StreamInfo
    role_valid: bool = True
    consent: bool | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's rules.

    Attributes
    ----------
    refuse_roles
        Roles that no model may hear.
    allow_mixed
        Beginnings of the ids of streams that may be mixed all the same.
    require_consent
        Whether a stream is analysed only when its tap says that there is consent.
    consenting_sources
        Names of sources whose operator has the consent of all whom they hear.
    """

    refuse_roles: frozenset[Role] = frozenset({Role.AGENT, Role.MIXED})
    allow_mixed: tuple[str, ...] = ()
    require_consent: bool = False
    consenting_sources: frozenset[str] = frozenset()

    def refuses(self, standing: Standing) -> str | None:
        """Why a channel may not be heard; None if it may.

        A consent that was denied holds also where none is required.
        """
        if not standing.role_valid:
            return "role_invalid"
        info = standing.info
        if info.role in self.refuse_roles and not self._allowed_by_name(info):
            return f"role_{info.role}"
        if standing.consent is False:
            return "consent_withdrawn"
        asked = self.require_consent and info.source not in self.consenting_sources
        if asked and standing.consent is None:
            return "consent_missing"
        return None

    def _allowed_by_name(self, info: StreamInfo) -> bool:
        return info.role is Role.MIXED and info.stream.startswith(self.allow_mixed)
