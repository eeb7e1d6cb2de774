"""The recording that `serd demo` plays, and the script that made it."""
