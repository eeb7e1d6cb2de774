"""``python -m serd`` is the ``serd`` command."""

from __future__ import annotations

from serd.cli import main

if __name__ == "__main__":
    main()
