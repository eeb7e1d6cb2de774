"""The strictest corpus decides."""

from __future__ import annotations

import pytest

from trainer.corpora import REGISTRY
from trainer.licence import licence_of


@pytest.mark.parametrize(
    ("corpora", "licence"),
    [
        (("emodb",), "CC-BY-4.0"),
        (("emodb", "cremad"), "CC-BY-SA-4.0"),
        (("cremad", "ravdess"), "CC-BY-NC-SA-4.0"),
        (("emodb", "tess"), "CC-BY-NC-SA-4.0"),
        (("savee",), "CC-BY-NC-SA-4.0"),
        (("emovo", "emodb"), "CC-BY-NC-SA-4.0"),
    ],
)
def test_of_known_corpora(corpora: tuple[str, ...], licence: str) -> None:
    assert licence_of({name: REGISTRY[name].licence for name in corpora}).name == licence


def test_one_non_commercial_corpus_is_named() -> None:
    found = licence_of({"emodb": "free to use", "tess": "CC-BY-NC-ND-4.0"})
    assert "tess" in found.reason
    assert "emodb" not in found.reason


def test_recordings_of_your_own_are_not_guessed_at() -> None:
    found = licence_of({"ravdess": "CC-BY-NC-SA-4.0", "calls": None})
    assert found.name == "as the recordings"
    assert "calls" in found.reason
