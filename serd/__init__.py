"""serd: a daemon that listens to live speech and says how it sounds."""

from __future__ import annotations

__version__ = "0.1.0"
