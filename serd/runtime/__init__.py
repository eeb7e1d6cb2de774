"""The running daemon: threads, lifecycle, signals, systemd, logs."""
