"""A recipe's sections `[corpora.NAME]`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from trainer.corpora.base import Channel
from trainer.splits import SpeakerSplit

Column = Literal["path", "label", "speaker", "sex", "language", "intensity", "statement", "channel"]

_FOLDER_KEYS = ("csv", "columns", "delimiter", "pattern", "labels", "language")


class CorpusSettings(SpeakerSplit):
    r"""One corpus of a recipe, and where a recipe names them, its speakers of each part.

    ```toml
    [corpora.ravdess]                      # a corpus that the trainer knows, in DATA/corpora
    channels = ["speech", "song"]          # default: speech alone
    [corpora.cremad]
    optional = true                        # without it the run goes on, and says so
    path = "~/Downloads/CREMA-D"           # default: DATA/corpora/cremad
    [corpora.calls]                        # your own: a table of files
    loader = "folder"
    path = "/data/calls"
    csv = "calls.csv"                      # below path; or .tsv
    columns = {path = "file", label = "mood", speaker = "agent"}
    labels = {cross = "angry", fine = "neutral"}
    language = "en"
    [corpora.clips]                        # your own: a directory for each label
    loader = "folder"
    path = "/data/clips"                   # angry/x.wav, or angry/SPEAKER/x.wav; or
    pattern = '(?P<speaker>\w+)/(?P<label>\w+)/'
    ```

    `path` is relative to the current folder. For the rules of tables, directories and
    patterns see `trainer.corpora.folder`.
    """

    loader: str | None = Field(None, description="a corpus's name, or folder; default: NAME")
    path: Path | None = Field(None, description="default: DATA/corpora/NAME")
    optional: bool = Field(False, description="go on without it where it is not there")
    channels: tuple[Channel, ...] = Field(("speech",), min_length=1)
    csv: Path | None = Field(None, description="a table of files, relative to path")
    columns: dict[Column, str] = Field({}, description="names of the table's columns")
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    pattern: str | None = Field(None, description="named groups found in the relative path")
    labels: dict[str, str] = Field({}, description='as in the files = canonical; "": left out')
    language: str | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            groups = set(re.compile(value).groupindex)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        known = {"label", "speaker", "sex", "language", "intensity", "statement", "channel"}
        if not groups:
            raise ValueError("it has no named group, as in (?P<speaker>[^/]+)")
        if groups - known:
            raise ValueError(
                f"unknown group {', '.join(sorted(groups - known))}; "
                f"there are {', '.join(sorted(known))}"
            )
        return value

    @model_validator(mode="after")
    def _fits_its_loader(self) -> CorpusSettings:
        if self.loader != "folder":
            for key in _FOLDER_KEYS:
                if key in self.model_fields_set and getattr(self, key):
                    raise ValueError(f'{key} needs loader = "folder"')
        if self.columns and self.csv is None:
            raise ValueError("columns needs csv")
        return self
