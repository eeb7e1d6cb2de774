"""Microphones that are real to PortAudio: monitors of null sinks. Run by `make test-audio`."""
