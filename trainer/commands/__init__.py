"""One module a command of `serd-trainer`; each holds a click command of its own name."""
