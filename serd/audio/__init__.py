"""Samples in memory: encodings, resampling and the ring of rows. No sockets, files or clocks."""
