"""The option by which commands choose events."""

from __future__ import annotations

import click

topics_option = click.option(
    "--topic",
    "topics",
    metavar="PREFIX",
    multiple=True,
    help="Only events whose TYPE.STREAM begins so, as in emotion. or utterance.call-42."
    " Repeatable.",
)
"""``--topic``, as prefixes ``topics``."""
