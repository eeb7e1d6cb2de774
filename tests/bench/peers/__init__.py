"""Other programs that do the daemon's work, measured beside it: see the README in this folder."""
